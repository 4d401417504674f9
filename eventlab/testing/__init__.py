"""For tests of event-sourced code: scenarios in the words of the business, and what tries to break a store.

`given(Order, …).when(…).then(…)` is for whoever models, and `given(Projection, …).expect(rows)`. `contract` is the suite for
whoever writes a store; `strategies` makes hostile values, events and appends for hypothesis; both need the `test` extra.
"""

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventlab.testing.scenario import Given, Outcome, given

__all__ = ["Given", "Outcome", "given"]

# The asserts of the contract show what they compared, as those of a test file do.
with contextlib.suppress(ImportError):
    import pytest

    pytest.register_assert_rewrite("eventlab.testing.contract")


def __getattr__(name: str) -> Any:
    # The lab is imported when a scenario is first told: the contract does without it.
    if name not in __all__:
        raise AttributeError(f"module 'eventlab.testing' has no attribute {name!r}")
    from eventlab.testing import scenario

    return getattr(scenario, name)

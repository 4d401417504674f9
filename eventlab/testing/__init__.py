"""For tests of event-sourced code: scenarios in the words of the business, and what tries to break a store.

`given(Order, …).when(…).then(…)` is for whoever models, and `given(Projection, …).expect(rows)`; `given_stored(…).then(…)`
is for whoever changes an event. `contract` is the suite for whoever writes a store; `strategies` makes hostile values, events
and appends for hypothesis; both need the `test` extra.
"""

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventlab.testing.scenario import Given, Outcome, given
    from eventlab.testing.versions import Read, given_stored

__all__ = ["Given", "Outcome", "Read", "given", "given_stored"]

# The asserts of the contract show what they compared, as those of a test file do.
with contextlib.suppress(ImportError):
    import pytest

    pytest.register_assert_rewrite("eventlab.testing.contract")


def __getattr__(name: str) -> Any:
    # The lab is imported when a scenario is first told: the contract does without it.
    if name not in __all__:
        raise AttributeError(f"module 'eventlab.testing' has no attribute {name!r}")
    from eventlab import display
    from eventlab.testing import scenario, versions

    # As a lab does, when it is first named: whoever looks at a scenario in a notebook sees it drawn.
    display.register()
    return getattr(versions if name in vars(versions) else scenario, name)

"""For tests of event-sourced code: the contract that every store passes, and values that try to break one.

`contract` is the suite for whoever writes a store; `strategies` makes hostile values, events and appends for hypothesis.
Both need the `test` extra: pytest and hypothesis.
"""

import contextlib

# The asserts of the contract show what they compared, as those of a test file do.
with contextlib.suppress(ImportError):
    import pytest

    pytest.register_assert_rewrite("eventlab.testing.contract")

"""The tree of errors: split by what the reader does next, with the facts as attributes and the way out in the message."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab import errors
from eventlab.errors import EventlabError, ModelError, Refused, StoreError, TryAgain

BRANCHES = (TryAgain, Refused, ModelError, StoreError)
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_on_one_branch_and_says_what_it_means(kind: type[Any]):
    assert issubclass(kind, EventlabError)
    assert kind is EventlabError or sum(issubclass(kind, branch) for branch in BRANCHES) == 1
    assert kind.__doc__
    assert "__doc__" in vars(kind)


NAMES = st.sampled_from(["stream", "at", "expected", "events", "field", "type"])
FACTS = st.dictionaries(NAMES, st.integers() | st.text() | st.lists(st.integers()), max_size=3)


@given(st.sampled_from(KINDS), st.text(), st.text(), FACTS)
def test_an_error_carries_its_facts_and_survives_another_process_and_a_copy(
    kind: type[EventlabError], message: str, hint: str, facts: dict[str, Any]
):
    error = kind(message, hint=hint, **facts)
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(same) is kind
        assert (same.message, same.hint, same.facts) == (message, hint, facts)
        assert all(getattr(same, name) == value for name, value in facts.items())
        assert str(same) == (f"{message}\nHint: {hint}" if hint else message)


def test_a_fact_that_an_error_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Conflict has no attribute 'events'"):
        el.Conflict("lost").events  # noqa: B018
    assert not hasattr(el.Rejected("no"), "stream")


def test_whoever_tries_again_catches_conflicts_and_no_mistakes():
    assert issubclass(el.Conflict, TryAgain)
    assert not issubclass(el.Rejected, TryAgain)
    assert not issubclass(el.StaleType, Refused)
    with pytest.raises(el.EventlabError):
        raise el.Rejected("no")

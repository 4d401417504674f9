"""Questions: typed, answered as of a place, and not before what they have to know of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import InvalidValue, Late, ModelError, StaleType


@el.event
class LetterSent:
    """A letter went out."""

    to: str
    grams: int


@el.query
class LettersTo:
    """The letters to somebody, heaviest first."""

    to: str
    least: int = 0

    def answer(self, lab: el.Lab) -> pl.DataFrame:
        text = "select grams from types.letter_sent where \"to\" = $who and grams >= $least order by 1 desc"
        return lab.sql(text, who=self.to, least=self.least)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False)
    lab.append("post-1", [LetterSent("ann", 20), LetterSent("bob", 30), LetterSent("ann", 50)])
    yield lab
    lab.close()


def test_a_question_is_answered_as_of_the_place_that_is_asked(lab: el.Lab) -> None:
    assert lab.ask(LettersTo("ann"))["grams"].to_list() == [50, 20]
    assert lab.ask(LettersTo("ann", 30))["grams"].to_list() == [50]
    assert lab.at(position=2).ask(LettersTo("ann"))["grams"].to_list() == [20]


def test_it_waits_for_what_it_has_to_know_of(lab: el.Lab) -> None:
    done = lab.append("post-1", [LetterSent("ann", 70)])
    assert lab.ask(LettersTo("ann"), at_least=done)["grams"].to_list() == [70, 50, 20]

    def later() -> None:
        time.sleep(0.2)
        lab.append("post-1", [LetterSent("ann", 90)])

    thread = threading.Thread(target=later)
    thread.start()
    assert lab.ask(LettersTo("ann"), at_least=5)["grams"].to_list() == [90, 70, 50, 20]
    thread.join()


def test_what_does_not_come_is_late_and_says_where_the_log_is(lab: el.Lab) -> None:
    with pytest.raises(Late, match=r"after 0\.05 s the log is at position 3, and the answer has to know of 9"):
        lab.ask(LettersTo("ann"), at_least=9, timeout=0.05)
    with pytest.raises(Late, match="this moment is position 2, before the 3"):
        lab.at(position=2).ask(LettersTo("ann"), at_least=3)


def test_a_question_is_checked_before_it_is_asked(lab: el.Lab) -> None:
    with pytest.raises(InvalidValue, match=r"LettersTo\.least"):
        lab.ask(LettersTo("ann", "many"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="is not a query"):
        lab.ask(LetterSent("ann", 1))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"has no answer\(self, lab\)"):

        @el.query
        class Nothing:
            pass

    def cell() -> type:
        @el.query
        class Again:
            def answer(self, lab: el.Lab) -> int:
                return lab.head

        return Again

    old = cell()()
    cell()
    with pytest.raises(StaleType):
        lab.ask(old)

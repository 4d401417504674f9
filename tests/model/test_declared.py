"""A value in a class that is no field: it would never be stored, and is refused where the class is defined."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

import pytest

import eventlab as el
from eventlab.errors import ModelError


class Paper(enum.StrEnum):
    PLAIN = "plain"
    LINED = "lined"


@dataclass(frozen=True)
class Margin:
    left: int = 2


def named(**values: Any) -> type[Any]:
    """A class that says no types."""
    return type("PageTorn", (), {"__module__": __name__, **values})


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("a", 'of_it: str = "a"'),
        ('a "b"', "of_it: str = 'a \"b\"'"),
        (b"a", "of_it: bytes = b'a'"),
        (1, "of_it: int = 1"),
        (1.5, "of_it: float = 1.5"),
        (True, "of_it: bool = True"),
        (Decimal("9.50"), "of_it: Decimal = Decimal('9.50')"),
        (dt.date(2026, 1, 2), "of_it: date = datetime.date(2026, 1, 2)"),
        (dt.timedelta(1), "of_it: timedelta = datetime.timedelta(days=1)"),
        ([1], "of_it: list[…] = el.field(default_factory=list)"),
        ({}, "of_it: dict[…] = el.field(default_factory=dict)"),
        ({1}, "of_it: set[…] = el.field(default_factory=set)"),
        ((1, 2), "of_it: tuple[…, ...] = (1, 2)"),
        (frozenset(), "of_it: frozenset[…] = frozenset()"),
        (None, "of_it: … | None = None"),
        (Paper.LINED, "of_it: Paper = Paper.LINED"),
        (Margin(3), "of_it: Margin = Margin(left=3)"),
        (dataclasses.field(default_factory=list), "of_it: … = el.field(…)"),
        ("a" * 50, "of_it: str = …"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("decorator", [el.event, el.command, el.aggregate, el.projection, el.query], ids=lambda of: of.__name__)
def test_a_value_without_an_annotation_is_refused(decorator: Callable[[type[Any]], Any], value: Any, hint: str) -> None:
    with pytest.raises(ModelError, match=r"PageTorn\.of_it has no annotation") as refused:
        decorator(named(of_it=value))
    assert hint in str(refused.value)
    assert "for a constant OF_IT = …" in str(refused.value)


def test_what_is_no_value_or_no_field_is_let_pass() -> None:
    @dataclass
    class Wrapped:
        function: Callable[..., Any]

        def __get__(self, of: Any, owner: Any = None) -> Any:
            return self.function

    class Ruled:
        lines: int = 20

        by = "a base that is no model may do as it likes"

    @el.event(name="declared.PageRuled")
    class PageRuled(Ruled):
        """Lines were drawn on a page."""

        WIDTH_2 = 210
        N = 1
        unit: ClassVar[str] = "mm"
        ink: str = "blue"
        lines = 30
        _cache = ()

        class Kind(enum.StrEnum):
            A = "a"

        paper = Paper
        other = Wrapped(len)
        shown = property(lambda self: self.ink)
        said = lambda self: self.ink  # noqa: E731

        @classmethod
        def plain(cls) -> Self:
            return cls()

        @staticmethod
        def nothing() -> None: ...

    assert [name for name, _ in el.model.events.event_type(PageRuled).fields] == ["ink"]


def test_an_aggregate_says_which_of_its_values_is_no_field() -> None:
    with pytest.raises(ModelError, match=r"WritingPad\.pages has no annotation.*\n.*pages: int = 0"):

        @el.aggregate
        class WritingPad:
            pages = 0

            def evolve(self, event: Any) -> Self:
                return self

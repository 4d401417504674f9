"""Given, when, then: tests of a model that read like the business, and expected rows for any projection.

Each scenario runs in a throw-away lab: the given events are appended, the command goes through `lab.handle`, and what it
appended is compared. A failure prints the scenario with the difference.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from eventlab.errors import InvalidValue, ModelError, Rejected
from eventlab.lab import Clock, Lab, scratch
from eventlab.model.events import command_type
from eventlab.model.models import Model, model_of
from eventlab.projections.handmade import Handmade
from eventlab.testing.versions import Read, read_back
from eventlab.testing.words import (
    agrees,
    check_event,
    differences,
    each,
    is_model,
    named_values,
    normal,
    reason_text,
    text_of,
    told,
    unlike,
)

#: When everything in a scenario happens, unless a clock is given.
NOON: Final = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
#: The id of the aggregate that a scenario is about.
ID: Final = "1"
#: So many events are also folded one after another into a read model, to see that a catch-up gives the same rows.
FEW: Final = 50


def given(*what: Any, clock: Clock | None = None) -> Given:
    """A model and what happened before: events of one aggregate, or a mapping of streams to events.

    `given(Order, ItemAdded(…)).when(PlaceOrder(…)).then(OrderPlaced(…))`, or `.rejected("…")`;
    `given(DailyTotal, {"order-1": […], "order-2": […]}).expect([{"day": …, "total": …}])` for any projection, also one that
    is written in SQL or as frames; without a model, `when` takes a function of the lab: for decisions on several streams.
    `given(ItemAdded(…)).at_version(1).then(sku=…)` for a downcaster; for an upcaster there is `given_stored`.

    >>> import eventlab as el
    >>> from eventlab.testing import given
    >>> @el.event
    ... class StoveLit:
    ...     "Somebody lit the stove."
    >>> @el.command
    ... class LightStove:
    ...     pass
    >>> @el.aggregate
    ... class Stove:
    ...     lit: bool = False
    ...     def decide(self, command: LightStove):
    ...         if self.lit:
    ...             raise el.Rejected("it burns already")
    ...         yield StoveLit()
    ...     def evolve(self, event: StoveLit) -> "Stove":
    ...         return Stove(True)
    >>> done = given(Stove).when(LightStove()).then(StoveLit()).state(lit=True)
    >>> done = given(Stove, StoveLit()).when(LightStove()).rejected("burns")
    """
    model: Any = None
    listed = list(what)
    if listed and (isinstance(listed[0], Handmade) or is_model(listed[0])):
        model = listed.pop(0)
    return Given(model, tuple(_pairs(model, listed)), clock or (lambda: NOON))


@dataclass(frozen=True)
class Given:
    """What happened before, in a model's eyes; made by `given`."""

    model: Any
    past: tuple[tuple[str, Any], ...]
    clock: Clock

    def __repr__(self) -> str:
        several = len({stream for stream, _ in self.past}) > 1
        lines = [f"{stream}: {text_of(event)}" if several else text_of(event) for stream, event in self.past]
        return "\n".join(told("given", self.named, lines))

    @property
    def named(self) -> str:
        """The name of the model or projection; of none, nothing."""
        return "" if self.model is None else self.model.name if isinstance(self.model, Handmade) else self.model.__name__

    def when(self, what: Any) -> Outcome:
        """Let the model decide on a command; or let a function do what it does with the lab.

        `Rejected` is an outcome. Any other error is the model's fault, or the test's, and comes through.
        """
        __tracebackhide__ = True
        with self._lab() as lab:
            head, before, of = lab.head, None, self._aggregate()
            if _is_command(what):
                if of is None:
                    raise InvalidValue("a command is for an aggregate", hint="given(Order, …).when(AddItem(…))")
                before = lab.load(of.cls, ID)
            elif isinstance(what, type):
                raise InvalidValue(f"when takes a command, and {what.__name__} is a class", hint=f"when({what.__name__}(…))")
            elif not callable(what):
                raise InvalidValue(f"when({what!r}) takes a command, or a function of the lab", hint="its class: @el.command")
            rejection = None
            try:
                if of is not None and _is_command(what):
                    lab.handle(of.cls, ID, what)
                else:
                    what(lab)
            except Rejected as why:
                rejection = why
            after = lab.load(of.cls, ID) if of is not None else None
            found = tuple((event.stream, event.data) for event in lab.read(after=head))
        return Outcome(self, what, found, rejection, before, after)

    def at_version(self, version: int) -> Read:
        """The given event as a reader of an older version of its type sees it, by its `@el.downcast` steps.

        `given(ItemAdded("hat", 2, "EUR")).at_version(1).then(sku="hat", quantity=2)`, or `.fails("no step back")`.
        """
        if self.model is not None or len(self.past) != 1:
            raise InvalidValue("at_version is about one event", hint="given(ItemAdded(…)).at_version(1).then(sku=…)")
        return read_back(self.past[0][1], version)

    def expect(self, rows: Iterable[Mapping[str, Any]] | pl.DataFrame | Mapping[Any, Any]) -> Given:
        """These rows, and no others, are the table of the model or projection then; in any order.

        Rows are mappings of the columns that matter, a frame, or a mapping of keys to states. A model is folded in every way
        there is: by its own `evolve`, by what the compiler makes of it, and event by event into a read model.
        """
        __tracebackhide__ = True
        if self.model is None:
            raise InvalidValue("expect is about the rows of a model or projection", hint="given(DailyTotal, …).expect(…)")
        wanted = _rows(rows)
        for how, frame in self._tables():
            _compare(self, how, wanted, frame, loose=not isinstance(rows, pl.DataFrame))
        return self

    def table(self) -> pl.DataFrame:
        """The rows, to be looked at."""
        with self._lab() as lab:
            model: Any = self.model
            return lab.table(model)

    # -- inside

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("then", "then_nothing", "rejected", "state"):
                raise InvalidValue(
                    f"nothing was asked for yet, so there is nothing for {name} to look at",
                    hint=f"given(…).when(…).{name}(…); of an old version: given_stored(…).then(…)",
                )
            raise AttributeError(f"given(…) has no {name!r}")

    def _lab(self) -> Lab:
        lab = scratch(clock=self.clock, seed=0)
        for stream, event in self.past:
            lab.append(stream, [event])
        return lab

    def _aggregate(self) -> Model | None:
        if self.model is None or isinstance(self.model, Handmade):
            return None
        of = model_of(self.model)
        return of if of.category is not None else None

    def _tables(self) -> Iterable[tuple[str, pl.DataFrame]]:
        with self._lab() as lab:
            if isinstance(self.model, Handmade):
                yield "", self.table()
                return
            yield "by its evolve", lab.table(self.model, engine="rows")
            yield "by the fold compiler", lab.table(self.model)
        if len(self.past) <= FEW:
            with scratch(clock=self.clock, seed=0) as lab:
                for stream, event in self.past:
                    lab.append(stream, [event])
                    lab.catch_up(self.model)
                yield "event by event", lab.table(self.model)


@dataclass(frozen=True)
class Outcome:
    """What came of a command: its events with their streams or its rejection, and the states around it."""

    given: Given
    command: Any
    appended: tuple[tuple[str, Any], ...]
    rejection: Rejected | None
    before: Any
    after: Any

    @property
    def events(self) -> tuple[Any, ...]:
        """The events that were appended."""
        return tuple(event for _, event in self.appended)

    def __repr__(self) -> str:
        answer = [f"rejected: {self.rejection.message}"] if self.rejection else [text_of(event) for event in self.events]
        lines = [repr(self.given), *told("when", "", [text_of(self.command)]), *told("then", "", answer or ["nothing"])]
        lines += [f"        {name}: {old!r} → {new!r}" for name, old, new in self.changed]
        return "\n".join(lines)

    @property
    def changed(self) -> tuple[tuple[str, Any, Any], ...]:
        """The fields of the state that differ: name, before, after."""
        if self.before is None or self.after is None:
            return ()
        return tuple(differences(self.before, self.after))

    def then(self, *events: Any) -> Outcome:
        """These events were appended, in this order, and no others; none at all: nothing happened.

        A mapping of streams to events says also where.
        """
        __tracebackhide__ = True
        where = events[0] if len(events) == 1 and isinstance(events[0], Mapping) else None
        if where is not None:
            wanted = {stream: [normal(event, "then") for event in each(part)] for stream, part in where.items()}
            lines = [f"- {stream}: {text_of(event)}" for stream, listed in wanted.items() for event in listed]
        else:
            expected = [normal(event, "then") for event in each(events)]
            lines = [f"- {text_of(event)}" for event in expected]
        if self.rejection is not None:
            self._fail(f"it was rejected: {self.rejection.message}", lines)
        if where is not None:
            came: dict[str, list[Any]] = {}
            for stream, event in self.appended:
                came.setdefault(stream, []).append(event)
            if came != {stream: listed for stream, listed in wanted.items() if listed}:
                self._fail("it appended otherwise", lines + [f"+ {stream}: {text_of(e)}" for stream, e in self.appended])
        elif list(self.events) != expected:
            self._fail("it answered otherwise", unlike(expected, self.events))
        return self

    def rejected(self, reason: str | re.Pattern[str] | Rejected | type[Rejected] | None = None) -> Outcome:
        """The command was rejected, and the reason says this: a regular expression that is found in it, or a `Rejected`."""
        __tracebackhide__ = True
        if self.rejection is None:
            self._fail("it was not rejected", [f"+ {text_of(event)}" for event in self.events] or ["+ nothing happened"])
        elif not agrees(reason, self.rejection, "rejected"):
            self._fail("it was rejected for another reason", [f"- {reason_text(reason)}", f"+ {self.rejection.message}"])
        return self

    def then_nothing(self) -> Outcome:
        """Nothing was appended, rejected or not."""
        __tracebackhide__ = True
        if self.appended:
            self._fail("something was appended", [f"+ {text_of(event)}" for event in self.events])
        return self

    def state(self, expected: Any = None, /, **values: Any) -> Outcome:
        """The state after it is this one, or has these values: a state, a mapping, or fields by their names."""
        __tracebackhide__ = True
        if self.after is None:
            raise InvalidValue("only an aggregate has a state", hint="given(Order, …).when(…).then(…).state(status='placed')")
        if isinstance(expected, Mapping):
            values = {**expected, **values}
        elif is_dataclass(expected) and not isinstance(expected, type):
            values = {of.name: getattr(expected, of.name) for of in fields(expected)} | values
        elif expected is not None:
            raise InvalidValue(f"state({expected!r}) takes a state or its fields", hint="state(status='placed')")
        known = {of.name for of in fields(self.after)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidValue(f"{type(self.after).__name__} has no field {unknown[0]!r}", hint=f"its fields: {sorted(known)}")
        wrong = [name for name, value in values.items() if getattr(self.after, name) != value]
        if wrong:
            lines = [f"  {name}: expected {values[name]!r}, got {getattr(self.after, name)!r}" for name in wrong]
            self._fail("the state after it is another", lines)
        return self

    def _fail(self, why: str, lines: Sequence[str]) -> None:
        __tracebackhide__ = True
        asked = told("when", "", [text_of(self.command)])
        raise AssertionError("\n".join([why, repr(self.given), *asked, *told("then", "", lines)]))


# -- rows ------------------------------------------------------------------------------------------------------------------


def _rows(rows: Any) -> list[dict[str, Any]]:
    if isinstance(rows, pl.DataFrame):
        return rows.to_dicts()
    if isinstance(rows, Mapping):
        return [{"_id": key, **(dict(value) if isinstance(value, Mapping) else _fields(value))} for key, value in rows.items()]
    listed = list(rows) if isinstance(rows, Iterable) else [rows]
    if not all(isinstance(row, Mapping) for row in listed):
        raise InvalidValue("expected rows are mappings of columns to values", hint="expect([{'_id': 'UA', 'flights': 2}])")
    return [dict(row) for row in listed]


def _fields(state: Any) -> dict[str, Any]:
    if not is_dataclass(state):
        hint = "expect({'UA': {'flights': 2}})"
        raise InvalidValue(f"expect takes a state or fields for each key, and not {state!r}", hint=hint)
    return {of.name: getattr(state, of.name) for of in fields(state)}


def _compare(given: Given, how: str, wanted: list[dict[str, Any]], frame: pl.DataFrame, *, loose: bool) -> None:
    __tracebackhide__ = True
    named = [frame.columns if not loose else list(row) for row in wanted]
    missing = [name for names in named for name in names if name not in frame.columns]
    if missing:
        raise InvalidValue(f"the table has no column {missing[0]!r}", hint=f"its columns: {', '.join(frame.columns)}")
    left = [_plain(row) for row in frame.to_dicts()]
    lacking = []
    for row, names in zip(wanted, named, strict=True):
        plain = _plain({name: row.get(name) for name in names})
        same = next((at for at, found in enumerate(left) if all(found[name] == plain[name] for name in names)), None)
        if same is None:
            lacking.append(plain)
        else:
            del left[same]
    if lacking or left:
        shown = {name for names in named for name in names} or set(frame.columns)
        others = [{name: value for name, value in row.items() if name in shown} for row in left]
        lines = [*(f"- {named_values(row)}" for row in lacking), *(f"+ {named_values(row)}" for row in others)]
        way = f" ({how})" if how else ""
        raise AssertionError("\n".join([f"the rows are others{way}", repr(given), *told("rows", "", lines)]))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its sequences as lists and its sets sorted, as a frame has them."""

    def of(value: Any) -> Any:
        if isinstance(value, (set, frozenset)):
            return sorted(map(of, value))
        if isinstance(value, (list, tuple)):
            return [of(item) for item in value]
        return getattr(value, "value", value) if hasattr(value, "_value_") else value

    return {name: of(value) for name, value in row.items()}


# -- what is given ---------------------------------------------------------------------------------------------------------


def _is_command(what: Any) -> bool:
    try:
        command_type(type(what))
    except ModelError:
        return False
    return True


def _pairs(model: Any, listed: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    """The given events with their streams, in their order."""
    category = "given"
    if model is not None and not isinstance(model, Handmade):
        category = model_of(model).read_category or category
    for part in each(listed):
        streams = part.items() if isinstance(part, Mapping) else [(f"{category}-{ID}", part)]
        for stream, events in streams:
            for event in each(events):
                check_event(event, "given")
                yield stream, event

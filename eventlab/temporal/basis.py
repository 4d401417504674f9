"""Bases: what an answer rests on, as plain values that are kept, and what is different when it is opened again."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final, overload

import duckdb
import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidValue, StoreError
from eventlab.model.models import MODELS
from eventlab.projections.handmade import HANDMADE
from eventlab.store.base import ALL, Store, Tenant
from eventlab.temporal.calendar import instant, shown

Event = str | None


class _WhenAsked:
    """A field that may be given as a function, which is called once, when the value is first asked for."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, of: None, owner: type[Any]) -> None: ...
    @overload
    def __get__(self, of: Basis, owner: type[Any]) -> Event: ...
    def __get__(self, of: Basis | None, owner: type[Any]) -> Event:
        if of is None:
            return None  # what the field is when it is left out
        value = of.__dict__[self._name]
        if callable(value):
            value = of.__dict__[self._name] = value()
        found: Event = value
        return found

    def __set__(self, of: Basis, value: Event | Callable[[], Event]) -> None:
        of.__dict__[self._name] = value


@dataclass(frozen=True)
class Basis:
    """What an answer rests on: which store, how much of its log, by which clock, and which engines and code computed it.

    `inside_commit` says that the position splits an append: some of its events are known here, and some are not. `event` is the
    event at the position, its id and when it was recorded, by which another log is told apart; it is looked up when it is asked
    for, and None where it is not known: at the beginning, in a basis of before, or when the lab was closed by then. `code` has
    the fingerprint of each model that was asked, by name; `fingerprint` is that of the one model of the answer.
    """

    store: str
    tenant: str
    position: int
    head: int
    clock: str
    asked: str
    engines: tuple[str, ...]
    fingerprint: str | None = None
    inside_commit: bool = False
    event: _WhenAsked = _WhenAsked()
    code: tuple[tuple[str, str], ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "event": self.event}

    @property
    def codes(self) -> dict[str, str]:
        """The fingerprints of the models, by name."""
        return dict(self.code)

    @staticmethod
    def of(given: Basis | Mapping[str, Any]) -> Basis:
        """A basis, or its fields as a dict, as JSON gives them; refused when they could not be those of one."""
        if not isinstance(given, (Basis, Mapping)):
            raise InvalidValue(f"basis={given!r:.80} is not a basis", hint=_HINT)
        values = dict(given) if isinstance(given, Mapping) else {of.name: getattr(given, of.name) for of in fields(given)}
        unknown, missing = sorted(map(str, values.keys() - _CHECKS.keys())), sorted(_NEEDED - values.keys())
        if unknown or missing:
            said = [f"it has {', '.join(unknown)}"] * bool(unknown) + [f"it lacks {', '.join(missing)}"] * bool(missing)
            raise InvalidValue(f"basis={given!r:.80} is not a basis: {' and '.join(said)}", hint=_HINT)
        for name, value in values.items():
            fits, wanted = _CHECKS[name]
            if not fits(value):
                raise InvalidValue(f"basis={given!r:.80} is not a basis: its {name} is {value!r:.40}, not {wanted}", hint=_HINT)
        if values["clock"] == "occurred":
            if not values["asked"].startswith("occurred "):
                raise InvalidValue(f"a basis of the clock 'occurred' asks {values['asked']!r:.40}, which is no time", hint=_HINT)
            instant(values["asked"].removeprefix("occurred "))
        values["engines"] = tuple(values["engines"])
        values["code"] = tuple((name, print_) for name, print_ in values.get("code", ()))
        return Basis(**values)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(map(_text, value))


_HINT: Final = "lab.at(…).basis, or its fields as a dict"
_NEEDED: Final = frozenset({"store", "tenant", "position", "head", "clock", "asked", "engines"})
_Check = tuple[Callable[[Any], bool], str]
_CHECKS: Final[dict[str, _Check]] = {
    **dict.fromkeys(("store", "tenant", "asked"), (_text, "text")),
    **dict.fromkeys(("position", "head"), (_place, "a whole number from 0")),
    "clock": (lambda value: value in ("recorded", "occurred"), "'recorded' or 'occurred'"),
    "engines": (_texts, "a list of texts"),
    **dict.fromkeys(("fingerprint", "event"), (lambda value: value is None or _text(value), "text or None")),
    "inside_commit": (lambda value: isinstance(value, bool), "True or False"),
    "code": (
        lambda value: isinstance(value, (tuple, list)) and all(_texts(of) and len(of) == 2 for of in value),
        "a list of pairs, a model and its fingerprint",
    ),
}


def event_at(store: Store, position: int) -> Event:
    """The id of the event at a position, of any tenant, and when it was recorded; None at the beginning or in a closed store."""
    if not position:
        return None
    names = ("position", "event_id", "recorded_at")
    try:
        for batch in store.cut().batches(tenant=ALL, after=position - 1, until=position, envelope=names, types=()):
            for table in batch.tables:
                id, when = table.column("event_id")[0].as_py(), table.column("recorded_at")[0].as_py()
                assert isinstance(when, dt.datetime)
                return f"{uuid.UUID(bytes=id)} of {shown(when)}"
    except StoreError:
        pass
    return None


def tenant_named(tenant: Tenant) -> str:
    """The tenant as a basis names it."""
    return tenant if isinstance(tenant, str) else "ALL"


@cache
def engines() -> tuple[str, ...]:
    """What computes here, with its version."""
    return (f"duckdb {duckdb.__version__}", f"polars {pl.__version__}", f"pyarrow {pa.__version__}")


def drift(then: Basis | Mapping[str, Any], now: Basis | Mapping[str, Any]) -> list[str]:
    """What is different between the basis of an answer and one of now, beside the log that grew: place, log, engines, code.

    Of two bases at one position the events there are compared; the code of each model that both know, or that is defined here.
    """
    old, new = Basis.of(then), Basis.of(now)
    names = ("store", "tenant", "position", "clock", *(("asked",) if (old.clock, new.clock) == ("occurred", "occurred") else ()))
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in names]
    found = [f"{name} {one} then, {other} now" for name, one, other in pairs if one != other]
    if old.position == new.position:
        found += another_log(old, new.event)
    return [*found, *_engines_apart(old.engines, new.engines), *_code_apart(old, new)]


def another_log(then: Basis, event: Event) -> list[str]:
    """Whether another event is now at the position of a basis."""
    if then.event is None or event is None or then.event == event:
        return []
    return [f"the log: at position {then.position:,} there was event {then.event} then, and there is {event} now"]


def _engines_apart(then: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    old, new = ({text.partition(" ")[0]: text for text in of} for of in (then, now))
    return [
        f"{old.get(name, f'no {name}')} then, {new.get(name, f'no {name}')} now"
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def _code_apart(then: Basis, now: Basis) -> list[str]:
    """The models that are defined otherwise now. A basis of before knows one fingerprint, and not of which model."""
    found, known = [], now.codes
    for name, old in then.code:
        here = [known[name]] if name in known else [of.fingerprint for of in MODELS.named(name)]
        if name in HANDMADE and name not in known:
            here.append(HANDMADE[name].fingerprint)
        if not here:
            found.append(f"code of {name} {old[:8]} then, not defined now")
        elif old not in here:
            found.append(f"code of {name} {old[:8]} then, {here[0][:8]} now")
    if not then.code and None not in (then.fingerprint, now.fingerprint) and then.fingerprint != now.fingerprint:
        found.append(f"code {str(then.fingerprint)[:8]} then, {str(now.fingerprint)[:8]} now")
    return found

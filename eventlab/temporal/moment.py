"""Moments: a place in the log named by a position, a time or a stream's version, with the read verbs of a lab."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from eventlab.errors import InvalidValue, UnknownStream, Unsupported
from eventlab.model.models import Model, model_of
from eventlab.model.names import split_stream
from eventlab.model.types import EPOCH, MICROSECOND
from eventlab.projections.handmade import Handmade
from eventlab.store.base import ALL, Cut
from eventlab.temporal.basis import Basis, another_log, drift, event_at, tenant_named
from eventlab.temporal.calendar import Time as Time
from eventlab.temporal.calendar import instant as instant
from eventlab.temporal.calendar import shown
from eventlab.temporal.hindsight import Hindsight
from eventlab.temporal.occurred import OccurredCut
from eventlab.temporal.reader import Reader


class Moment(Reader):
    """The log as it was known at some position; never changes, whatever is appended later.

    A position may lie inside a commit, and `inside_commit` says so. A time stands for the last commit at or before it.
    """

    def __init__(self, of: Reader, cut: Cut, position: int, asked: str) -> None:
        super().__init__(of._store, of._tenant, of._progress, of._tables)
        self._bound, self._snapshots = of._bound, of._snapshots
        of._moments.add(self)
        self._cut = cut
        self.position = position
        self.asked = asked
        #: For a moment of the other clock: what is asked, in microseconds since 1970, of which log.
        self.occurred_us: int | None = None
        self._whole = cut
        self._hindsights: dict[tuple[bool, frozenset[str]], Hindsight] = {}
        self._asked_models: dict[str, str] = {}
        #: The basis that this moment was opened from, and what was different from it when it was opened.
        self.then: Basis | None = None
        self.differs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        inside = ", inside a commit" if self.inside_commit else ""
        differs = f", differs={list(self.differs)}" if self.differs else ""
        return f"Moment(position={self.position}{inside}, asked={self.asked!r}{differs})"

    def _at(self) -> tuple[Cut, int]:
        return self._cut, self.position

    def drift(self, then: Basis | Mapping[str, Any] | None = None, model: type[Any] | None = None) -> list[str]:
        """What is different now from the basis of an answer: place, log, engines, and the code of its models, or of one.

        Left out, `then` is the basis that this moment was opened from. A log that only grew is the same log.
        """
        if then is None and (then := self.then) is None:
            raise InvalidValue("this moment was not opened from a basis", hint="moment.drift(basis), or lab.at(basis=…).drift()")
        # Its models are compared as they are defined now, not as this moment was asked for them.
        old, now, end = Basis.of(then), replace(self._basis(None, *self._at()), code=()), self._store.cut().head
        if model is not None:
            of = super()._model(model)
            mine = ((of.name, of.fingerprint),)
            theirs = tuple(pair for pair in old.code if pair[0] == of.name)
            old = replace(old, code=theirs, fingerprint=None if old.code else old.fingerprint)
            now = replace(now, code=mine, fingerprint=of.fingerprint)
        log: list[str] = []
        if old.store == now.store:
            if old.position != now.position:
                log = another_log(old, event_at(self._store, old.position))
            if old.head > end:
                log.append(f"the log: it went to position {old.head:,} then, and ends at {end:,} now")
        return [*log, *drift(old, now)]

    def _model(self, model: type[Any], *, superseded: bool = False) -> Model:
        of = super()._model(model, superseded=superseded)
        if not superseded:
            self._asked_models[of.name] = of.fingerprint
        return of

    def _handmade(self, of: Handmade, cut: Cut, until: int) -> pa.Table:
        self._asked_models[of.name] = of.fingerprint
        return super()._handmade(of, cut, until)

    def _code(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self._asked_models.items()))

    def _own(self, of: Model) -> Hindsight | None:
        if self.occurred_us is None or not (of.late or of.corrections):
            return None
        asked = of.late == "sorted", frozenset(kind.name for kind in of.corrections)
        if asked not in self._hindsights:
            sort, corrections = asked
            self._hindsights[asked] = Hindsight(self._whole, self.position, self.occurred_us, corrections, sort=sort)
        return self._hindsights[asked]

    def _asked(self) -> str:
        return self.asked

    def _splits_a_commit(self) -> bool:
        return self.inside_commit

    @cached_property
    def inside_commit(self) -> bool:
        """Whether events of the same append lie on both sides of this position."""
        for batch in self._cut.batches(tenant=ALL, after=self.position, until=self.position + 1, envelope=("position", "commit")):
            return bool(batch.envelope.commit[0] <= self.position)
        return False


def resolve(
    of: Reader, time: Time | None, position: int | None, version: Any, tz: str | None, occurred: Time | None = None,
    basis: Basis | Mapping[str, Any] | None = None,
) -> Moment:  # fmt: skip
    """The moment of a reader's log that exactly one of time, position, version, occurred and basis names."""
    named = {"time": time, "position": position, "version": version, "occurred": occurred, "basis": basis}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise InvalidValue(
            f"at() takes one of a time, position=, version=, occurred= and basis=, and got {' and '.join(given) or 'none'}",
            hint='lab.at("2026-02-08T18:00Z"), lab.at(position=120), lab.at(version=(Order, "7", 12))',
        )
    cut, head = of._at()
    if basis is not None:
        return _reopened(of, basis)
    if occurred is not None:
        return _occurred(of, cut, head, instant(occurred, tz))
    if position is not None:
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise InvalidValue(f"{position!r} is not a position", hint="a whole number from 0 (before the first event)")
        return Moment(of, cut, min(position, head), f"position {position}")
    if time is not None:
        when = instant(time, tz)
        return Moment(of, cut, cut.position_at((when - EPOCH) // MICROSECOND), f"recorded {shown(when)}")
    return Moment(of, cut, _position_of(cut, of._one_tenant("at(version=…)"), version), f"version {version[2]} of {version[1]}")


def _occurred(of: Reader, cut: Cut, until: int, when: dt.datetime) -> Moment:
    """What had occurred by a moment, of all that is known now."""
    us = (when - EPOCH) // MICROSECOND
    found = Moment(of, OccurredCut(cut, us), until, f"occurred {shown(when)}")
    found._uses_bases, found._snapshots, found.occurred_us, found._whole = False, None, us, cut
    return found


def _reopened(of: Reader, given: Basis | Mapping[str, Any]) -> Moment:
    """The moment that an answer rested on."""
    basis = Basis.of(given)
    if basis.store != of._store.store_id:
        raise InvalidValue(f"the basis is of the store {basis.store}, and this is {of._store.store_id}", hint="open that store")
    tenant = tenant_named(of._tenant)
    if basis.tenant != tenant:
        theirs = "el.ALL" if basis.tenant == tenant_named(ALL) else repr(basis.tenant)
        said = f"the basis is of the tenant {basis.tenant!r}, and this lab is of {tenant!r}"
        raise InvalidValue(said, hint=f"open that tenant: el.open(path, tenant={theirs})")
    cut, head = of._at()
    if basis.position > head:
        said = f"the basis is at position {basis.position:,}, and the log ends at {head:,}"
        raise InvalidValue(said, hint="a log never shrinks: is it a copy?")
    if basis.clock == "occurred":
        found = _occurred(of, cut, basis.position, instant(basis.asked.removeprefix("occurred ")))
    else:
        found = Moment(of, cut, basis.position, basis.asked)
    found.then = basis
    found.differs = tuple(found.drift())
    return found


def _position_of(cut: Cut, tenant: str, version: Any) -> int:
    try:
        cls, name, number = version
    except (TypeError, ValueError):
        raise InvalidValue(f"version={version!r} is not (Model, id, number)") from None
    category = model_of(cls).category
    if category is None:
        raise Unsupported(f"{cls.__name__} is a projection, and only an aggregate has versions", hint="lab.at(position=…)")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidValue(f"{number!r} is not a version", hint="a whole number from 0 (before the first event)")
    stream = f"{category}-{name}"
    split_stream(stream)
    if number == 0:
        return 0
    last = 0
    for batch in cut.stream(stream, tenant=tenant):
        for at, position in zip(batch.envelope.version, batch.envelope.position, strict=True):
            last = at
            if at == number:
                return int(position)
    raise UnknownStream(f"{stream!r} has no version {number}: its last is {last}", stream=stream, version=number, last=last)

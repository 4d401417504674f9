"""Moments: a place in the log named by a position, a time or a stream's version, with the read verbs of a lab."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from eventlab.errors import InvalidValue, UnknownStream, Unsupported
from eventlab.model.models import model_of
from eventlab.model.names import split_stream
from eventlab.model.types import EPOCH, MICROSECOND
from eventlab.store.base import ALL, Cut
from eventlab.temporal.calendar import Time as Time
from eventlab.temporal.calendar import instant as instant
from eventlab.temporal.calendar import shown
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

    def __repr__(self) -> str:
        inside = ", inside a commit" if self.inside_commit else ""
        return f"Moment(position={self.position}{inside}, asked={self.asked!r})"

    def _at(self) -> tuple[Cut, int]:
        return self._cut, self.position

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


def resolve(of: Reader, time: Time | None, position: int | None, version: Any, tz: str | None) -> Moment:
    """The moment of a reader's log that exactly one of time, position and version names."""
    given = [name for name, value in (("time", time), ("position", position), ("version", version)) if value is not None]
    if len(given) != 1:
        raise InvalidValue(
            f"at() takes one of a time, position= and version=, and got {' and '.join(given) or 'none'}",
            hint='lab.at("2026-02-08T18:00Z"), lab.at(position=120), lab.at(version=(Order, "7", 12))',
        )
    cut, head = of._at()
    if position is not None:
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise InvalidValue(f"{position!r} is not a position", hint="a whole number from 0 (before the first event)")
        return Moment(of, cut, min(position, head), f"position {position}")
    if time is not None:
        when = instant(time, tz)
        return Moment(of, cut, cut.position_at((when - EPOCH) // MICROSECOND), f"recorded {shown(when)}")
    return Moment(of, cut, _position_of(cut, of._one_tenant("at(version=…)"), version), f"version {version[2]} of {version[1]}")


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

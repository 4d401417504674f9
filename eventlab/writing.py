"""What a lab writes: events that are appended, decisions on any events, and commands that are handled."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, TypeVar

import polars as pl

from eventlab import commands
from eventlab.commands import ATTEMPTS, Decision, Drafting, Handled, Handling, Middleware, Preview
from eventlab.errors import Behind, Conflict, HandledBefore, InvalidValue, ModelError, Refused, Rejected, Unsupported
from eventlab.keeping import Keeper
from eventlab.model.events import New, command_type, event_type
from eventlab.model.filters import Filter, stream
from eventlab.model.ids import derived
from eventlab.model.meta import context, current_context
from eventlab.model.models import Model, model_of
from eventlab.model.names import check_plain
from eventlab.model.types import from_us, moment_us
from eventlab.projections.inline import FLUSH_ROWS, InlineModel
from eventlab.projections.read_models import catch_up, flush
from eventlab.store.base import Appended, Condition, Draft, Store, Tenant
from eventlab.store.handled import Done, Rejection
from eventlab.store.maintain import Maintenance
from eventlab.temporal.moment import instant
from eventlab.temporal.reader import Loaded, Progress

M = TypeVar("M")
Clock = Callable[[], dt.datetime]
#: So many commands of `handle_many` are stored at once.
BATCH: Final = 500
#: So much is kept of what a rejected command said.
SAID: Final = 2_000
_REJECTED: Final[dict[str, Any]] = {
    "at": pl.Datetime("us", "UTC"), "command_id": pl.String, "command": pl.String, "stream": pl.String, "reason": pl.String,
    "actor": pl.String, "said": pl.String,
}  # fmt: skip


class Writer(Keeper):
    """The verbs of a lab that write to the log."""

    def __init__(
        self, store: Store, tenant: Tenant, progress: Progress, *, clock: Clock, chance: Callable[[int], bytes]
    ) -> None:
        super().__init__(store, tenant, progress)
        self._clock = clock
        self._chance = chance
        self._maintenance: Maintenance | None = None
        self._middleware: list[Middleware] = []
        self._inlined: dict[str, Model] = {}
        #: Rows that inline read models have left in the catalog, by name.
        self._left: dict[str, int] = {}

    # -- events

    def append(
        self,
        to: str | Mapping[str, Sequence[Any]],
        events: Sequence[Any] | None = None,
        *,
        expected: int | Mapping[str, int] | None = None,
        key: str | None = None,
        occurred_at: dt.datetime | str | None = None,
        tags: Sequence[str] = (),
        condition: Condition | tuple[Filter, int] | None = None,
    ) -> Appended:
        """Append events to a stream, or to several at once: all of them or none.

        `expected` is the version (0 for a new stream) that the streams must be at, else `Conflict` with the events that came
        between. `condition` is a filter and a position: the append is a `Conflict` if anything the filter picks came after it
        (see `decide_on`). `key` makes the append safe to repeat: the second time changes nothing and gives the old positions.
        Without `key`, `expected` or ids of your own a repeat is a new append.
        """
        pairs = self._pairs(to, events)
        wanted = self._expected(to, expected)
        now = moment_us(self._clock(), "the clock")
        drafts, own = self._drafts(pairs, now, key, occurred_at, tags)
        if not drafts:
            return Appended()
        return self._stored(drafts, now, wanted, own=own, condition=_condition(condition))

    # -- decisions on any events

    @contextlib.contextmanager
    def decide_on(self, filter: Filter) -> Iterator[Decision]:
        """Decide on any events, of whatever streams: what the filter picks is read once, and what is appended to it in the
        block is stored at its end, all or nothing, unless anything the filter picks came in between (`Conflict`).

        Raise `Rejected`, or anything, and nothing is stored. Others call this a dynamic consistency boundary.

        >>> import eventlab as el
        >>> @el.event
        ... class SeatTaken:
        ...     "A student took one of the seats."
        ...     course: el.Tag[str]
        >>> lab = el.scratch()
        >>> with lab.decide_on(el.events(SeatTaken) & el.tag(course="c1")) as seen:
        ...     if len(seen) < 30:
        ...         seen.append("course-c1", SeatTaken("c1"))
        >>> seen.done.positions
        (1,)
        """
        head = self.head
        decision = Decision(self.read(filter, until=head).list(), head)
        try:
            yield decision
        finally:
            decision.ended = True
        if decision.appending:
            decision.done = self.append(decision.appending, condition=Condition(filter, head))

    def decide(self, filter: Filter, function: Callable[[Decision], object], *, attempts: int = ATTEMPTS) -> Appended:
        """Read what a filter picks, let `function` append to it, and store that; read and decide again on a lost race.

        `function` takes the events seen, as `decide_on` gives them, and may run `attempts` times.
        """
        _check_attempts(attempts)
        for attempt in range(1, attempts + 1):
            try:
                with self.decide_on(filter) as seen:
                    given = function(seen)
                    if given is not None:
                        what = "yields" if isinstance(given, Generator) else f"gave {given!r:.60}"
                        raise InvalidValue(
                            f"{getattr(function, '__name__', 'the function')} {what}, and what a decision appends is said to it",
                            hint="seen.append(stream, event), and no return",
                        )
            except Conflict:
                if attempt == attempts:
                    raise
            else:
                return seen.done
        raise AssertionError

    # -- commands

    def handle(
        self, model: type[M], id: str, command: Any, *, command_id: str | uuid.UUID | None = None, attempts: int = ATTEMPTS
    ) -> Handled[M]:
        """Load, decide, append: the events a command leads to, and the state after them.

        On a lost race it loads and decides again, `attempts` times in all. `Rejected` is the model's answer; nothing is
        stored then, but for a line in `rejections`. A command that is given twice under one `command_id` has one effect, in
        whatever process and after any restart, and gives the same result; one that was rejected is decided again. The events
        carry it as their cause.

        >>> import eventlab as el
        >>> @el.event
        ... class MealOrdered:
        ...     "A guest ordered a meal."
        >>> @el.command
        ... class OrderMeal:
        ...     pass
        >>> @el.aggregate
        ... class Bill:
        ...     meals: int = 0
        ...     def decide(self, command: OrderMeal):
        ...         yield MealOrdered()
        ...     def evolve(self, event: MealOrdered) -> "Bill":
        ...         return Bill(self.meals + 1)
        >>> lab = el.scratch()
        >>> done = lab.handle(Bill, "4", OrderMeal(), command_id="tap-1")
        >>> again = lab.handle(Bill, "4", OrderMeal(), command_id="tap-1")
        >>> again.repeated, again.positions == done.positions, again.state
        (True, True, Bill(meals=1))
        """
        _check_attempts(attempts)
        return self._through(Handling(model, id, command, _command_id(command_id), attempts))

    def handle_many(
        self, given: Iterable[tuple[Any, ...]], *, attempts: int = ATTEMPTS
    ) -> list[Handled[Any] | Rejected]:
        """Handle commands, of different aggregates as a rule, a few hundred in one append: (model, id, command) each, or with
        a command id as a fourth.

        Each is decided as `handle` would decide it, in their order, and succeeds or is rejected by itself: the answer has
        what it did, or its `Rejected`, in the same order. Any other error ends it, and what is stored by then stays; the
        error's note says which command it was. With middleware, and where an id comes twice among a few hundred, or another
        process was quicker, those are handled one by one, each in an append of its own.
        """
        _check_attempts(attempts)
        listed = iter([_handling(one, attempts) for one in given])
        results: list[Handled[Any] | Rejected] = []
        while batch := list(islice(listed, BATCH)):
            together = None if self._middleware else self._batch(batch, len(results))
            if together is None:
                together = []
                for handling in batch:
                    with _naming(handling, len(results) + len(together)):
                        together.append(self._one_of_many(handling))
            results += together
        return results

    def preview(self, model: type[M], id: str, command: Any) -> Preview[M]:
        """Decide without appending: the events a command would lead to now, and the state after them; or `Rejected`.

        Nothing is handled, and so middleware is not asked.
        """
        of, _ = self._addressed(model, id)
        loaded = self.loaded(model, id)
        events = commands.decide(of, loaded.state, command)
        return Preview(tuple(events), loaded.state, commands.after(of, loaded.state, events), loaded.version)

    def use(self, middleware: Middleware) -> Middleware:
        """Wrap the handling of every command of this lab in a plain function: for logging, timing, permissions.

        It takes the `Handling` and `proceed`, and gives what `proceed(handling)` gives, or raises. The first that was put in
        use is the outermost; a function of a module or cell that is defined again, as when the cell is run again, takes the
        place of the one before. What it rejects is in `rejections` like what a model rejects.

        >>> import eventlab as el
        >>> lab = el.scratch()
        >>> @lab.use
        ... def loud(handling, proceed):
        ...     print("handling", handling.command)
        ...     return proceed(handling)
        """
        if not callable(middleware):
            raise InvalidValue(f"{middleware!r} is no middleware", hint="a function of (handling, proceed)")
        for at, other in enumerate(self._middleware):
            if other is middleware or (_named(middleware) is not None and _named(other) == _named(middleware)):
                self._middleware[at] = middleware
                return middleware
        self._middleware.append(middleware)
        return middleware

    def rejections(self, limit: int = 100) -> pl.DataFrame:
        """The last commands that a model said no to, the newest first: when, which, who asked, and why. The last 10,000 are
        kept, outside the log.
        """
        found = self._store.commands.rejections(self._one_tenant("rejections"), limit)
        rows = [(from_us(of.at), of.id, of.name, of.stream, of.reason, of.actor, of.said) for of in found]
        return pl.DataFrame(rows, schema=_REJECTED, orient="row")

    # -- inside: commands

    def _through(self, handling: Handling) -> Handled[Any]:
        """Through the middleware, and then handled."""
        proceed: Callable[[Handling], Handled[Any]] = self._handled
        for wrap in reversed(self._middleware):
            proceed = _wrapped(wrap, proceed)
        try:
            return proceed(handling)
        except Rejected as why:
            self._note(handling, self._addressed(handling.model, handling.id)[1], why, self._one_tenant("handle"))
            raise

    def _handled(self, given: Handling) -> Handled[Any]:
        of, name = self._addressed(given.model, given.id)
        commands.check(of, given.command)
        tenant = self._one_tenant("handle")
        digest = commands.digest_of(of, name, given.command) if given.command_id else b""
        before = self._before(given, of, digest, tenant)
        if before is not None:
            return before
        with self._caused(given.command_id, tenant):
            for attempt in range(1, given.attempts + 1):
                loaded = self.loaded(given.model, given.id)
                events = commands.decide(of, loaded.state, given.command)
                state = commands.after(of, loaded.state, events)
                now = moment_us(self._clock(), "the clock")
                kept = _done(given, name, digest, now, len(events), loaded)
                try:
                    if not events:
                        for done in kept:
                            self._store.commands.put(tenant, done)
                        return Handled((), (), state, loaded.version, given.command_id, attempts=attempt)
                    drafts, own = self._drafts([(name, event) for event in events], now)
                    done_ = self._stored(drafts, now, {name: loaded.version}, own=own, kept=kept)
                except HandledBefore:
                    before = self._before(given, of, digest, tenant)
                    assert before is not None
                    return before
                except Conflict:
                    if attempt == given.attempts:
                        raise
                    continue
                if of.takes_meta:
                    # The fold wants to know where the events are: as of the last of them, whoever else has appended since.
                    state = self._as_of(given, done_.positions[-1])
                plain = tuple(events)
                return Handled(plain, done_.positions, state, done_.versions[-1], given.command_id, attempts=attempt)
        raise AssertionError

    def _batch(self, batch: Sequence[Handling], begin: int) -> list[Handled[Any] | Rejected] | None:
        """Several commands in one append; None where they have to be handled one by one after all."""
        tenant, head = self._one_tenant("handle_many"), self.head
        now = moment_us(self._clock(), "the clock")
        states: dict[str, tuple[Any, int]] = {}
        expected: dict[str, int] = {}
        drafts: list[Draft] = []
        kept: list[Done] = []
        results: list[Handled[Any] | Rejected] = []
        places: list[tuple[int, int]] = []
        rejected: list[tuple[Handling, str, Rejected]] = []
        ids: set[str] = set()
        own = False
        for given in batch:
            of, name = self._addressed(given.model, given.id)
            commands.check(of, given.command)
            digest = commands.digest_of(of, name, given.command) if given.command_id else b""
            if of.takes_meta or (given.command_id is not None and given.command_id in ids):
                return None
            before = self._before(given, of, digest, tenant)
            if before is not None:
                results.append(before)
                places.append((0, 0))
                continue
            if name not in states:
                loaded = self.loaded(given.model, given.id)
                states[name], expected[name] = (loaded.state, loaded.version), loaded.version
            state, version = states[name]
            try:
                with _naming(given, begin + len(results), begin):
                    events = commands.decide(of, state, given.command)
                    state = commands.after(of, state, events)
            except Rejected as why:
                rejected.append((given, name, why))
                results.append(why)
                places.append((0, 0))
                continue
            with self._caused(given.command_id, tenant):
                made, some = self._drafts([(name, event) for event in events], now)
            own |= some
            states[name] = state, version + len(events)
            if given.command_id is not None:
                ids.add(given.command_id)
            kept += [replace(done, first=len(drafts), version=version)
                     for done in _done(given, name, digest, now, len(events), None)]  # fmt: skip
            places.append((len(drafts), len(events)))
            drafts += made
            results.append(Handled(tuple(events), (), state, version + len(events), given.command_id))
        if drafts:
            try:
                done = self._stored(drafts, now, expected, own=own, kept=kept)
            except (Conflict, HandledBefore):
                return None
            for at, (first, count) in enumerate(places):
                of_one = results[at]
                if count and isinstance(of_one, Handled):
                    results[at] = replace(of_one, positions=done.positions[first : first + count])
        elif kept:
            try:
                for one in kept:
                    self._store.commands.put(tenant, replace(one, first=head))
            except HandledBefore:
                return None
        for given, name, no in rejected:
            self._note(given, name, no, tenant)
        return results

    def _one_of_many(self, given: Handling) -> Handled[Any] | Rejected:
        try:
            return self._through(given)
        except Rejected as why:
            return why

    def _before(self, given: Handling, of: Model, digest: bytes, tenant: str) -> Handled[Any] | None:
        """What a command did when it was handled before under its id."""
        if given.command_id is None:
            return None
        done = self._store.commands.find(tenant, given.command_id)
        if done is None:
            return None
        if done.digest != digest:
            raise Refused(
                f"the command id {given.command_id!r} was given to {done.name} for {done.stream!r}, which said something else",
                hint="an id belongs to one command: repeat it as it was, or give another",
                command_id=given.command_id,
            )
        positions = tuple(range(done.first, done.first + done.count))
        events = tuple(of_.data for of_ in self.read(after=done.first - 1, until=positions[-1])) if positions else ()
        # Of one that led to nothing, `first` is how far the log had come.
        state = self._as_of(given, positions[-1] if positions else done.first)
        return Handled(events, positions, state, done.version, given.command_id, repeated=True)

    def _as_of(self, given: Handling, position: int) -> Any:
        """The state as of a position."""
        cut, _ = self._at()
        of, name = self._addressed(given.model, given.id)
        return self._loaded(of, name, self._one_tenant("load"), cut, position)[0]

    def _addressed(self, model: type[Any], id: str) -> tuple[Model, str]:
        """An aggregate and the stream of one of them."""
        of = self._model(model)
        if of.category is None:
            raise Unsupported(f"{of.cls.__name__} is a projection; commands go to aggregates")
        return of, of.stream(id)

    @contextlib.contextmanager
    def _caused(self, command_id: str | None, tenant: str) -> Iterator[None]:
        """What is appended inside was caused by this command."""
        if command_id is None:
            yield
            return
        try:
            cause = uuid.UUID(command_id)
        except ValueError:
            cause = uuid.UUID(bytes=derived(command_id, 1, tenant)[0])
        with context(causation_id=cause):
            yield

    def _note(self, given: Handling, name: str, why: Rejected, tenant: str) -> None:
        """Keep who was rejected and why; nothing depends on it."""
        if self._store.read_only:
            return
        now, actor = moment_us(self._clock(), "the clock"), current_context().actor
        said = ", ".join(f"{field}={value!r}" for field, value in vars(given.command).items())[:SAID]
        kind = command_type(type(given.command))
        self._store.commands.reject(tenant, Rejection(now, given.command_id, kind.name, name, said, why.message[:SAID], actor))

    # -- inside: events

    def _drafts(
        self,
        pairs: Sequence[tuple[str, Any]],
        now: int,
        key: str | None = None,
        occurred_at: dt.datetime | str | None = None,
        tags: Sequence[str] = (),
    ) -> tuple[list[Draft], bool]:
        """Drafts of events, and whether any has an id of the caller's own."""
        tenant = self._one_tenant("append")
        for cls in dict.fromkeys(type(event.event if isinstance(event, New) else event) for _, event in pairs):
            kind = event_type(cls)
            if not kind.stale:
                self._bind(kind.cls, kind.name)
        at = instant(occurred_at) if occurred_at is not None else None
        shared = Drafting(current_context(), tenant, key, at, tuple(tags), now // 1000, self._chance)
        drafts, own = commands.drafts(pairs, shared)
        self._refuse_renamed({draft.schema.key: draft.schema for draft in drafts}.values())
        return drafts, own

    def _stored(
        self, drafts: Sequence[Draft], now: int, expected: Mapping[str, int], *, own: bool, condition: Condition | None = None,
        kept: Sequence[Done] = (),
    ) -> Appended:  # fmt: skip
        """Append drafts, with what is kept of their commands, and move the inline read models with them."""
        tenant = self._one_tenant("append")
        inline = [InlineModel(of, tenant) for of in self._inlined.values()]
        try:
            while True:
                try:
                    done = self._store.append(
                        drafts, tenant=tenant, expected=expected, repeats=own, condition=condition, now=now, inline=inline,
                        commands=kept,
                    )  # fmt: skip
                    break
                except Behind as behind:
                    catch_up(self._inlined[behind.name], self._store, tenant)
        except Conflict as conflict:
            if "condition" in conflict.facts:
                between = self.read(conflict.condition.filter, after=conflict.condition.after).list()
            else:
                between = [e for e in self.read(stream(conflict.stream)) if e.version > conflict.expected]
            conflict.facts["events"] = between
            raise
        for of in inline:
            self._left[of.name] = left = self._left.get(of.name, 0) + of.left
            if left >= FLUSH_ROWS:
                flush(of.model, self._store, tenant)
                self._left[of.name] = 0
        if self._maintenance is not None:
            self._maintenance.written()
        return done

    def _pairs(self, to: str | Mapping[str, Sequence[Any]], events: Sequence[Any] | None) -> list[tuple[str, Any]]:
        if isinstance(to, str):
            if events is None or isinstance(events, (str, bytes)) or not isinstance(events, Iterable):
                raise InvalidValue(
                    f"append({to!r}, …) takes a list of events, and got {events!r}", hint="lab.append('order-7', [event])"
                )
            return [(to, event) for event in events]
        if events is not None:
            raise InvalidValue("append takes a stream and its events, or one mapping of streams to events")
        return [(name, event) for name, listed in to.items() for event in listed]

    def _expected(self, to: str | Mapping[str, Sequence[Any]], expected: int | Mapping[str, int] | None) -> dict[str, int]:
        if expected is None:
            return {}
        given = {to: expected} if isinstance(to, str) and not isinstance(expected, Mapping) else expected
        if not isinstance(given, Mapping):
            raise InvalidValue("several streams take expected={stream: version}", hint="{'account-1': 4, 'account-2': 9}")
        for name, version in given.items():
            if isinstance(version, bool) or not isinstance(version, int) or version < 0:
                raise InvalidValue(f"expected version of {name!r} is {version!r}", hint="a whole number; 0 for a new stream")
        return dict(given)

def _handling(one: Any, attempts: int) -> Handling:
    """One of the commands that `handle_many` is given."""
    if not isinstance(one, (tuple, list)) or len(one) not in (3, 4):
        raise InvalidValue(f"handle_many takes (model, id, command), and got {one!r}", hint='[(Order, "7", AddItem(…)), …]')
    model, id, command, *rest = one
    model_of(model)
    return Handling(model, id, command, _command_id(rest[0] if rest else None), attempts)


def _command_id(given: str | uuid.UUID | None) -> str | None:
    if given is None:
        return None
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        return str(uuid.UUID(given)) if isinstance(given, str) and len(given) == 36 else check_plain(str(given), "command_id")
    return check_plain(str(given), "command_id")


def _done(given: Handling, name: str, digest: bytes, now: int, count: int, on: Loaded[Any] | None) -> list[Done]:
    """What is kept of a command that has an id, and was decided on a state."""
    if given.command_id is None:
        return []
    kind = command_type(type(given.command))
    first, version = (0, 0) if on is None else (0 if count else on.basis.position, on.version)
    return [Done(given.command_id, kind.name, name, digest, now, first, count, version)]


def _wrapped(wrap: Middleware, proceed: Callable[[Handling], Handled[Any]]) -> Callable[[Handling], Handled[Any]]:
    def wrapped(handling: Handling) -> Handled[Any]:
        given = wrap(handling, proceed)
        if not isinstance(given, Handled):
            name = getattr(wrap, "__qualname__", repr(wrap))
            raise ModelError(f"the middleware {name} gave {given!r:.60}", hint="return proceed(handling)")
        return given

    return wrapped


def _named(middleware: Middleware) -> tuple[str, str] | None:
    """The place of a function that has a name of its own there; None of lambdas and of what another function makes."""
    name = getattr(middleware, "__qualname__", "<")
    return None if "<" in name else (middleware.__module__, name)


@contextlib.contextmanager
def _naming(given: Handling, at: int, stored: int | None = None) -> Iterator[None]:
    """An error says which of many commands it was about, and that those before it are stored."""
    try:
        yield
    except Rejected:
        raise
    except Exception as why:
        before = at if stored is None else stored
        why.add_note(f"command {at} of those given, {given.command!r:.100} for {given.id!r}; the {before} before are handled")
        raise


def _check_attempts(attempts: int) -> None:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise InvalidValue(f"attempts={attempts!r} is not a number of times", hint="a whole number, at least 1")


def _condition(given: Condition | tuple[Filter, int] | None) -> Condition | None:
    if given is None or isinstance(given, Condition):
        return given
    try:
        filter, after = given
    except (TypeError, ValueError):
        filter, after = None, None
    if not isinstance(filter, Filter) or isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise InvalidValue(f"condition={given!r} is not a filter and a position", hint='(el.tag(course="c1"), lab.head)')
    return Condition(filter, after)

"""The board of an event storming as a value: notes on a timeline, what leads to what, and examples of how it goes.

The order of the notes is the timeline. A note keeps its id when it is renamed, and everything refers to ids. Edits give a new
board; the old one stays as it is, so to undo is to go back. `text` is the board as a file that reads well in a diff; where a note
lies on a screen is a `Layout`, a file of its own: to move a note is no change of the model.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

import polars as pl

from eventlab.errors import InvalidValue, UnknownType
from eventlab.model.names import check_plain, snake
from eventlab.store.words import many
from eventlab.storming.process import Process

Kind = Literal["actor", "command", "aggregate", "event", "policy", "read_model", "system", "hotspot", "question"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Which kinds a note of a kind may lead to.
LEADS: Final[dict[str, tuple[str, ...]]] = {
    "actor": ("command",),
    "command": ("aggregate", "event", "system"),
    "aggregate": ("event",),
    "event": ("policy", "read_model", "system"),
    "policy": ("command",),
    "read_model": ("actor", "command", "policy"),
    "system": ("command", "event"),
    "hotspot": KINDS,
    "question": KINDS,
}
#: Kinds whose notes become classes or functions: their names are written as one word.
CODED: Final = ("command", "aggregate", "event", "policy", "read_model")
MAX_TEXT: Final = 20_000


@dataclass(frozen=True)
class Field:
    """A piece of information: its name, its type as Python writes it, and where it comes from, when no other note says so."""

    name: str
    type: str = "str"
    origin: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.startswith("_"):
            raise InvalidValue(f"{self.name!r} cannot name a field", hint='a Python name: "due: date = two weeks from today"')

    @classmethod
    def read(cls, text: str) -> Field:
        """From `name: type = origin`; the last two can be left out."""
        told, _, origin = text.partition("=")
        name, _, kind = told.partition(":")
        return cls(name.strip(), kind.strip() or "str", origin.strip())

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + (f" = {self.origin}" if self.origin else "")


@dataclass(frozen=True)
class Note:
    """One note: what it is, its name, and what it leads to (`to`, by id or name).

    `fields` are written as `"due: date"`. `context` is the bounded context, `lane` any other grouping. `within` is for policies:
    so many seconds after its event the policy has done its part.
    """

    kind: Kind
    name: str
    fields: tuple[Field, ...] = ()
    to: tuple[str, ...] = ()
    text: str = ""
    context: str = ""
    lane: str = ""
    within: float | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidValue(f"there is no kind of note {self.kind!r}", hint=", ".join(KINDS))
        put = object.__setattr__
        put(self, "name", _named(self.kind, self.name))
        put(self, "fields", tuple(Field.read(of) if isinstance(of, str) else of for of in _listed(self.fields, "fields")))
        put(self, "to", tuple(dict.fromkeys(_listed(self.to, "to"))))
        names = [of.name for of in self.fields]
        if len(set(names)) < len(names):
            raise InvalidValue(f"{self.name} has a field twice: {', '.join(names)}")
        for what in ("context", "lane"):
            if getattr(self, what):
                check_plain(getattr(self, what), what)
        if len(self.text) > MAX_TEXT:
            raise InvalidValue(f"the text of {self.name} has {len(self.text):,} characters", hint=f"at most {MAX_TEXT:,}")
        if self.within is not None and not (self.kind == "policy" and self.within > 0):
            raise InvalidValue(f"{self.name}: within={self.within!r}", hint="seconds above 0, of a policy")
        if self.id and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise InvalidValue(f"{self.id!r} cannot be the id of a note", hint="small letters, digits and single dashes")


@dataclass(frozen=True)
class Fact:
    """An event or a command with its values, in an example."""

    note: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.note}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


@dataclass(frozen=True)
class Example:
    """Given these events, when this command comes, then those events; or it is `rejected`, with words of its reason."""

    name: str
    when: Fact
    given: tuple[Fact, ...] = ()
    then: tuple[Fact, ...] = ()
    rejected: str = ""

    def __post_init__(self) -> None:
        check_plain(self.name, "example")
        object.__setattr__(self, "given", tuple(self.given))
        object.__setattr__(self, "then", tuple(self.then))
        if self.then and self.rejected:
            raise InvalidValue(f"{self.name}: what is rejected gives no events", hint="then, or rejected")

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Everything that it speaks of."""
        return (*self.given, self.when, *self.then)


@dataclass(frozen=True)
class Board:
    """Notes in the order of their timeline, examples, and the processes of streams (`flows`).

    >>> board = Board("library", (
    ...     Note("actor", "Member", to=("LendBook",)),
    ...     Note("command", "lend book", ("reader: str",), to=("BookLent",)),
    ...     Note("event", "book lent", ("reader: str",), text="A member took a book home."),
    ... ))
    >>> [note.name for note in board.notes]
    ['Member', 'LendBook', 'BookLent']
    >>> board.change("BookLent", name="BookTaken").note("book-lent").name
    'BookTaken'
    >>> Board.read(board.text()) == board
    True
    """

    name: str
    notes: tuple[Note, ...] = ()
    examples: tuple[Example, ...] = ()
    flows: tuple[Process, ...] = ()

    def __post_init__(self) -> None:
        check_plain(self.name, "board")
        notes = _with_ids(self.notes)
        find = _finder(notes)
        put = object.__setattr__
        put(self, "notes", tuple(replace(note, to=_ids(find(to, note.name).id for to in note.to)) for note in notes))
        put(self, "examples", tuple(_checked(example, find) for example in self.examples))
        put(self, "flows", tuple(self.flows))
        by_id = {note.id: note for note in self.notes}
        for note in self.notes:
            for to in note.to:
                _check_lead(note, by_id[to])
        for what, names in (("example", [of.name for of in self.examples]), ("flow", [of.category for of in self.flows])):
            if len(set(names)) < len(names):
                raise InvalidValue(f"{self.name} has the {what} {next(n for n in names if names.count(n) > 1)!r} twice")

    def __repr__(self) -> str:
        counts = [many(len(self.find(kind)), kind.replace("_", " ")) for kind in KINDS if self.find(kind)]
        return f"Board({self.name!r}: {', '.join(counts) or 'empty'})"

    # -- looking

    @cached_property
    def _find(self) -> Callable[[str, str], Note]:
        return _finder(self.notes)

    @cached_property
    def _at(self) -> dict[str, int]:
        return {note.id: at for at, note in enumerate(self.notes)}

    @cached_property
    def _into(self) -> dict[str, list[Note]]:
        """What leads to each note."""
        found: dict[str, list[Note]] = {}
        for note in self.notes:
            for to in note.to:
                found.setdefault(to, []).append(note)
        return found

    def note(self, ref: str) -> Note:
        """The note of an id, or the only one of a name; `UnknownType` where there is none."""
        return self._find(ref, self.name)

    def find(self, *kinds: str) -> tuple[Note, ...]:
        """The notes of these kinds, along the timeline."""
        return tuple(note for note in self.notes if note.kind in kinds)

    def after(self, ref: str, *kinds: str) -> tuple[Note, ...]:
        """The notes that one leads to."""
        to = [self.note(of) for of in self.note(ref).to]
        return tuple(sorted((of for of in to if not kinds or of.kind in kinds), key=lambda of: self._at[of.id]))

    def before(self, ref: str, *kinds: str) -> tuple[Note, ...]:
        """The notes that lead to one."""
        return tuple(of for of in self._into.get(self.note(ref).id, ()) if not kinds or of.kind in kinds)

    def events_of(self, command: str) -> tuple[Note, ...]:
        """What a command may give: the events it leads to; where it names none, those of its aggregates."""
        direct = self.after(command, "event")
        if direct:
            return direct
        found = {event.id for of in self.after(command, "aggregate") for event in self.after(of.id, "event")}
        return tuple(note for note in self.notes if note.id in found)

    def aggregate_of(self, ref: str) -> Note | None:
        """The aggregate that takes a command, or that gives an event."""
        note = self.note(ref)
        if note.kind == "command":
            return next(iter(self.after(note.id, "aggregate")), None) or next(
                (owner for event in self.after(note.id, "event") for owner in self.before(event.id, "aggregate")), None
            )
        owners = self.before(note.id, "aggregate")
        taking = (of for command in self.before(note.id, "command") for of in self.after(command.id, "aggregate"))
        return next(iter(owners), None) or next(taking, None)

    def table(self) -> pl.DataFrame:
        """The notes as a frame: `id`, `kind`, `name`, `fields`, `to`, `context`, `lane`, `text`."""
        rows = [
            (of.id, of.kind, of.name, [str(one) for one in of.fields], list(of.to), of.context, of.lane, of.text)
            for of in self.notes
        ]
        kinds: dict[str, Any] = dict.fromkeys(("id", "kind", "name", "fields", "to", "context", "lane", "text"), pl.String)
        kinds |= dict.fromkeys(("fields", "to"), pl.List(pl.String))
        return pl.DataFrame(rows, schema=kinds, orient="row")

    # -- editing: each gives a new board

    def add(self, kind: str, name: str, *, before: str | None = None, **more: Any) -> Board:
        """With one note more, at the end of the timeline or `before` another; `more` are its other fields."""
        note = Note(kind, name, **more)  # type: ignore[arg-type]
        note = note if note.id else replace(note, id=_free_id(note.name, {of.id for of in self.notes}))
        if any(of.id == note.id for of in self.notes):
            raise InvalidValue(f"there is a note {note.id!r} already")
        at = len(self.notes) if before is None else self.notes.index(self.note(before))
        return replace(self, notes=(*self.notes[:at], note, *self.notes[at:]))

    def change(self, ref: str, **what: Any) -> Board:
        """With other values of a note: `board.change("BookLent", name="BookTaken", fields=["reader: str"])`."""
        old = self.note(ref)
        known = {of.name for of in fields(Note)} - {"id"}
        if not set(what) <= known:
            raise InvalidValue(f"a note has no {', '.join(sorted(set(what) - known))}", hint=", ".join(sorted(known)))
        new = replace(old, **what)
        return replace(self, notes=tuple(new if note is old else note for note in self.notes))

    def remove(self, *refs: str) -> Board:
        """Without notes, what led to them, and what examples said of them."""
        gone = {self.note(ref).id for ref in refs}
        notes = tuple(
            replace(note, to=tuple(to for to in note.to if to not in gone)) for note in self.notes if note.id not in gone
        )
        examples = tuple(
            replace(of, given=_without(of.given, gone), then=_without(of.then, gone))
            for of in self.examples
            if of.when.note not in gone
        )
        return replace(self, notes=notes, examples=examples)

    def link(self, ref: str, to: str) -> Board:
        """With one note leading to another; `InvalidValue` where that makes no sense."""
        note, other = self.note(ref), self.note(to)
        _check_lead(note, other)
        return self.change(note.id, to=(*note.to, other.id))

    def unlink(self, ref: str, to: str) -> Board:
        """Without that."""
        note, other = self.note(ref), self.note(to).id
        return self.change(note.id, to=tuple(of for of in note.to if of != other))

    def place(self, ref: str, before: str | None) -> Board:
        """With a note elsewhere on the timeline: before another, or at the end."""
        note = self.note(ref)
        rest = tuple(of for of in self.notes if of is not note)
        if before is None:
            return replace(self, notes=(*rest, note))
        other = self.note(before)
        if other is note:
            return self
        at = rest.index(other)
        return replace(self, notes=(*rest[:at], note, *rest[at:]))

    def with_example(self, example: Example) -> Board:
        """With an example, in the place of the one of its name."""
        kept = tuple(of for of in self.examples if of.name != example.name)
        return replace(self, examples=(*kept, example))

    def with_flow(self, flow: Process) -> Board:
        """With the process of a category, in the place of the one it has."""
        return replace(self, flows=(*(of for of in self.flows if of.category != flow.category), flow))

    # -- two boards

    def changes(self, since: Board) -> list[Change]:
        """What differs from an older board, note by note; empty where nothing does."""
        return _changes(since, self)

    # -- files

    def text(self) -> str:
        """It as TOML: a line for each thing that is said."""
        return _written(self)

    @classmethod
    def read(cls, text: str) -> Board:
        """From its TOML; `InvalidValue` says what is wrong with it."""
        return _read(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all."""
        write_whole(Path(path), self.text())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Board:
        """From a file."""
        try:
            return cls.read(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as why:
            said = getattr(why, "strerror", None) or "it is no text"
            raise InvalidValue(f"{path} cannot be read: {said}", hint="a file that Board.save wrote") from None


@dataclass(frozen=True)
class Change:
    """One difference between two boards."""

    what: Literal["added", "removed", "changed", "moved"]
    note: str
    field: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.note} {self.what}" + (f": {self.field} {self.before!r} → {self.after!r}" if self.field else "")


@dataclass(frozen=True)
class Layout:
    """Where notes lie on the screen, in pixels from the upper left; a note without a place lies where the timeline puts it."""

    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def at(self, note: str, x: float, y: float) -> Layout:
        """With a note there."""
        return Layout({**self.places, note: (round(x), round(y))})

    def text(self) -> str:
        """It as TOML, a line for each note."""
        lines = [f"{note} = [{x}, {y}]" for note, (x, y) in sorted(self.places.items())]
        return "\n".join(["[places]", *lines, ""])

    @classmethod
    def read(cls, text: str) -> Layout:
        """From its TOML."""
        told = _toml(text).get("places", {})
        try:
            return cls({str(note): (int(x), int(y)) for note, (x, y) in told.items()})
        except (TypeError, ValueError, AttributeError) as why:
            raise InvalidValue(f"this is no layout: {why}", hint="book-lent = [120, 80]") from None

    @staticmethod
    def beside(path: Path) -> Path:
        """The file of a board's layout."""
        return path.with_suffix(".layout.toml")


def write_whole(path: Path, text: str) -> None:
    """Put text in the place of a file in one step: a reader sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        spare.write_text(text, encoding="utf-8")
        os.replace(spare, path)
    finally:
        spare.unlink(missing_ok=True)


# -- checks ----------------------------------------------------------------------------------------------------------------


def _named(kind: str, name: str) -> str:
    """A name as its kind wants it: `book lent` is `BookLent`, where it becomes a class."""
    text = " ".join(check_plain(name, kind).split())
    if kind not in CODED:
        return check_plain(text, kind)
    words = re.findall(r"\w+", text)
    made = "".join(word[:1].upper() + word[1:] for word in words)
    if not made.isidentifier() or made.startswith("_"):
        raise InvalidValue(f"{name!r} cannot name a note of kind {kind}", hint="words of letters: 'book lent', 'BookLent'")
    return made


def _listed(given: Any, what: str) -> Iterable[Any]:
    if isinstance(given, str):
        raise InvalidValue(f"{what}={given!r} is text", hint=f"a list: [{given!r}]")
    return given if isinstance(given, Iterable) else (given,)


def _free_id(name: str, taken: Iterable[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", snake(name)).strip("-") or "note"
    found, number = plain, 1
    while found in taken:
        number += 1
        found = f"{plain}-{number}"
    return found


def _with_ids(notes: Iterable[Note]) -> tuple[Note, ...]:
    notes = tuple(notes)
    taken = [note.id for note in notes if note.id]
    if len(set(taken)) < len(taken):
        raise InvalidValue(f"two notes have the id {next(of for of in taken if taken.count(of) > 1)!r}")
    known, found = set(taken), []
    for note in notes:
        one = note if note.id else replace(note, id=_free_id(note.name, known))
        known.add(one.id)
        found.append(one)
    return tuple(found)


def _finder(notes: Sequence[Note]) -> Callable[[str, str], Note]:
    """From an id, or a name that is the only one, to its note."""
    by_id = {note.id: note for note in notes}
    named: dict[str, list[Note]] = {}
    for note in notes:
        named.setdefault(note.name, []).append(note)

    def find(ref: str, where: str) -> Note:
        if ref in by_id:
            return by_id[ref]
        found = named.get(ref, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownType(f"{where}: {len(found)} notes are called {ref!r}", hint=", ".join(of.id for of in found))
        raise UnknownType(f"{where}: there is no note {ref!r}", hint=", ".join(list(by_id)[:20]) or "the board is empty")

    return find


def _ids(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))


def _check_lead(note: Note, other: Note) -> None:
    if other is note or other.kind not in LEADS[note.kind]:
        may = ", ".join(LEADS[note.kind])
        raise InvalidValue(
            f"{note.name} ({note.kind}) cannot lead to {other.name} ({other.kind})", hint=f"from {note.kind} to: {may}"
        )


def _checked(example: Example, find: Callable[[str, str], Note]) -> Example:
    def fact(of: Fact, kind: str) -> Fact:
        note = find(of.note, example.name)
        if note.kind != kind:
            raise InvalidValue(f"{example.name}: {note.name} is a note of kind {note.kind}, and {kind} is what belongs there")
        return Fact(note.id, {name: _value(value, f"{example.name}: {note.name}.{name}") for name, value in of.values.items()})

    return replace(
        example, when=fact(example.when, "command"), given=tuple(fact(of, "event") for of in example.given),
        then=tuple(fact(of, "event") for of in example.then),
    )  # fmt: skip


def _value(value: Any, where: str) -> Any:
    """A value that a file can hold: text, numbers, truth, days, times and moments, lists and mappings of them."""
    if isinstance(value, (list, tuple)):
        return [_value(one, where) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _value(one, where) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"{where}: {value!r} is no value of an example", hint="a finite number")
    if isinstance(value, (str, bool, int, float, dt.date, dt.time)):
        return value
    if type(value).__name__ == "Decimal":
        return str(value)
    raise InvalidValue(
        f"{where}: {value!r} is no value of an example", hint="text, numbers, days and moments; leave out what is not there"
    )


def _without(facts: Iterable[Fact], gone: set[str]) -> tuple[Fact, ...]:
    return tuple(fact for fact in facts if fact.note not in gone)


# -- two boards ------------------------------------------------------------------------------------------------------------


def _changes(old: Board, new: Board) -> list[Change]:
    before, after = ({note.id: note for note in board.notes} for board in (old, new))
    found = [Change("removed", of) for of in before if of not in after]
    found += [Change("added", of) for of in after if of not in before]
    for of in (of for of in before if of in after):
        for name in (one.name for one in fields(Note) if one.name != "id"):
            a, b = getattr(before[of], name), getattr(after[of], name)
            if a != b:
                found.append(Change("changed", of, name, _shown(a), _shown(b)))
    both = [[of for of in board if of in before and of in after] for board in (before, after)]
    if both[0] != both[1]:
        found += [Change("moved", a) for a in _moved(*both)]
    for what, a, b in (
        ("example", {of.name: of for of in old.examples}, {of.name: of for of in new.examples}),
        ("flow", {of.category: of for of in old.flows}, {of.category: of for of in new.flows}),
    ):
        found += [Change("removed", f"{what} {name}") for name in a if name not in b]
        found += [Change("added", f"{what} {name}") for name in b if name not in a]
        for name in (name for name in a if name in b and a[name] != b[name]):
            found.append(Change("changed", f"{what} {name}"))
    return found


def _moved(old: list[str], new: list[str]) -> list[str]:
    """The fewest notes that have to move for one order to become the other: all but a longest common run."""
    place = {of: at for at, of in enumerate(old)}
    best: list[tuple[int, int]] = []
    for at, of in enumerate(new):
        length, back = max(((best[i][0] + 1, i) for i in range(at) if place[new[i]] < place[of]), default=(1, -1))
        best.append((length, back))
    at, kept = max(range(len(best)), key=lambda i: best[i][0]), set()
    while at >= 0:
        kept.add(new[at])
        at = best[at][1]
    return [of for of in new if of not in kept]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- files -----------------------------------------------------------------------------------------------------------------


def _written(board: Board) -> str:
    lines = [f"board = {_quoted(board.name)}"]
    for note in board.notes:
        lines += ["", "[[note]]", f"id = {_quoted(note.id)}", f"{note.kind} = {_quoted(note.name)}"]
        lines += [f"{name} = {_quoted(text)}" for name in ("text", "context", "lane") if (text := getattr(note, name))]
        lines += [f"within = {note.within!r}"] if note.within is not None else []
        if note.fields:
            lines += ["fields = [", *(f"    {_quoted(str(of))}," for of in note.fields), "]"]
        lines += [f"to = [{', '.join(map(_quoted, note.to))}]"] if note.to else []
    for example in board.examples:
        lines += ["", "[[example]]", f"name = {_quoted(example.name)}"]
        lines += ["given = [", *(f"    {_fact(of)}," for of in example.given), "]"] if example.given else []
        lines += [f"when = {_fact(example.when)}"]
        lines += ["then = [", *(f"    {_fact(of)}," for of in example.then), "]"] if example.then else []
        lines += [f"rejected = {_quoted(example.rejected)}"] if example.rejected else []
    for flow in board.flows:
        lines += ["", "[[flow]]", flow.text().rstrip("\n")]
    return "\n".join([*lines, ""])


def _fact(fact: Fact) -> str:
    return f"{{ {fact.note} = {_literal(fact.values)} }}"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_literal(of)}" for name, of in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(text: str) -> Board:
    told = _toml(text)
    try:
        unknown = set(told) - {"board", "note", "example", "flow"}
        if unknown:
            raise InvalidValue(f"a board has no {', '.join(sorted(unknown))}", hint="board, [[note]], [[example]], [[flow]]")
        examples = tuple(_example(dict(of)) for of in told.get("example", ()))
        flows = tuple(Process.told(dict(of)) for of in told.get("flow", ()))
        return Board(str(told["board"]), tuple(_note(dict(of)) for of in told.get("note", ())), examples, flows)
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        if isinstance(why, InvalidValue):
            raise
        said = f"it has no {why}" if isinstance(why, KeyError) else str(why)
        raise InvalidValue(f"this is no board: {said}", hint='Board("library").text() shows how it looks') from None


def _note(told: dict[str, Any]) -> Note:
    kinds = [kind for kind in KINDS if kind in told]
    if len(kinds) != 1:
        raise InvalidValue(f"a note says one kind, and {told} says {len(kinds)}", hint='event = "BookLent"')
    return Note(kind=kinds[0], name=told.pop(kinds[0]), **told)  # type: ignore[arg-type]


def _example(told: dict[str, Any]) -> Example:
    def fact(of: dict[str, Any]) -> Fact:
        ((note, values),) = of.items()
        return Fact(note, values)

    given, then = (tuple(map(fact, told.pop(name, ()))) for name in ("given", "then"))
    return Example(when=fact(told.pop("when")), given=given, then=then, **told)


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as why:
        raise InvalidValue(f"this is no TOML: {why}", hint='Board("library").text() shows how it looks') from None

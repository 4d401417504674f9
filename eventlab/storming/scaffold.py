"""From a board to code: events, commands, aggregates, read models and policies to fill in, and a test for each example.

What is made passes ruff, mypy and pytest as it stands. What the board does not say is a call of `missing`, and a test that waits
for a person is marked to fail, strictly: it says so itself once the code does what the example wants. Nothing that a person wrote
is written over: `write` says what the board changed since, and lays the new text beside.
"""

from __future__ import annotations

import datetime as dt
import difflib
import keyword
import random
import re
import textwrap
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

from eventlab.errors import InvalidValue
from eventlab.model.names import snake
from eventlab.model.types import Money
from eventlab.storming.board import CODED, Board, Example, Fact, Field, Note, write_whole
from eventlab.storming.information import hint_of, in_code, made_up, stored_as

#: Where the texts lie that were generated last, beside the code.
KEPT: Final = ".board"
WIDTH: Final = 110
#: More classes than these in one annotation get a name.
UNION: Final = 2
_DEFAULTS: Final = {
    "str": '""', "int": "0", "float": "0.0", "bool": "False", "bytes": 'b""', "el.Money": "el.money(0)", "Decimal": "Decimal(0)",
    "list": "el.field(default_factory=list)", "tuple": "()", "frozenset": "frozenset()", "dict": "el.field(default_factory=dict)",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What came of one file: it is `new`, the `same`, `updated`, or `kept` as a person left it; and what the board changed."""

    path: Path
    what: Literal["new", "same", "updated", "kept"]
    diff: str = ""

    def __str__(self) -> str:
        beside = f"; the board says otherwise now, see {self.path.name}.new" if self.what == "kept" and self.diff else ""
        return f"{self.path.name}: {self.what}{beside}"


def scaffold(board: Board) -> dict[str, str]:
    """The files of a board by name: a module, and its tests."""
    name = module_name(board)
    files = {f"{name}.py": _module(board)}
    if board.examples:
        files[f"test_{name}.py"] = _tests(board)
    return files


def write(board: Board, folder: Path) -> list[Written]:
    """Write the files of a board where nothing of a person is lost; what came of each."""
    done = []
    for name, text in scaffold(board).items():
        path, base = folder / name, folder / KEPT / f"{name}.txt"
        now = path.read_text(encoding="utf-8") if path.exists() else None
        before = base.read_text(encoding="utf-8") if base.exists() else None
        if now is None or now in (before, text):
            what: Literal["new", "same", "updated"] = "new" if now is None else "same" if now == text else "updated"
            write_whole(path, text)
            done.append(Written(path, what, _diff(name, now or "", text) if what == "updated" else ""))
        else:
            changed = _diff(name, now if before is None else before, text)
            if changed:
                write_whole(path.with_name(f"{name}.new"), text)
            done.append(Written(path, "kept", changed))
        write_whole(base, text)
    return done


def module_name(board: Board) -> str:
    """The name of the module: that of the board, as Python writes it."""
    name = re.sub(r"\W+", "_", snake(board.name)).strip("_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"board_{name}".rstrip("_")


def _diff(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), f"{name} before", f"{name} now")
    return "".join(lines)


# -- the module ------------------------------------------------------------------------------------------------------------


def _module(board: Board) -> str:
    _refuse(board)
    parts = [
        ("events: what can happen", [_data(note, "event") for note in board.find("event")]),
        ("commands: what one may ask for", [_data(note, "command") for note in board.find("command")]),
        ("aggregates: what keeps the rules", [_aggregate(board, note) for note in board.find("aggregate")]),
        ("read models: what people look at", [_projection(board, note) for note in board.find("read_model")]),
        ("policies: what follows by itself", [_policies(board)] if _acting(board) else []),
    ]
    body = ""
    for title, texts in parts:
        if texts:
            rule, gap = f"# -- {title} ", "\n\n" if body else "\n"
            body += gap + rule.ljust(WIDTH, "-") + "\n\n\n" + "\n\n\n".join(texts) + "\n"
    missing = (
        '\n\ndef missing(what: str) -> Any:\n    """In the place of what the board does not say."""\n'
        "    raise NotImplementedError(what)\n"
        if "missing(" in body
        else ""
    )
    title = _said(board.name[:1].upper() + board.name[1:])
    heading = f'"""{title}\n\nBegun from its board. What it does not say is marked `missing`.\n"""\n\n'
    return heading + _imports(body + missing) + body + missing


def _refuse(board: Board) -> None:
    """What no code can be made of."""
    names = [note.name for note in board.find("command", "aggregate", "event", "read_model")]
    names += [f"{note.name}Key" for note in board.find("read_model")]
    names += [f"{note.name}{kind}" for note in board.find("aggregate") for kind in ("Event", "Command")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidValue(f"two notes of {board.name} are called {twice}", hint="a class has a name of its own: rename one")
    for note in board.find(*CODED):
        if note.name in ("Any", "Decimal", "Iterator", "Literal", "NamedTuple", "Self") or keyword.iskeyword(note.name):
            raise InvalidValue(f"{note.name} is a name that the code needs itself", hint="rename the note")
        for field in note.fields:
            hint_of(field.type)
            if keyword.iskeyword(field.name):
                raise InvalidValue(f"{note.name}.{field.name} is a word of Python", hint="rename the field")
    if not board.find("command", "aggregate", "event", "read_model"):
        raise InvalidValue(f"there is nothing on {board.name} that becomes code", hint="an event to begin with")


def _imports(body: str) -> str:
    needs = {
        "import datetime as dt": r"\bdt\.",
        "import uuid": r"\buuid\.UUID",
        "from collections.abc import Iterator": r"\bIterator\[",
        "from dataclasses import replace": r"\breplace\(",
        "from decimal import Decimal": r"\bDecimal\b",
    }
    lines = [line for line, pattern in needs.items() if re.search(pattern, body)]
    typed = [name for name in ("Any", "Literal", "NamedTuple", "Self") if re.search(rf"\b{name}\b", _without_text(body))]
    lines += [f"from typing import {', '.join(typed)}"] if typed else []
    return "\n".join(["from __future__ import annotations", "", *lines, *([""] if lines else []), "import eventlab as el", ""])


def _without_text(body: str) -> str:
    """Code without its docstrings, comments and texts: words in them need no import."""
    return re.sub(r'"""[\s\S]*?"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*', "", body)


def _data(note: Note, kind: str) -> str:
    lines = [f"@el.{kind}", f"class {note.name}:", *_doc(note)]
    lines += ["", *(f"    {of.name}: {in_code(of.type)}" for of in note.fields)] if note.fields else []
    return "\n".join(lines)


def _aggregate(board: Board, note: Note) -> str:
    events = _events_of(board, note)
    commands = [of for of in board.find("command") if board.aggregate_of(of.id) == note and board.events_of(of.id)]
    told, asked = [event.name for event in events], [of.name for of in commands]
    lines: list[str] = []
    for names, kind in ((told, "Event"), (asked, "Command")):
        if len(names) > UNION:
            lines += _union(f"{note.name}{kind}", names)
            names[:] = [f"{note.name}{kind}"]
    lines += ["", ""] if lines else []
    lines += ["@el.aggregate", f"class {note.name}:", *_doc(note), *_state(note.fields)]
    if commands:
        given = {event.name: None for command in commands for event in board.events_of(command.id)}
        result = " | ".join(told if len(events) > UNION and set(given) <= {of.name for of in events} else given)
        lines += ["", *_signature("decide", "command", asked, f"Iterator[{result}]")]
        lines += ["        match command:"]
        for command in commands:
            lines += [f"            case {command.name}():"]
            lines += [f"                # {line}" for line in _rules(board, command)]
            for event in board.events_of(command.id):
                values = [f"{field.name}={_source(field, command, note, event)}" for field in event.fields]
                lines += _call(f"yield {event.name}", values, 16)
    return "\n".join([*lines, *_evolve(events, note.fields, told)])


def _union(name: str, options: list[str]) -> list[str]:
    """A name for one of several classes."""
    line = f"{name} = {' | '.join(options)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{name} = (", f"    {options[0]}", *(f"    | {of}" for of in options[1:]), ")"]


def _events_of(board: Board, note: Note) -> list[Note]:
    return [event for event in board.find("event") if board.aggregate_of(event.id) == note]


def _rules(board: Board, command: Note) -> Iterator[str]:
    """What the examples say of a command, for whoever writes its rule."""
    for example in board.examples:
        if example.when.note == command.id and example.rejected:
            yield from textwrap.wrap(f"{example.name}: raise el.Rejected({example.rejected!r})", WIDTH - 20)


def _source(field: Field, command: Note, owner: Note, event: Note) -> str:
    """Where a field of an event comes from: the command, the state, or nobody said."""
    if _brings(command.fields, field):
        return f"command.{field.name}"
    if _knows(owner, field):
        return f"self.{field.name}"
    return f"missing({_text(f'{event.name}.{field.name}' + (f': {field.origin}' if field.origin else ''))})"


def _brings(fields: Iterable[Field], field: Field) -> bool:
    """Whether one of these fields can be put in the place of a field: of its name, and of its type or a narrower one."""
    return any(of.name == field.name and _fits(of.type, field.type) for of in fields)


def _knows(owner: Note, field: Field) -> bool:
    """Whether a field of an event is that of the state; one whose origin is told is made otherwise."""
    return not field.origin and any(of.name == field.name and _fits(_state_type(of), field.type) for of in owner.fields)


def _fits(given: str, wanted: str) -> bool:
    from_, to = hint_of(_bare(given)), hint_of(_bare(wanted))
    return bool(from_ == to or from_ in typing.get_args(to))


def _state_type(field: Field) -> str:
    """The type of a field of a state: it has a default, and that of what has none is None."""
    bare = _bare(field.type)
    plain = in_code(bare).partition("[")[0]
    return bare if _optional(bare) or plain in _DEFAULTS or plain == "Literal" else f"{bare} | None"


def _bare(text: str) -> str:
    """A type without what only the log wants to know of it."""
    return re.sub(r"Tag\[(.*)\]", r"\1", text)


def _state(fields: Iterable[Field]) -> list[str]:
    lines = []
    for of in fields:
        text = _state_type(of)
        default = "None" if _optional(text) else _DEFAULTS.get(in_code(text).partition("[")[0])
        default = default or _value_code(typing.get_args(hint_of(text))[0], hint_of(text))
        lines.append(f"    {of.name}: {in_code(text)} = {default}")
    return ["", *lines] if lines else []


def _optional(text: str) -> bool:
    return type(None) in typing.get_args(hint_of(_bare(text)))


def _evolve(events: list[Note], fields: Iterable[Field], told: list[str]) -> list[str]:
    lines = ["", *_signature("evolve", "event", told or ["Any"], "Self")]
    fields = tuple(replace(of, type=_state_type(of)) for of in fields)
    if any(_brings(event.fields, of) for event in events for of in fields):
        lines += ["        match event:"]
        for event in events:
            same = [f"{of.name}={of.name}" for of in fields if _brings(event.fields, of)]
            if same:
                lines += _Call(f"case {event.name}", same).lines(12, ":") + _call("return replace", ["self", *same], 16)
            else:
                lines += [f"            case {event.name}():", "                return self"]
    return [*lines, "        return self"]


def _projection(board: Board, note: Note) -> str:
    events = list(board.before(note.id, "event"))
    key = note.fields[0] if note.fields and events and all(_brings(of.fields, note.fields[0]) for of in events) else None
    own = [of for of in note.fields if of is not key]
    lines = []
    if key is not None:
        lines = [f"class {note.name}Key(NamedTuple):", f'    """What names a row of {note.name}."""', ""]
        lines += [f"    {key.name}: {in_code(_bare(key.type))}", "", ""]
    lines += ["@el.projection", f"class {note.name}:", *_doc(note), *_state(own), "", "    @staticmethod"]
    names = [event.name for event in events] or ["Any"]
    if key is not None:
        lines += _signature("key", "event", names, f"{note.name}Key", method=False)
        lines += [f"        return {note.name}Key(event.{key.name})"]
    else:
        lines += _signature("key", "event", names, "str", more=", meta: el.Meta", method=False)
        lines += ["        return meta.stream"]
    return "\n".join([*lines, *_evolve(events, own, [event.name for event in events])])


def _acting(board: Board) -> list[Note]:
    return [of for of in board.find("policy") if board.before(of.id, "event") and board.after(of.id, "command")]


def _policies(board: Board) -> str:
    names = [snake(of.name) for of in _acting(board)]
    lines = [
        "def policies(lab: el.Lab) -> list[Any]:",
        '    """The consumers that keep them: `lab.run_until_idle(*policies(lab))`, or `lab.run`."""',
    ]
    for policy, name in zip(_acting(board), names, strict=True):
        events = board.before(policy.id, "event")
        lines += ["", f"    @el.consumer(el.events({', '.join(of.name for of in events)}))"]
        lines += [f"    def {name}(event: Any) -> None:"]
        lines += [f"    {line}" for line in _doc(policy)]
        for command in board.after(policy.id, "command"):
            owner = board.aggregate_of(command.id)
            if owner is None:
                lines += [f"        missing({_text(f'{command.name}: which aggregate decides it')})"]
                continue
            values = [
                f"{of.name}=event.data.{of.name}" if all(_brings(event.fields, of) for event in events)
                else f"{of.name}=missing({_text(f'{command.name}.{of.name}')})"
                for of in command.fields
            ]  # fmt: skip
            stream = f"missing({_text(f'the id of the {owner.name} that is meant')})"
            # One effect, however often the event is told of.
            order = _Call(command.name, values)
            lines += _call("lab.handle", [owner.name, stream, order, f'command_id=f"{name}-{{event.event_id}}"'], 8)
    return "\n".join([*lines, "", f"    return [{', '.join(names)}]"])


def _signature(name: str, what: str, options: list[str], result: str, *, more: str = "", method: bool = True) -> list[str]:
    own = "self, " if method else ""
    line = f"    def {name}({own}{what}: {' | '.join(options)}{more}) -> {result}:"
    if len(line) <= WIDTH:
        return [line]
    lines = [f"    def {name}(", *(["        self,"] if method else [])]
    lines += [f"        {what}: {options[0]}", *(f"        | {of}" for of in options[1:])]
    lines[-1] += more.replace(", ", ",\n        ", 1) if more else ""
    lines[-1] += ","
    return [*lines, f"    ) -> {result}:" if len(result) < WIDTH - 12 else f"    ) -> {result}:  # noqa: E501"]


@dataclass(frozen=True)
class _Call:
    """A call as code, broken into lines where it is too long for one."""

    what: str
    values: Sequence[_Call | str] = ()

    def __str__(self) -> str:
        return f"{self.what}({', '.join(map(str, self.values))})"

    def lines(self, margin: int, end: str = "") -> list[str]:
        line = f"{' ' * margin}{self}{end}"
        if len(line) <= WIDTH or not self.values:
            return [line]
        inner = margin + 4
        body = [of for one in self.values for of in _lines(one, inner)]
        return [f"{' ' * margin}{self.what}(", *body, f"{' ' * margin}){end}"]


def _lines(value: _Call | str, margin: int) -> list[str]:
    if isinstance(value, _Call):
        return value.lines(margin, ",")
    line = f"{' ' * margin}{value},"
    return [line if len(line) <= WIDTH else f"{line}  # noqa: E501"]


def _call(what: str, values: Sequence[_Call | str], margin: int) -> list[str]:
    return _Call(what, values).lines(margin)


def _doc(note: Note) -> list[str]:
    text = _said(note.text or " ".join(re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+", note.name)).capitalize())
    lines = textwrap.wrap(text, WIDTH - 10)
    return [f'    """{lines[0]}"""'] if len(lines) == 1 else [f'    """{lines[0]}', *(f"    {of}" for of in lines[1:]), '    """']


def _said(text: str) -> str:
    """A sentence that can stand in a docstring."""
    plain = " ".join(text.replace("\\", "/").replace('"""', "'''").replace('"', "'").split())
    return plain if plain.endswith((".", "!", "?", "…")) else f"{plain}."


def _text(text: str) -> str:
    """A text as code."""
    if "\\" in text and '"' not in text and not text.endswith("\\") and text.isprintable():
        return f'r"{text}"'
    shown = repr(text)
    return shown if '"' in text else '"' + shown[1:-1].replace("\\'", "'") + '"'


# -- the tests -------------------------------------------------------------------------------------------------------------


def _tests(board: Board) -> str:
    names: set[str] = set()
    functions = []
    used: set[str] = set()
    for example in board.examples:
        command = board.note(example.when.note)
        owner = board.aggregate_of(command.id)
        if owner is None:
            raise InvalidValue(f"{example.name}: no aggregate decides {command.name}", hint="link the command to its aggregate")
        name = re.sub(r"\W+", "_", snake(example.name)).strip("_") or "example"
        while name in names:
            name += "_again"
        names.add(name)
        used |= {owner.name, command.name, *(board.note(of.note).name for of in example.facts)}
        functions.append(_test(board, example, owner, name))
    body = "\n\n\n".join(functions) + "\n"
    lines = ["import datetime as dt"] if re.search(r"\bdt\.", body) else []
    lines += ["import uuid"] if "uuid.UUID" in body else []
    lines += ["from decimal import Decimal"] if re.search(r"\bDecimal\(", body) else []
    third = ["import pytest"] if "pytest." in body else []
    module = module_name(board)
    listed = ", ".join(sorted(used))
    own = f"from {module} import {listed}"
    own = own if len(own) <= 88 else f"from {module} import (\n" + "".join(f"    {of},\n" for of in sorted(used)) + ")"
    ours = [*third, own]
    outside = ["import eventlab as el"] if "el." in body else []
    groups = ["\n".join(lines), "\n".join([*outside, *ours])]
    heading = f'"""Scenarios of {_said(board.name)[:-1]}, from its board."""\n\nfrom __future__ import annotations\n\n'
    return heading + "\n\n".join(_sorted(groups, "from eventlab.testing import given")) + "\n\n\n" + body


def _sorted(groups: list[str], testing: str) -> Iterator[str]:
    """Imports in the order that ruff wants: the standard library, what is installed, what lies beside."""
    stdlib, rest = groups
    if stdlib:
        yield stdlib
    installed = [line for line in rest.splitlines() if line.startswith("import ")]
    beside = rest[len("\n".join(installed)) :].lstrip("\n")
    yield "\n".join([*sorted(installed, key=lambda line: line.split()[1]), testing])
    yield beside


def _test(board: Board, example: Example, owner: Note, name: str) -> str:
    full = {id(fact): _filled(board, fact, example) for fact in example.facts}
    given = [_made(board, fact, full[id(fact)]) for fact in example.given]
    lines = _call("scenario = given", [owner.name, *given], 4)
    lines += _call("done = scenario.when", [_made(board, example.when, full[id(example.when)])], 4)
    then = [_made(board, fact, full[id(fact)]) for fact in example.then]
    lines += [f"    done.rejected({_text(_pattern(example.rejected))})"] if example.rejected else []
    lines += [] if example.rejected else _call("done.then", then, 4) if then else ["    done.then_nothing()"]
    why = _waits(board, example, owner, full)
    mark = []
    if why is not None:
        raised, reason = why
        mark = [f"@pytest.mark.xfail(raises={raised}, strict=True, reason={_text(reason)})"]
    doc = f'    """{_said(example.name[:1].upper() + example.name[1:])}"""'
    return "\n".join([*mark, f"def test_{name}() -> None:", doc, *lines])


def _pattern(text: str) -> str:
    """A reason as the pattern that `rejected` looks for."""
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)


def _filled(board: Board, fact: Fact, example: Example) -> dict[str, Any]:
    """The values of all fields: those that are given, and made up ones that are the same wherever a field has the same name."""
    values = {}
    for of in board.note(fact.note).fields:
        if of.name in fact.values:
            values[of.name] = _typed(fact.values[of.name], of, f"{example.name}: {board.note(fact.note).name}.{of.name}")
        else:
            shared = (other.values[of.name] for other in (example.when, *example.facts) if of.name in other.values)
            given = next(shared, None)
            values[of.name] = (
                made_up(of.type, random.Random(f"{of.name}: {_bare(of.type)}")) if given is None
                else _typed(given, of, f"{example.name}: {of.name}")
            )  # fmt: skip
    return values


def _typed(value: Any, field: Field, where: str) -> Any:
    """A value of a file as its field has it."""
    hint = hint_of(_bare(field.type))
    options = [of for of in typing.get_args(hint) if of is not type(None)] if type(None) in typing.get_args(hint) else [hint]
    found = value
    if isinstance(value, (str, int)) and not isinstance(value, bool) and (Money in options or Decimal in options):
        try:
            found = Decimal(str(value))
        except ArithmeticError:
            raise InvalidValue(f"{where}: {value!r} is no number") from None
    elif isinstance(value, str) and uuid.UUID in options:
        found = uuid.UUID(value)
    elif isinstance(value, int) and not isinstance(value, bool) and float in options:
        found = float(value)
    elif isinstance(value, list):
        origin = typing.get_origin(options[0])
        found = origin(value) if origin in (tuple, frozenset) else value
    stored: list[Any] = []
    stored_as(_bare(field.type)).put(found, where, stored)
    return found


def _made(board: Board, fact: Fact, values: Mapping[str, Any]) -> _Call:
    note = board.note(fact.note)
    hints = {of.name: hint_of(_bare(of.type)) for of in note.fields}
    return _Call(note.name, [f"{name}={_value_code(value, hints[name])}" for name, value in values.items()])


def _value_code(value: Any, hint: Any) -> str:
    """A value as code."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Decimal):
        return f'el.money("{value}")' if hint == Money or Money in typing.get_args(hint) else f'Decimal("{value}")'
    if isinstance(value, dt.datetime):
        return repr(value).replace("datetime.datetime(", "dt.datetime(").replace("datetime.timezone.utc", "dt.UTC")
    if isinstance(value, (dt.date, dt.time, dt.timedelta)):
        return repr(value).replace("datetime.", "dt.")
    if isinstance(value, uuid.UUID):
        return f'uuid.UUID("{value}")'
    inner = next(iter(typing.get_args(hint)[-1:]), None)
    if isinstance(value, (list, tuple, frozenset)):
        shown = ", ".join(_value_code(one, inner) for one in (sorted(value) if isinstance(value, frozenset) else value))
        if isinstance(value, list):
            return f"[{shown}]"
        return f"frozenset([{shown}])" if isinstance(value, frozenset) else f"({shown}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)}: {_value_code(one, inner)}" for name, one in value.items()) + "}"
    return repr(value)


def _waits(board: Board, example: Example, owner: Note, full: Mapping[int, dict[str, Any]]) -> tuple[str, str] | None:
    """What a test waits for, as the code stands: the error it ends with, and why; None where it passes."""
    command = board.note(example.when.note)
    when = full[id(example.when)]
    state = _after(example, owner, full, board)
    events = board.events_of(command.id)
    unknown = [
        f"{event.name}.{of.name}" for event in events for of in event.fields
        if not _brings(command.fields, of) and not _knows(owner, of)
    ]  # fmt: skip
    if unknown:
        return "NotImplementedError", f"the board does not say where {unknown[0]} comes from"
    if example.rejected:
        return "AssertionError", f"{owner.name} does not reject it yet"
    given = [
        (event.id, {of.name: when[of.name] if _brings(command.fields, of) else state[of.name] for of in event.fields})
        for event in events
    ]
    wanted = [(fact.note, full[id(fact)]) for fact in example.then]
    return None if given == wanted else ("AssertionError", f"{owner.name} decides otherwise yet")


def _after(example: Example, owner: Note, full: Mapping[int, dict[str, Any]], board: Board) -> dict[str, Any]:
    """The state after what is given, as the generated `evolve` makes it."""
    state: dict[str, Any] = {}
    for of in owner.fields:
        state[of.name] = _initial(hint_of(_state_type(of)))
    mine = {event.id for event in _events_of(board, owner)}
    for fact in example.given:
        if fact.note in mine:
            fields = board.note(fact.note).fields
            states = [replace(of, type=_state_type(of)) for of in owner.fields]
            state |= {of.name: full[id(fact)][of.name] for of in states if _brings(fields, of)}
    return state


def _initial(hint: Any) -> Any:
    plain = {str: "", int: 0, float: 0.0, bool: False, bytes: b"", Decimal: Decimal(0)}
    if hint in plain:
        return plain[hint]
    if hint == Money:
        return Decimal("0.00")
    origin = typing.get_origin(hint)
    if origin is Literal:
        return typing.get_args(hint)[0]
    return origin() if origin in (list, tuple, frozenset, dict) else None

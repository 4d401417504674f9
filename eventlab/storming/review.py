"""What a reviewer would say of a board: what leads nowhere, what comes from nowhere, names, and what is still open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eventlab.errors import InvalidValue
from eventlab.model.names import Finding, command_findings, event_findings
from eventlab.storming.board import Board, Note
from eventlab.storming.information import hint_of

#: The rules by their codes.
RULES: Final = {
    "B1": "a command that leads to no event",
    "B2": "an event that nobody reads: no read model, no policy, no system",
    "B3": "an event from nowhere: no command, aggregate or system leads to it",
    "B4": "a policy that no event and no read model sets off",
    "B5": "a policy that gives no command",
    "B6": "a name that does not read as what it names",
    "B7": "a field of a read model that no event brings",
    "B8": "a field of an event that its command does not bring and its aggregate does not know",
    "B9": "an aggregate that two contexts share",
    "B10": "a command that nobody gives: no actor, policy, system or read model",
    "B11": "a hotspot that is open",
    "B12": "a question that is open",
    "B13": "a field whose type cannot be stored",
    "B14": "an example with a value for a field that its note does not have",
    "B15": "a name that two notes would give to one class",
    "B16": "a read model that no event feeds",
    "B17": "a command without an aggregate that decides",
}


def review(board: Board) -> list[Finding]:
    """What there is to say, in the order of the rules and of the timeline; an empty list is praise.

    A field is explained by a note that leads there, or by words of its own: `"due: date = two weeks from today"`.
    """
    found = [one for note in board.notes for one in _of(board, note)]
    found += list(_shared(board)) + list(_same_class(board)) + list(_examples(board))
    place = {code: at for at, code in enumerate(RULES)}
    return sorted(found, key=lambda one: place[one.code])


def _of(board: Board, note: Note) -> Iterator[Finding]:
    kind, name = note.kind, note.name
    if kind == "command":
        if not board.events_of(note.id):
            yield _say("B1", name, f"{name} leads to no event", "what is different after it? link it to that event")
        if not board.before(note.id):
            yield _say("B10", name, f"nobody gives {name}", "who does, or after which event does a policy?")
        if board.aggregate_of(note.id) is None and not board.after(note.id, "system"):
            yield _say("B17", name, f"no aggregate decides {name}", "whose rules may reject it? link it to that aggregate")
        for one in command_findings(name, "said"):
            yield _say("B6", name, one.message, one.hint)
    if kind == "event":
        if not note.to:
            yield _say("B2", name, f"nobody reads {name}", "who wants to know, and what happens next?")
        if not board.before(note.id, "command", "aggregate", "system"):
            yield _say("B3", name, f"{name} comes from nowhere", "which command gives it, or which system says so?")
        for one in event_findings(name, "said"):
            yield _say("B6", name, one.message, one.hint)
        yield from _unexplained(board, note)
    if kind == "policy":
        if not board.before(note.id, "event", "read_model"):
            yield _say("B4", name, f"nothing sets off {name}", "after which event is it to act?")
        if not note.to:
            yield _say("B5", name, f"{name} gives no command", "what does it ask for?")
    if kind == "read_model":
        sources = board.before(note.id, "event")
        if not sources:
            yield _say("B16", name, f"no event feeds {name}", "from what is it made?")
        known = {field.name for of in sources for field in of.fields}
        for field in note.fields:
            if sources and field.name not in known and not field.origin:
                hint = f'which event brings it? or say how it is made: "{field} = …"'
                yield _say("B7", name, f"no event brings {name}.{field.name}", hint)
    if kind in ("hotspot", "question"):
        yield _say("B11" if kind == "hotspot" else "B12", name, f"{kind}: {name}", "settle it, and take the note off the board")
    for field in note.fields:
        try:
            hint_of(field.type)
        except InvalidValue as why:
            yield _say("B13", name, f"{name}.{field.name}: {why.message}", why.hint or "")


def _unexplained(board: Board, event: Note) -> Iterator[Finding]:
    """Fields of an event that come from nowhere; where no command is known, there is nothing to hold them against."""
    for command in board.before(event.id, "command"):
        owner = board.aggregate_of(command.id)
        known = {field.name for of in (command, *((owner,) if owner else ())) for field in of.fields}
        for field in event.fields:
            if field.name not in known and not field.origin:
                hint = f'a field of {command.name} or of its aggregate, or say how it is made: "{field} = …"'
                yield _say("B8", event.name, f"{command.name} does not bring {event.name}.{field.name}", hint)


def _shared(board: Board) -> Iterator[Finding]:
    for note in board.find("aggregate"):
        around = (note, *board.before(note.id, "command"), *board.after(note.id, "event"))
        contexts = sorted({of.context for of in around if of.context})
        if len(contexts) > 1:
            said = f"{note.name} is shared by the contexts {', '.join(contexts)}"
            yield _say("B9", note.name, said, "one aggregate for each context, and a policy between them")


def _same_class(board: Board) -> Iterator[Finding]:
    names: dict[str, list[Note]] = {}
    for note in board.find("command", "aggregate", "event", "read_model"):
        names.setdefault(note.name, []).append(note)
    for name, notes in names.items():
        if len(notes) > 1:
            kinds = ", ".join(f"{of.id} ({of.kind})" for of in notes)
            yield _say("B15", name, f"{len(notes)} notes are called {name}: {kinds}", "a class of code has a name of its own")


def _examples(board: Board) -> Iterator[Finding]:
    for example in board.examples:
        for fact in example.facts:
            note = board.note(fact.note)
            fields = {of.name for of in note.fields}
            for name in fact.values:
                if name not in fields:
                    said = f"{example.name}: {note.name} has no field {name}"
                    yield _say("B14", note.name, said, f"its fields: {', '.join(sorted(fields)) or 'none'}")


def _say(code: str, name: str, message: str, hint: str) -> Finding:
    return Finding(code, name, message, hint)

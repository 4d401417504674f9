"""A board as text that is drawn: a Mermaid flowchart, and a page of Markdown, as GitHub and JupyterLab show them."""

from __future__ import annotations

from typing import Final

from eventlab.store.words import mermaid_text
from eventlab.storming.board import KINDS, Board, Fact, Note
from eventlab.storming.review import review

#: Notes of a drawn board, unless more are asked for.
NOTES: Final = 80
#: Of each kind: the brackets of its shape, and its colour. The text is dark on all of them, in light and dark.
SHAPES: Final[dict[str, tuple[str, str, str]]] = {
    "actor": ("([", "])", "#fdf6b2"), "command": ("[", "]", "#a6c8ff"), "aggregate": ("[[", "]]", "#fff3a3"),
    "event": ("(", ")", "#ffb570"), "policy": ("{{", "}}", "#d7b8f3"), "read_model": ("[(", ")]", "#b4e2b4"),
    "system": ("[/", "/]", "#f5b8d0"), "hotspot": ("{", "}", "#ff8f8f"), "question": (">", "]", "#ffd9d9"),
}  # fmt: skip


def mermaid(board: Board, notes: int = NOTES) -> str:
    """The board as a Mermaid flowchart, left to right along the timeline, a box for each context; what is hidden is said."""
    shown = board.notes[:notes]
    number = {note.id: f"n{at}" for at, note in enumerate(shown)}
    lines = ["flowchart LR"]
    contexts = list(dict.fromkeys(note.context for note in shown))
    for at, context in enumerate(contexts):
        inside = [_node(note, number[note.id]) for note in shown if note.context == context]
        if context:
            lines += [f'    subgraph c{at}["{mermaid_text(context)}"]', *(f"        {line}" for line in inside), "    end"]
        else:
            lines += [f"    {line}" for line in inside]
    lines += [
        f"    {number[note.id]} {'-.->' if note.kind in ('hotspot', 'question') else '-->'} {number[to]}"
        for note in shown
        for to in note.to
        if to in number
    ]
    if len(board.notes) > len(shown):
        lines.append(f'    more["{len(board.notes) - len(shown):,} more notes, not drawn"]')
    used = [kind for kind in KINDS if any(note.kind == kind for note in shown)]
    lines += [f"    classDef {kind} fill:{SHAPES[kind][2]},stroke:#555,color:#111" for kind in used]
    return "\n".join(lines) + "\n"


def markdown(board: Board) -> str:
    """The board as a page: the drawing, its notes as a table, its examples, and what is still open."""
    lines = [f"# {board.name}", "", "```mermaid", mermaid(board).rstrip(), "```", "", "## Notes", ""]
    lines += ["| note | what | says | leads to |", "|---|---|---|---|"]
    for note in board.notes:
        says = "<br>".join([_cell(note.text), *(f"`{_code(str(of))}`" for of in note.fields)]).removeprefix("<br>")
        to = ", ".join(_cell(board.note(of).name) for of in note.to)
        where = f" ({_cell(note.context)})" if note.context else ""
        lines.append(f"| **{_cell(note.name)}** | {note.kind.replace('_', ' ')}{where} | {says} | {to} |")
    if board.examples:
        lines += ["", "## Examples", ""]
    for example in board.examples:
        lines += [f"* **{_cell(example.name)}**"]
        lines += [f"  * {word} `{_code(text)}`" for word, text in said(board, example.name)]
    open_ = [f"* {one.code} {_cell(one.message)}" for one in review(board)]
    return "\n".join([*lines, *(["", "## Open", "", *open_] if open_ else []), ""])


def said(board: Board, example: str) -> list[tuple[str, str]]:
    """An example in words: given, when, then."""
    of = next(one for one in board.examples if one.name == example)
    parts = [("given", _fact(board, fact)) for fact in of.given] + [("when", _fact(board, of.when))]
    parts += [("then", _fact(board, fact)) for fact in of.then]
    return parts + ([("rejected", of.rejected)] if of.rejected else [] if of.then else [("then", "nothing")])


def _fact(board: Board, fact: Fact) -> str:
    return str(Fact(board.note(fact.note).name, fact.values))


def _node(note: Note, number: str) -> str:
    opened, closed, _ = SHAPES[note.kind]
    return f'{number}{opened}"{mermaid_text(note.name)}<br/><small>{note.kind.replace("_", " ")}</small>"{closed}:::{note.kind}'


def _cell(text: str) -> str:
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#!~" else c for c in text)
    return " ".join(escaped.split())


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())

"""Where the notes of a board lie: along the timeline from left to right, a row for each kind; and that as an SVG picture."""

from __future__ import annotations

import textwrap
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from eventlab.storming.board import Board, Layout, Note
from eventlab.storming.drawing import SHAPES

#: Pixels: of a note, between notes, and the rows of the kinds from above.
WIDE, HIGH, GAP_X, GAP_Y, MARGIN = 132, 84, 44, 34, 24
ROWS: Final = {
    "actor": 0, "command": 1, "aggregate": 2, "event": 3, "policy": 4, "read_model": 5, "system": 6, "hotspot": 7, "question": 7,
}  # fmt: skip
#: A letter for each kind, for those who do not tell colours apart.
LETTERS: Final = {
    "actor": "A", "command": "C", "aggregate": "G", "event": "E", "policy": "P", "read_model": "R", "system": "S",
    "hotspot": "!", "question": "?",
}  # fmt: skip


def placed(board: Board, layout: Layout | None = None) -> dict[str, tuple[int, int]]:
    """The upper left corner of each note: where somebody put it, or where the timeline does.

    What follows lies below or to the right of what came before, and no two notes that nobody moved lie on each other. A lane
    has a row of its own, below those of the kinds. Rows in which nothing lies take no room.
    """
    lanes = {lane: 8 + at for at, lane in enumerate(dict.fromkeys(note.lane for note in board.notes if note.lane))}
    row_of = {note.id: lanes.get(note.lane, ROWS[note.kind]) for note in board.notes}
    rows = sorted(set(row_of.values()))
    at = {row: number for number, row in enumerate(rows)}
    column, last = 0, dict.fromkeys(rows, -1)
    found = {}
    for note in board.notes:
        row = row_of[note.id]
        column = max(column, last[row] + 1)
        last[row] = column
        found[note.id] = (MARGIN + column * (WIDE + GAP_X), MARGIN + at[row] * (HIGH + GAP_Y))
    return found | {note: place for note, place in (layout.places if layout else {}).items() if note in found}


def svg(board: Board, layout: Layout | None = None) -> str:
    """The board as a picture with no script and nothing to fetch, readable in light and dark."""
    places = placed(board, layout)
    width = max((x for x, _ in places.values()), default=0) + WIDE + MARGIN
    height = max((y for _, y in places.values()), default=0) + HIGH + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label={quoteattr(repr(board))}>'
    )
    mark = (
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>'
    )
    contexts = dict.fromkeys(note.context for note in board.notes if note.context)
    parts = [head, mark]
    parts += [_context(of, [places[note.id] for note in board.notes if note.context == of]) for of in contexts]
    parts += [_line(places[note.id], places[to]) for note in board.notes for to in note.to]
    parts += [_note(note, *places[note.id]) for note in board.notes]
    return "".join([*parts, "</svg>"])


def _context(name: str, places: list[tuple[int, int]]) -> str:
    x, y = min(x for x, _ in places) - 10, min(y for _, y in places) - 18
    width, height = max(x for x, _ in places) + WIDE + 10 - x, max(y for _, y in places) + HIGH + 10 - y
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#8882" stroke="#888" stroke-dasharray="5 4"/>'
        f'<text x="{x + 8}" y="{y + 13}" font-size="11" fill="#888">{escape(name)}</text>'
    )


def _line(a: tuple[int, int], b: tuple[int, int]) -> str:
    """From the edge of one note to the edge of another, along the line between their middles."""
    (ax, ay), (bx, by) = ((x + WIDE / 2, y + HIGH / 2) for x, y in (a, b))
    dx, dy = bx - ax, by - ay
    share = min(
        WIDE / 2 / abs(dx) if dx else float("inf"), HIGH / 2 / abs(dy) if dy else float("inf"), 0.5
    )  # fmt: skip
    x1, y1, x2, y2 = (round(of, 1) for of in (ax + dx * share, ay + dy * share, bx - dx * share, by - dy * share))
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#888" stroke-width="1.4" marker-end="url(#end)"/>'


def _note(note: Note, x: int, y: int) -> str:
    fill = SHAPES[note.kind][2]
    lines = textwrap.wrap(_spaced(note.name), 17)[:3]
    names = "".join(
        f'<text x="{x + WIDE // 2}" y="{y + 36 + 15 * at}" font-size="13" font-weight="600" text-anchor="middle" fill="#111">'
        f"{escape(line)}</text>"
        for at, line in enumerate(lines)
    )
    about = "\n".join([f"{note.kind.replace('_', ' ')}: {note.name}", note.text, *map(str, note.fields)])
    return (
        f'<g><title>{escape(about)}</title><rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="4" fill="{fill}" '
        f'stroke="#0004"/><text x="{x + 8}" y="{y + 16}" font-size="11" fill="#333">{LETTERS[note.kind]} '
        f"{note.kind.replace('_', ' ')}{escape(f' · {note.lane}') if note.lane else ''}</text>{names}</g>"
    )


def _spaced(name: str) -> str:
    """A name that may be broken between its words: `OrderPlaced` is `Order Placed`."""
    return "".join(f" {c}" if c.isupper() and at and name[at - 1].islower() else c for at, c in enumerate(name))

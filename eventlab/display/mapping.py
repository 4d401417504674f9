"""The process map of a log as an SVG picture: steps in rows by when they come, moves as lines as wide as they are frequent."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

import polars as pl

from eventlab.display.charts import ARROW, short, svg
from eventlab.store.words import many
from eventlab.storming.discovery import NODES, Discovery

#: Pixels: of a step, between steps, around the whole, between lines that pass the steps, and of the widest line.
WIDE, HIGH, GAP_X, GAP_Y, MARGIN, LANE, STROKE = 178, 46, 30, 66, 22, 18, 8.0
#: Steps beside one another, before a row is broken into two.
ABREAST: Final = 4
#: Moves drawn for each step, the most frequent of all first; and the share of the most frequent below which few are.
MOVES: Final = 2
RARE: Final = 0.01
#: Characters of a step's name.
NAME: Final = 21


def map_svg(found: Discovery, nodes: int = NODES) -> str:
    """The process map as a picture with no script and nothing to fetch, readable in light and dark.

    Of more steps than `nodes`, or of more than two moves a step, the most frequent are drawn; and of moves a hundred times as
    rare as the most frequent, those alone that lead most often to their step. What is hidden is said below.
    A step lies further down the later it comes in its streams (by the median of its first versions). A move to the next row is
    a curve; one further down passes the steps on their left, one back or sideways on their right, dashed.
    """
    counts = found.steps
    shown = counts.head(max(nodes, 1))
    names = shown["step"].to_list()
    moves = found.map.filter(pl.col("step").is_in(names), pl.col("then").is_in(names))
    main = moves.filter(pl.col("step") != pl.col("then")).unique("then", keep="first", maintain_order=True)
    often = moves.filter(pl.col("count") >= RARE * pl.col("count").max()).head(MOVES * max(len(names), 1))
    moves = pl.concat([main, often]).unique(["step", "then"]).sort(["count", "step", "then"], descending=[True, False, False])
    rows = _rows(shown)
    drawing = _Drawing(rows, moves.select("step", "then", "count").rows())
    hidden = []
    if len(counts) > len(shown):
        hidden.append(f"{many(len(counts) - len(shown), 'step')} of {many(sum(counts['events'][len(shown) :]), 'event')}")
    if len(found.map) > len(moves):
        rest = sum(found.map["count"]) - sum(moves["count"])
        hidden.append(f"{many(len(found.map) - len(moves), 'move')}, made {rest:,} times")
    height = drawing.height + (20 if hidden else 0)
    begins, ends = (dict(frame.select("step", "streams").iter_rows()) for frame in (found.starts, found.ends))
    parts = [
        ARROW,
        *drawing.lines(),
        *(
            _step(name, events, *drawing.places[name], begins.get(name, 0), ends.get(name, 0))
            for name, events in shown.select("step", "events").iter_rows()
        ),
        *([f'<text x="{MARGIN}" y="{height - 6}" fill="#888">not drawn: {escape("; ".join(hidden))}</text>'] if hidden else []),
    ]
    return svg(drawing.width, height, parts, repr(found))


def _rows(steps: pl.DataFrame) -> list[list[str]]:
    """The steps in rows from above: one for each moment at which steps come, the most frequent of it on the left."""
    ordered = steps.with_columns(pl.col("comes").round()).sort(["comes", "events", "step"], descending=[False, True, False])
    rows = []
    for part in ordered.partition_by("comes", maintain_order=True):
        names = part["step"].to_list()
        rows += [names[at : at + ABREAST] for at in range(0, len(names), ABREAST)]
    return rows


class _Drawing:
    """Where steps lie and how lines run: through lanes of their own where they pass other steps."""

    def __init__(self, rows: list[list[str]], moves: list[tuple[str, str, int]]) -> None:
        self.row = {name: at for at, row in enumerate(rows) for name in row}
        self.moves = moves
        ahead = [(a, b) for a, b, _ in moves if self.row[b] > self.row[a] + 1]
        back = [(a, b) for a, b, _ in moves if self.row[b] <= self.row[a] and a != b]
        self.left, self.right = self._lanes(ahead), self._lanes(back)
        self.start = MARGIN + LANE * (max(self.left.values(), default=-1) + 2)
        widest = max(map(len, rows), default=1)
        self.end = self.start + widest * WIDE + (widest - 1) * GAP_X
        self.width = self.end + LANE * (max(self.right.values(), default=-1) + 2) + MARGIN
        self.height = MARGIN + 20 + len(rows) * HIGH + max(len(rows) - 1, 0) * GAP_Y + 40
        self.places = {}
        for at, row in enumerate(rows):
            inset = (self.end - self.start - len(row) * WIDE - (len(row) - 1) * GAP_X) // 2
            for beside, name in enumerate(row):
                x = self.start + inset + beside * (WIDE + GAP_X)
                self.places[name] = (x, MARGIN + 20 + at * (HIGH + GAP_Y))

    def _lanes(self, moves: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """A lane for each move, the innermost that is free over the rows that it passes; short ones lie further in."""
        taken: list[list[tuple[int, int]]] = []
        found = {}
        for a, b in sorted(moves, key=lambda move: (abs(self.row[move[0]] - self.row[move[1]]), move)):
            low, high = sorted((self.row[a], self.row[b]))
            free = (lane for lane, spans in enumerate(taken) if all(high < start or end < low for start, end in spans))
            lane = next(free, len(taken))
            if lane == len(taken):
                taken.append([])
            taken[lane].append((low, high))
            found[a, b] = lane
        return found

    def lines(self) -> list[str]:
        most = max((count for *_, count in self.moves), default=1)
        return [self._line(a, b, count, max(STROKE * count / most, 1.0)) for a, b, count in self.moves]

    def _line(self, a: str, b: str, count: int, width: float) -> str:
        (ax, ay), (bx, by) = self.places[a], self.places[b]
        dash = ""
        if a == b:
            right, middle = ax + WIDE, ay + HIGH // 2
            path = f"M{right} {middle - 10} C{right + 26} {middle - 20} {right + 26} {middle + 20} {right + 2} {middle + 10}"
            x, y = right + 4, middle - 18
        elif (a, b) in self.left or (a, b) in self.right:
            lane = self.left.get((a, b), self.right.get((a, b), 0))
            left = (a, b) in self.left
            at = self.start - LANE * (lane + 1) if left else self.end + LANE * (lane + 1)
            out, into = (ax + 40, bx + 40) if left else (ax + WIDE - 40, bx + WIDE - 40)
            below, above = ay + HIGH + 8 + lane * 5 % 24, by - 14 - lane * 5 % 24
            path = f"M{out} {ay + HIGH} V{below} H{at} V{above} H{into} V{by}"
            x, y = at + 4, (below + above) // 2 + (lane % 5 - 2) * 12
            dash = "" if left else ' stroke-dasharray="5 4"'
        else:
            x1, y1, x2, y2 = ax + WIDE // 2, ay + HIGH, bx + WIDE // 2, by
            bend = (y2 - y1) // 2
            path = f"M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"
            # A third of the way along, where curves that cross are apart.
            x, y = round(x1 + (x2 - x1) * 0.26) + 8, round(y1 + (y2 - y1) * 0.38) + (0 if x2 >= x1 else 14)
        return (
            f'<path d="{path}" fill="none" stroke="#888b" stroke-width="{width:.1f}"{dash} marker-end="url(#to)"/>'
            f'<text x="{x}" y="{y}" font-size="11" fill="#888">{count:,}</text>'
        )


def _step(name: str, events: int, x: int, y: int, begins: int, ends: int) -> str:
    marks = [f"{events:,}", *([f"▶ {begins:,}"] if begins else []), *([f"■ {ends:,}"] if ends else [])]
    return (
        f'<g><title>{escape(name)}</title><rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6" fill="#dbe9f6" '
        f'stroke="{"#2a6fb0" if begins else "#888"}" stroke-width="{2 if begins or ends else 1}"/>'
        f'<text x="{x + 9}" y="{y + 19}" font-weight="600" fill="#111">{escape(short(name, NAME))}</text>'
        f'<text x="{x + 9}" y="{y + 36}" font-size="11" fill="#333">{"   ".join(marks)}</text></g>'
    )

"""Charts as SVG pictures: no script, nothing to fetch, readable in light and dark; each stands beside a table of its numbers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from eventlab.store.words import many
from eventlab.temporal.trace import Trace

#: Pixels: of a chart, of a line of text in it, and of a node of a graph with the room around it.
WIDE, LINE, NODE, HIGH, GAP_X, GAP_Y, MARGIN = 640, 22, 176, 40, 44, 14, 12
#: Nodes of a graph, unless more are asked for.
NODES: Final = 60
#: What tells lines apart for those who do not tell colours: how they are dashed, and the letter at their end.
DASHES: Final = ("", "7 4", "2 3", "10 3 2 3")
#: Readable on white and on black.
COLOURS: Final = ("#3d85c6", "#c27c0e", "#5b9a3b", "#b0569b", "#8a6d3b", "#6c6cc4")
#: The columns of a map: what stands in each, and its colour, on which dark text is read in light and dark.
LAYERS: Final = (("command", "#a6c8ff"), ("aggregate", "#fff3a3"), ("event", "#ffb570"), ("projection", "#b4e2b4"))
#: The end of a line that leads somewhere: `marker-end="url(#to)"`, the same size however wide the line is.
ARROW: Final = (
    '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" markerHeight="10" orient="auto" '
    'markerUnits="userSpaceOnUse"><path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>'
)
#: Characters of a name in a chart.
NAME: Final = 24


def picture(svg: str, alt: str) -> str:
    """An SVG as an image of a page: what is in it cannot run."""
    drawn = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alt)}" style="max-width: 100%" src="data:image/svg+xml;base64,{drawn}">'


def bars(rows: Sequence[tuple[str, int, str]]) -> str:
    """A bar for each row: its name, its number and what is said of it."""
    most = max((value for _, value, _ in rows), default=0) or 1
    parts = []
    for at, (name, value, said) in enumerate(rows):
        y = MARGIN + at * LINE
        wide = round((WIDE - 330) * value / most)
        parts.append(
            f'<text x="{190 - 8}" y="{y + 14}" text-anchor="end" fill="#888">{escape(short(name))}</text>'
            f'<rect x="190" y="{y + 2}" width="{max(wide, 1)}" height="{LINE - 6}" rx="2" fill="{COLOURS[0]}"/>'
            f'<text x="{198 + wide}" y="{y + 14}" fill="#888">{value:,}{escape(f" {said}") if said else ""}</text>'
        )
    return svg(WIDE, 2 * MARGIN + len(rows) * LINE, parts, f"{many(len(rows), 'bar')}")


def columns(counts: Sequence[int], begin: str, end: str) -> str:
    """A column for each count, from the left to the right, between what is said of the first and of the last."""
    most = max(counts, default=0) or 1
    tall = 90
    step = (WIDE - 2 * MARGIN) / max(len(counts), 1)
    parts = [f'<text x="{MARGIN}" y="{MARGIN + 4}" fill="#888">at most {most:,}</text>']
    for at, count in enumerate(counts):
        high = round(tall * count / most, 1)
        if count:
            x, y = round(MARGIN + at * step, 1), round(MARGIN + 14 + tall - high, 1)
            parts.append(f'<rect x="{x}" y="{y}" width="{max(step - 1, 0.5):.1f}" height="{high}" fill="{COLOURS[0]}"/>')
    base = MARGIN + 14 + tall
    parts.append(
        f'<line x1="{MARGIN}" x2="{WIDE - MARGIN}" y1="{base}" y2="{base}" stroke="#888"/>'
        f'<text x="{MARGIN}" y="{base + 16}" fill="#888">{escape(begin)}</text>'
        f'<text x="{WIDE - MARGIN}" y="{base + 16}" text-anchor="end" fill="#888">{escape(end)}</text>'
    )
    return svg(WIDE, base + 26, parts, f"{many(len(counts), 'column')}")


def lines(series: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> str:
    """A line for each series of (seconds, value), told apart by its letter, its dashes and its colour."""
    points = [point for line in series.values() for point in line]
    first, last = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=0.0)
    most = max((y for _, y in points), default=0.0) or 1.0
    tall, wide = 110, WIDE - 2 * MARGIN - 190
    parts = [f'<text x="{MARGIN}" y="{MARGIN + 4}" fill="#888">at most {most:,.0f} {escape(unit)}</text>']
    base = MARGIN + 14 + tall
    for at, (name, line) in enumerate(series.items()):
        places = " ".join(
            f"{MARGIN + wide * (x - first) / ((last - first) or 1):.1f},{base - tall * y / most:.1f}" for x, y in line
        )
        colour, dash = COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)]
        mark = f' stroke-dasharray="{dash}"' if dash else ""
        y = MARGIN + 22 + at * 18
        parts.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{mark}/>'
            f'<line x1="{WIDE - 190}" x2="{WIDE - 160}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"{mark}/>'
            f'<text x="{WIDE - 154}" y="{y}" fill="#888">{chr(65 + at % 26)} {escape(short(name, 18))}</text>'
        )
    parts.append(
        f'<line x1="{MARGIN}" x2="{MARGIN + wide}" y1="{base}" y2="{base}" stroke="#888"/>'
        f'<text x="{MARGIN}" y="{base + 16}" fill="#888">{last - first:.0f} s ago</text>'
        f'<text x="{MARGIN + wide}" y="{base + 16}" text-anchor="end" fill="#888">now</text>'
    )
    return svg(WIDE, max(base + 26, MARGIN + 30 + 18 * len(series)), parts, f"{many(len(series), 'line')}")


def causes(found: Trace, chosen: int | None = None, nodes: int = NODES) -> str:
    """Who caused whom: an event for each box, its causes on its left; an event from outside has a dashed edge.

    `chosen` is the position of the event that is marked. Of more events than `nodes` the first are drawn, and what is hidden is
    said below.
    """
    rows = found.frame.head(max(nodes, 1)).to_dicts()
    filled: dict[int, int] = {}
    places: dict[int, tuple[int, int]] = {}
    for row in rows:
        # An effect lies no higher than its cause, so that lines lead to the right and down.
        above = filled.get(row["depth"], 0)
        if row["cause"] in places:
            above = max(above, (places[row["cause"]][1] - MARGIN) // (HIGH + GAP_Y))
        filled[row["depth"]] = above + 1
        places[row["position"]] = (MARGIN + row["depth"] * (NODE + GAP_X), MARGIN + above * (HIGH + GAP_Y))
    parts = [ARROW]
    for row in rows:
        if row["cause"] in places:
            (ax, ay), (bx, by) = places[row["cause"]], places[row["position"]]
            x1, y1, x2, y2 = ax + NODE, ay + HIGH // 2, bx, by + HIGH // 2
            path = f"M{x1} {y1} C{x1 + GAP_X // 2} {y1} {x2 - GAP_X // 2} {y2} {x2} {y2}"
            parts.append(f'<path d="{path}" fill="none" stroke="#888" stroke-width="1.4" marker-end="url(#to)"/>')
    for row in rows:
        x, y = places[row["position"]]
        edge = f'stroke="{COLOURS[0]}" stroke-width="3"' if row["position"] == chosen else 'stroke="#888"'
        dash = ' stroke-dasharray="4 3"' if row["command"] else ""
        parts.append(
            f'<g><title>{escape(row["type"])} of {escape(row["stream"])} at position {row["position"]:,}</title>'
            f'<rect x="{x}" y="{y}" width="{NODE}" height="{HIGH}" rx="5" fill="#ffdcb8" {edge}{dash}/>'
            f'<text x="{x + 8}" y="{y + 16}" font-weight="600" fill="#111">{escape(short(row["type"], 22))}</text>'
            f'<text x="{x + 8}" y="{y + 32}" font-size="11" fill="#333">{escape(short(row["stream"], 26))}</text></g>'
        )
    right = max((x for x, _ in places.values()), default=0) + NODE + MARGIN
    bottom = max((y for _, y in places.values()), default=0) + HIGH + MARGIN
    if found.events > len(rows):
        hidden = many(found.events - len(rows), "event")
        parts.append(f'<text x="{MARGIN}" y="{bottom + 10}" fill="#888">{hidden} not drawn</text>')
        bottom += 20
    return svg(max(right, 160), bottom, parts, repr(found))


def layers(columns: Sequence[Sequence[str]], links: Sequence[tuple[tuple[int, int], tuple[int, int], bool]]) -> str:
    """Names in columns with lines between them, which are dashed where they are read and not decided.

    A link goes from one (column, row) to another. Each name leads to the heading of that name on the page it is part of.
    """
    tallest = max(map(len, columns), default=0)
    step = HIGH + GAP_Y
    places = {
        (at, row): (MARGIN + at * (NODE + 2 * GAP_X), MARGIN + 20 + row * step + (tallest - len(column)) * step // 2)
        for at, column in enumerate(columns)
        for row in range(len(column))
    }
    parts = []
    for a, b, dashed in links:
        (ax, ay), (bx, by) = places[a], places[b]
        ahead = bx > ax
        x1, x2 = (ax + NODE, bx) if ahead else (ax, bx + NODE)
        y1, y2, bend = ay + HIGH // 2, by + HIGH // 2, GAP_X if ahead else -GAP_X
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(
            f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" stroke="#888" opacity="0.7"{dash}/>'
            f'<circle cx="{x2}" cy="{y2}" r="3" fill="#888"/>'
        )
    for (at, row), (x, y) in places.items():
        name, (title, fill) = columns[at][row], LAYERS[at]
        parts.append(
            f'<a href="#{anchor(name)}"><title>{escape(title)}: {escape(name)}</title>'
            f'<rect x="{x}" y="{y}" width="{NODE}" height="{HIGH}" rx="5" fill="{fill}" stroke="#888"/>'
            f'<text x="{x + 8}" y="{y + 25}" font-weight="600" fill="#111">{escape(short(name, 22))}</text></a>'
        )
    heads = [
        f'<text x="{MARGIN + at * (NODE + 2 * GAP_X)}" y="{MARGIN + 6}" fill="#888">{escape(title)}s</text>'
        for at, (title, _) in enumerate(LAYERS[: len(columns)])
        if columns[at]
    ]
    width = MARGIN * 2 + len(columns) * NODE + max(len(columns) - 1, 0) * 2 * GAP_X
    return svg(width, MARGIN * 2 + 20 + tallest * step, [*heads, *parts], "commands, aggregates, events and projections")


def anchor(title: str) -> str:
    """The name of a heading, as a link of its page says it."""
    return "".join(c if c.isalnum() else "-" for c in title)


def short(name: str, length: int = NAME) -> str:
    """A name that is cut where it is longer."""
    return name if len(name) <= length else name[: length - 1] + "…"


def svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    """A picture of these parts; `label` is what is read out in its place."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )

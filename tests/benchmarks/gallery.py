"""The gallery's folds by every engine, on random logs of their own: lifted fields, the engine, the speed against the row fold.

python tests/benchmarks/gallery.py [--events 60000] [--only NAME]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from replay.lift import gallery
from rich.console import Console
from rich.table import Table

import eventlab as el
from eventlab.errors import NotLiftable
from eventlab.model.events import event_type
from eventlab.model.models import model_of
from eventlab.model.types import Closed, FieldType, Record
from eventlab.replay.lift import fold_table, plan_of
from eventlab.replay.lift.types import item_of

CHANCE = random.Random(7)


def value(kind: FieldType) -> Any:
    """A random value of a field, of ordinary size."""
    if kind.nullable and CHANCE.random() < 0.2:
        return None
    if isinstance(kind, Closed):
        return CHANCE.choice(list(kind.members.values()))
    if isinstance(kind, Record):
        return kind.cls(*(value(of) for _, of in kind.fields))
    item = item_of(kind)
    if item is not None:
        if kind.tag.startswith("m_"):
            return {f"key {i}": value(item) for i in range(CHANCE.randrange(4))}
        items = tuple(value(item) for _ in range(CHANCE.randrange(4)))
        return frozenset(items) if "set[" in kind.declared else items
    stored: dict[str, Any] = {
        "b": CHANCE.random() < 0.5,
        "i64": CHANCE.randrange(1, 40),
        "f64": CHANCE.uniform(-1, 50),
        "s": f"text {CHANCE.randrange(50)}",
        "d18_2": CHANCE.randrange(1, 10_000),
        "ts": 1_700_000_000_000_000 + CHANCE.randrange(10**13),
        "d": CHANCE.randrange(18_000, 20_000),
        "d18_4": CHANCE.randrange(1, 10_000_000),
        "d38_9": CHANCE.randrange(1, 10**12),
        "td": CHANCE.randrange(10**9),
        "t": CHANCE.randrange(86_400_000_000),
        "uuid": CHANCE.randbytes(16),
        "bin": CHANCE.randbytes(8),
        "dec": "1.50",
        "json": "[1]",
    }
    return kind.decode(stored[kind.tag])


def main() -> None:
    """Print the gallery's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--only")
    given = parser.parse_args()
    table = Table(title=f"{given.events:,} events each; M events/s (× the row fold)")
    for heading in ("fold", "lifted fields", "rows", "loop", "lifted"):
        table.add_column(heading, justify="left" if heading == "fold" else "right")
    gains: dict[str, list[float]] = {"loop": [], "lifted": []}
    for cls in gallery.MODELS:
        if given.only in (None, cls.__name__):
            table.add_row(*measured(cls, given.events, gains))
    table.add_row("median", "", "", *(f"{statistics.median(g):.1f}×" if g else "" for g in gains.values()))
    Console(width=120).print(table)


def measured(cls: type[Any], count: int, gains: dict[str, list[float]]) -> list[str]:
    """One line: the engines that fold this model, compared with the row fold and timed."""
    model = model_of(cls)
    handled = [*(model.handled or ()), *((model.source.handled or ()) if model.source is not None else ())]
    kinds = list(dict.fromkeys(kind.cls for kind in handled)) or [gallery.PointsEarned, gallery.LineAdded]
    with tempfile.TemporaryDirectory() as folder, el.open(folder) as lab:
        for _ in range(-(-count // 5_000)):
            streams: dict[str, list[Any]] = {}
            for _ in range(5_000):
                kind = CHANCE.choice(kinds)
                event = kind(*(value(of) for _, of in event_type(kind).fields))
                streams.setdefault(f"{model.read_category or 'thing'}-{CHANCE.randrange(count // 10)}", []).append(event)
            lab.append(streams)
        lab.seal()
        cut = lab.store.cut()
        told = plan_of(model, cut).explain()
        line = [cls.__name__, f"{sum(f.engine == 'lifted' for f in told.fields)}/{len(told.fields)}"]
        meant, base = timed(model, cut, "rows", 1)
        line.append(f"{cut.head / base / 1e6:.2f}")
        for engine, gained in gains.items():
            try:
                found, seconds = timed(model, cut, engine, 3)
            except NotLiftable:
                line.append("–")
                continue
            assert found.equals(meant), f"{cls.__name__}: {engine} is not the row fold"
            gained.append(base / seconds)
            line.append(f"{cut.head / seconds / 1e6:.2f} ({base / seconds:.1f}×)")
    return line


def timed(model: Any, cut: Any, engine: str, turns: int) -> tuple[Any, float]:
    """The table of an engine and the best time of some turns."""
    best, found = float("inf"), None
    for _ in range(turns):
        started = time.perf_counter()
        found = fold_table(model, cut, "default", cut.head, engine=engine)
        best = min(best, time.perf_counter() - started)
    return found, best


if __name__ == "__main__":
    main()

"""A process that ingests in small chunks, and says on stdout how many rows are in the log after each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl

import eventlab as el
import eventlab.integration.ingest as ingesting
import eventlab.lab
from eventlab.temporal.reader import Bar


@el.event
class ScaleRead:
    """A scale showed a weight."""

    n: int
    grams: float


class Told(Bar):
    """Progress for another process: the rows that are done."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, events: int) -> None:
        self.done += events
        print(json.dumps(self.done), flush=True)


def readings(count: int) -> list[el.Rows]:
    """Two sources whose times interleave, with ties, in six streams."""
    frame = pl.DataFrame({"n": range(count)}).with_columns(
        grams=pl.col("n") / 8, scale=pl.col("n") % 5, at=pl.from_epoch(pl.col("n") // 3, "s").dt.replace_time_zone("UTC")
    )
    odd = pl.col("n") % 2 == 1
    return [
        el.rows(ScaleRead, frame.filter(odd), stream="scale-{scale}", occurred_at="at"),
        el.rows(ScaleRead, frame.filter(~odd), stream="scale-even", occurred_at="at"),
    ]


def main(path: Path, count: int, chunk: int) -> int:
    ingesting.CHUNK_ROWS = chunk  # type: ignore[misc]
    opening = el.open  # this registers the progress of a screen, so ours comes after it
    eventlab.lab.default_progress = lambda what, total: Told()
    try:
        with opening(path) as lab:
            lab.ingest(readings(count), source="scales", recorded_at="occurred_at")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

"""What goes on in a store: events by the time they were recorded, how fast they come, and how far behind each reader is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from eventlab.display import charts
from eventlab.display.html import table
from eventlab.display.view import Controller
from eventlab.lab import Lab
from eventlab.store.words import many

#: Looks that are kept: at one a second, five minutes.
KEPT: Final = 300
#: Columns of the chart of all events.
BUCKETS: Final = 60


class Watcher(Controller):
    """The head of a log, its read models and consumers, as they were each time that somebody looked."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        #: When somebody looked, in seconds: the head then, and how many events each reader was behind.
        self._looks: deque[tuple[float, int, dict[str, int]]] = deque(maxlen=KEPT)
        self._look()
        self._history = self._counted()

    def __repr__(self) -> str:
        behind = sum(row["lag"] > 0 for row in self._readers)
        return f"Watcher({many(self.head, 'event')}, {behind} of {many(len(self._readers), 'reader')} behind)"

    @property
    def head(self) -> int:
        """The last position when somebody looked."""
        return self._looks[-1][1]

    @property
    def per_second(self) -> float:
        """Events that came between the last two looks, a second."""
        if len(self._looks) < 2:
            return 0.0
        (before, low, _), (now, high, _) = self._looks[-2], self._looks[-1]
        return (high - low) / (now - before) if now > before else 0.0

    def code(self) -> str:
        """The Python that gives the table."""
        return "lab.status()"

    def state(self) -> dict[str, Any]:
        """All that is drawn: the charts are pictures already."""
        last = self._looks[-1][0]
        rates = [
            (after - last, (high - low) / (after - before))
            for (before, low, _), (after, high, _) in zip(self._looks, list(self._looks)[1:], strict=False)
            if after > before
        ]
        behind = {
            row["name"]: [(at - last, float(lags[row["name"]])) for at, _, lags in self._looks if row["name"] in lags]
            for row in self._readers
        }
        return {
            **super().state(), "head": self.head, "per_second": round(self.per_second, 1), "readers": self._rows(),
            "rate": charts.lines({"events a second": rates}, "a second"), "lag": charts.lines(behind, "events behind"),
            "history": charts.columns(*self._history),
        }  # fmt: skip

    def html(self) -> str:
        """The events of the whole log by when they were recorded, and who is how far behind."""
        counts, begin, end = self._history
        drawn = charts.picture(charts.columns(*self._history), f"{many(self.head, 'event')} from {begin} to {end}")
        said = f"{many(self.head, 'event')}, by when they were recorded, in {many(len(counts), 'column')}"
        text = table(said, ("from", "until", "at most"), [(begin, end, f"{max(counts, default=0):,}")], right={2})
        if not self._readers:
            return drawn + text
        lags = [(row["name"], row["lag"], f"of {self.head:,}") for row in self._readers]
        columns = ("", "reader", "what", "state", "position", "behind", "parked", "error")
        rows = table("who reads, and how far behind", columns, self._rows(), right={4, 5, 6}, one_line=True)
        return drawn + text + charts.picture(charts.bars(lags), "events behind, for each reader") + rows

    def on_look(self, told: Mapping[str, Any]) -> None:
        """Look again."""
        self._look()

    def on_refresh(self, told: Mapping[str, Any]) -> None:
        """Look again, and count the whole log anew."""
        self._look()
        self._history = self._counted()

    def _look(self) -> None:
        found = self._lab.status().to_dicts()
        # What was kept from before an acceptance reads nothing any more.
        self._readers = [row for row in found if row["state"] != "previous"]
        self._looks.append((time.monotonic(), self._lab.head, {row["name"]: row["lag"] for row in self._readers}))

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                chr(65 + at % 26), row["name"], row["kind"], row["state"] or "", f"{row['position']:,}", f"{row['lag']:,}",
                f"{row['parked']:,}", row["error"] or "",
            )
            for at, row in enumerate(self._readers)
        ]  # fmt: skip

    def _counted(self) -> tuple[list[int], str, str]:
        """The events of the log in columns of the same length of time, and when the first and the last was recorded."""
        ((low, high),) = self._lab.sql(
            "select epoch_us(min(_recorded_at)) as low, epoch_us(max(_recorded_at)) as high from events.log"
        ).rows()
        if low is None:
            return [], "", ""
        wide = max((high - low) // BUCKETS + 1, 1)
        found = self._lab.sql(
            "select (epoch_us(_recorded_at) - $low) // $wide as at, count(*) as n from events.log group by 1", low=low, wide=wide
        )
        counts = [0] * ((high - low) // wide + 1)
        for at, n in found.iter_rows():
            counts[at] = n
        begin, end = (time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(of / 1e6)) for of in (low, high))
        return counts, begin, end

"""The main job, end to end: a year of real flights becomes a log, tables, moments in time and a proof of replay.

`eventlab demo` runs it. Each answer stands beside the one that three independent routes found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from eventlab.determinism.check import Checked, check, full_pass
from eventlab.determinism.fingerprints import table_fingerprint
from eventlab.determinism.variants import FOLDS, VARIANTS
from eventlab.determinism.worker import Outcome
from eventlab.domains import nycflights13
from eventlab.domains.faults import DestinationsInSetOrder
from eventlab.domains.flights import MODELS, SOURCE, Aircraft, sources
from eventlab.lab import Lab
from eventlab.lab import open as open_lab
from eventlab.model.models import model_of
from eventlab.projections.read_models import Rebuilt, base_of
from eventlab.store.disk import DiskStore
from eventlab.temporal.calendar import instant, shown

EVENTS: Final = 1_001_615
BY_TYPE: Final = {"FlightScheduled": 336_776, "FlightDeparted": 328_521, "FlightArrived": 328_063, "FlightCancelled": 8_255}
IN_THE_AIR: Final = {
    "2013-02-08T12:00:00Z": 73,
    "2013-02-08T18:00:00Z": 139,
    "2013-02-09T18:00:00Z": 9,
    "2013-03-10T07:30:00Z": 8,
    "2013-07-04T16:00:00Z": 137,
    "2013-10-30T13:00:00Z": 190,
    "2013-11-03T06:30:00Z": 8,
    "2013-12-31T23:00:00Z": 167,
}
KNOWN_THEN: Final = {"2013-02-08T18:00:00Z": 163, "2013-07-04T16:00:00Z": 359, "2013-12-31T23:00:00Z": 625}
PEAK: Final[dict[str, Any]] = {"count": 223, "at": "2013-04-06T00:10:00Z"}
STORM_DAY: Final = {"scheduled": 930, "cancelled": 472, "departed": 458}
N725MQ: Final = {"flights": 575, "departed": 546, "cancelled": 29, "minutes_in_the_air": 48_921, "miles": 303_712}

#: One stream in so many is folded again with every state compared; all streams are folded once more in a fresh process.
SAMPLE: Final = 64

_IN_THE_AIR_SQL: Final = "select count(*) from state.flight where departed_at <= $at and arrived_at > $at"
_KNOWN_THEN_SQL: Final = "select count(*) from state.flight where status = 'in the air'"
_PEAK_SQL: Final = """
    with changes as (
        select departed_at as moment, 1 as n from state.flight where arrived_at is not null
        union all
        select arrived_at, -1 from state.flight where arrived_at is not null
    ), moments as (select moment, sum(n) as n from changes group by all)
    select moment, sum(n) over (order by moment) as flights from moments order by flights desc, moment limit 1
"""
_STORM_SQL: Final = """
    select count(*) as scheduled, count(*) filter (status = 'cancelled') as cancelled, count(departed_at) as departed
    from state.flight where date = '2013-02-08'
"""


@dataclass
class Demo:
    """What the demo did and found."""

    quick: bool = False
    events: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    ingested: int = 0
    rebuilt: list[Rebuilt] = field(default_factory=list)
    in_the_air: dict[str, int] = field(default_factory=dict)
    known_then: dict[str, int] = field(default_factory=dict)
    peak: dict[str, Any] = field(default_factory=dict)
    storm_day: dict[str, int] = field(default_factory=dict)
    aircraft: dict[str, dict[str, int]] = field(default_factory=dict)
    checked: list[Checked] = field(default_factory=list)
    full_pass: dict[str, bool] = field(default_factory=dict)
    fault: Checked | None = None
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def divergences(self) -> int:
        """Folds that parted: models of the sample, and tables of the full pass that came out otherwise."""
        return sum(not report.ok for report in self.checked) + sum(not same for same in self.full_pass.values())

    @property
    def as_expected(self) -> bool:
        """Whether every answer is the known one, and replay, if it was looked at, did not part but where a fault was planted."""
        return (
            (self.by_type, self.in_the_air, self.known_then, self.peak, self.storm_day, self.aircraft)
            == (BY_TYPE, IN_THE_AIR, KNOWN_THEN, PEAK, STORM_DAY, {"N725MQ": N725MQ})
            and self.divergences == 0
            and (self.quick or (self.fault is not None and self.fault.divergence is not None))
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for `--json`."""
        found = self.fault.divergence if self.fault is not None else None
        return {
            "events": self.events,
            "by_type": self.by_type,
            "ingested": self.ingested,
            "rebuilt": {r.model: {"events": r.events, "rows": r.rows, "seconds": round(r.seconds, 3)} for r in self.rebuilt},
            "in_the_air": self.in_the_air,
            "known_then": self.known_then,
            "peak": self.peak,
            "storm_day": self.storm_day,
            "aircraft": self.aircraft,
            "replay": {
                "variants": 0 if self.quick else len(VARIANTS) + 1,
                "divergences": self.divergences,
                "full_pass": self.full_pass,
                "sample": {report.model: report.events for report in self.checked},
            },
            "planted_fault": {
                "found": found is not None,
                "position": found.position if found else None,
                "field": found.field if found else None,
                "event": found.event if found else None,
            },
            "as_expected": self.as_expected,
            "steps": {name: round(seconds, 2) for name, seconds in self.steps.items()},
            "seconds": round(self.seconds, 2),
        }


def run(store: Path, console: Console, *, quick: bool = False) -> Demo:
    """Run the demo on the store in a folder, telling its story on a console; `quick` leaves the proof of replay out."""
    demo = Demo(quick=quick)
    started = time.perf_counter()
    with open_lab(store) as lab:
        _ingest(lab, demo, console)
        _rebuild(lab, demo, console)
        _ask(lab, demo, console)
        if not quick:
            _prove(lab, demo, console)
        demo.seconds = time.perf_counter() - started
        _close(lab, demo, console)
    return demo


def _ingest(lab: Lab, demo: Demo, console: Console) -> None:
    with _step(demo, "ingest"):
        if lab.ingested(SOURCE) < EVENTS:
            done = lab.ingest(sources(nycflights13.load()), source=SOURCE, recorded_at="occurred_at")
            demo.ingested = done.events
        demo.events = lab.ingested(SOURCE)
        counts = lab.sql("select _type, count(*) as n from events.flight where _type in ('FlightScheduled', 'FlightDeparted', "
                         "'FlightArrived', 'FlightCancelled') group by all order by n desc")  # fmt: skip
        demo.by_type = dict(counts.iter_rows())
    # Files that were compacted since are still there for whoever reads them; the log is what is live.
    assert isinstance(lab.store, DiskStore)
    size = sum(segment.bytes for segment in lab.store.segments())
    table = _table("1 · The flights of 2013 as events", "event", "in the log", "expected")
    for name, expected in BY_TYPE.items():
        _row(table, name, demo.by_type.get(name, 0), expected)
    _row(table, "all events", demo.events, EVENTS)
    console.print(table)
    if demo.ingested:
        rate = demo.ingested / demo.steps["ingest"]
        console.print(
            f"  {demo.ingested:,} ingested in {demo.steps['ingest']:.1f} s ({rate:,.0f} rows/s, reading the source included)"
        )
    else:
        console.print("  they were there; nothing was added")
    console.print(f"  {size / 1e6:,.1f} MB of Parquet, {size / max(demo.events, 1):.0f} bytes an event, in {lab.path}\n")


def _rebuild(lab: Lab, demo: Demo, console: Console) -> None:
    with _step(demo, "rebuild"):
        demo.rebuilt = [lab.rebuild(model) for model in MODELS]
    table = _table("2 · Four read models, folded from the log", "read model", "rows", "events folded", "events/s")
    for done in demo.rebuilt:
        table.add_row(f"state.{done.model}", f"{done.rows:,}", f"{done.events:,}", f"{done.events_per_second:,.0f}")
    console.print(table)
    console.print()


def _ask(lab: Lab, demo: Demo, console: Console) -> None:
    with _step(demo, "ask"):
        for text in IN_THE_AIR:
            demo.in_the_air[text] = lab.sql(_IN_THE_AIR_SQL, at=instant(text)).item()
        for text in KNOWN_THEN:
            demo.known_then[text] = lab.at(text).sql(_KNOWN_THEN_SQL).item()
        at, count = lab.sql(_PEAK_SQL).row(0)
        demo.peak = {"count": count, "at": shown(at)}
        demo.storm_day = lab.sql(_STORM_SQL).row(0, named=True)
        row = lab.table(Aircraft).row(by_predicate=_tail("N725MQ"), named=True)
        demo.aircraft = {"N725MQ": {name: row[name] for name in N725MQ}}
    table = _table("3 · Moments", "question", "answer", "expected")
    for text, expected in IN_THE_AIR.items():
        _row(table, f"in the air at {_short(text)}, in hindsight", demo.in_the_air[text], expected)
    for text, expected in KNOWN_THEN.items():
        _row(table, f"in the air at {_short(text)}, as was known then", demo.known_then[text], expected)
    _row(table, f"most at once, at {_short(demo.peak['at'])}", demo.peak["count"], PEAK["count"])
    for name, expected in STORM_DAY.items():
        _row(table, f"8 February, the storm: {name}", demo.storm_day[name], expected)
    for name, expected in N725MQ.items():
        _row(table, f"aircraft N725MQ: {name.replace('_', ' ')}", demo.aircraft["N725MQ"][name], expected)
    console.print(table)
    console.print(
        "  Hindsight asks today's table; what was known then is the same fold over the log up to that moment,\n"
        "  when nobody could know which flights would never report their arrival.\n"
    )


def _prove(lab: Lab, demo: Demo, console: Console) -> None:
    models = [model_of(cls) for cls in MODELS]
    root, head = lab.path or Path(), lab.head
    with _step(demo, "prove"), ThreadPoolExecutor(1) as pool:
        whole: Future[dict[str, Outcome]] = pool.submit(full_pass, models, root, tenant="default", until=head)
        checking = partial(check, root=root, tenant="default", until=head, sample=SAMPLE, effort=FOLDS, isolate=False)
        demo.checked = checking(models)
        demo.fault = checking([model_of(DestinationsInSetOrder)])[0]
        for model in models:
            base = base_of(model, lab.store, "default")
            mine = table_fingerprint(model, base.table(), "default") if base is not None else ""
            demo.full_pass[model.name] = whole.result()[model.reference].fingerprint == mine
    table = _table("4 · Replay, in fresh processes", "read model", "every state of a sample", "the whole table")
    for report in demo.checked:
        verdict = (
            f"no divergence in {report.events:,} events × {len(report.variants)} variants"
            if report.ok
            else str(report.divergence)
        )
        same = "the same under another hash seed and zone" if demo.full_pass[report.model] else "[red]differs[/red]"
        table.add_row(report.model, verdict, same)
    console.print(table)
    found = demo.fault.divergence
    if found is not None:
        where = f"field {found.field!r} at position {found.position:,}, {found.event}"
        console.print(f"  A planted fault (a fold in the order of a set) was found: {where}")
        console.print(f"    {found.before} under {found.variants[0]!r}")
        console.print(f"    {found.after} under {found.variants[1]!r}")
        console.print(f"  See it again: {found.command}\n", soft_wrap=True)
    else:
        console.print("  [red]The planted fault was not found.[/red]\n")


def _close(lab: Lab, demo: Demo, console: Console) -> None:
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in demo.steps.items())
    verdict = "every answer as expected" if demo.as_expected else "[red]some answers are not the expected ones[/red]"
    left = ", without the proof of replay" if demo.quick else ""
    console.print(f"{verdict}{left}; {demo.seconds:.0f} s in all ({parts})")
    where = "" if lab.path == Path("data/flights").resolve() else f" --store {lab.path}"
    console.print(f"Next: eventlab lab, or eventlab sql{where} --models eventlab.domains.flights \\", soft_wrap=True)
    console.print(
        '  "select carrier, sum(cancelled) as cancelled from state.carrier_day group by all order by 2 desc"', soft_wrap=True
    )


@contextmanager
def _step(demo: Demo, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    demo.steps[name] = time.perf_counter() - started


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column.startswith(("every", "the whole")) else "right")
    return table


def _row(table: Table, question: str, answer: int, expected: int) -> None:
    style = "green" if answer == expected else "bold red"
    table.add_row(question, f"[{style}]{answer:,}[/{style}]", f"{expected:,}")


def _short(text: str) -> str:
    return text.replace("T", " ").removesuffix(":00Z") + " UTC"


def _tail(number: str) -> pl.Expr:
    return pl.col("_id") == number

"""Logs that nobody here wrote, taken in as events, and the answers that are known of them."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self
from xml.etree import ElementTree

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import IngestRefused

UTC = dt.UTC


def numbers(lab: el.Lab, category: str, step: str) -> tuple[int, int, int, list[int]]:
    """Events, cases, kinds of steps, and how many cases went each way, most first."""
    (counted,) = lab.sql(f"select count(*), count(distinct _id), count(distinct {step}) from events.{category}").rows()
    ways = lab.sql(
        f"select count(*) as cases from (select string_agg({step}, '|' order by _position) as way from events.{category} "
        "group by _stream) group by way order by 1 desc"
    )
    return (*counted, ways["cases"].to_list())


def type_name(activity: str) -> str:
    return "".join(word.capitalize() for word in activity.split())


# -- the teaching example: 42 steps of 6 cases -----------------------------------------------------------------------------

RUNNING = {"resource": "org:resource", "costs": "Costs"}


@el.event
class RequestHandled:
    """Somebody did something for a request for compensation."""

    activity: str
    resource: el.Tag[str]
    costs: int


@pytest.fixture
def running_example(real_data: Path) -> Path:
    return real_data / "running-example" / "running-example.csv"


def test_the_running_example_without_classes_is_one_type_an_activity(running_example: Path, tmp_path: Path) -> None:
    steps = pl.read_csv(running_example, infer_schema=False).partition_by("concept:name", as_dict=True)
    rows = [
        el.rows(
            type_name(activity), frame, stream="request-{case:concept:name}", occurred_at="time:timestamp", fields=RUNNING,
        )
        for (activity,), frame in steps.items()
    ]  # fmt: skip
    with el.open(tmp_path / "log") as lab:
        done = lab.ingest(rows, source="running-example", recorded_at="occurred_at")
        assert (done.events, len(done.by_type), done.by_type["Decide"]) == (42, 8, 9)
        assert numbers(lab, "request", "_type")[:3] == (42, 6, 8)
        # Merged from eight sources, each case has its steps in the order of the file.
        file = pl.read_csv(running_example, infer_schema=False).group_by("case:concept:name").agg("concept:name")
        ways = {case: [type_name(name) for name in names] for case, names in file.iter_rows()}
        assert {case: [e.type for e in lab.read(el.stream(f"request-{case}"))] for case in ways} == ways
        assert lab.ingest(rows, source="running-example", recorded_at="occurred_at").events == 0


def test_the_running_example_with_a_class_has_typed_fields(running_example: Path) -> None:
    rows = el.rows(
        RequestHandled, running_example, stream="request-{case:concept:name}", occurred_at="time:timestamp",
        fields=RUNNING | {"activity": "concept:name"},
    )  # fmt: skip
    with el.scratch() as lab:
        lab.ingest(rows, source="running-example", recorded_at="occurred_at")
        assert numbers(lab, "request", "activity")[:3] == (42, 6, 8)
        (first,) = lab.read(limit=1)
        assert (first.occurred_at, first.stream) == (dt.datetime(2010, 12, 30, 10, 2, tzinfo=UTC), "request-1")
        assert first.data == RequestHandled("register request", "Pete", 50)
        file = pl.read_csv(running_example)
        assert lab.sql("select sum(costs) as total from events.request")["total"].to_list() == [file["Costs"].sum()]
        mike = file.filter(pl.col("org:resource") == "Mike").height
        assert len(lab.read(el.tag(resource="Mike"))) == mike > 0


def test_a_column_that_the_running_example_does_not_have_is_refused(running_example: Path) -> None:
    with el.scratch() as lab:
        with pytest.raises(
            IngestRefused, match=r"RequestHandled from running-example\.csv: there is no column 'activity'"
        ) as refused:
            lab.ingest(el.rows(RequestHandled, running_example, stream="request-{case:concept:name}"), source="running-example")
        assert "concept:name" in refused.value.hint
        assert lab.head == 0


# -- building permits: 8,577 steps, in local time with its offset ----------------------------------------------------------

RECEIPT = {"activity": "concept:name", "resource": "org:resource", "deadline": "case:deadline", "started": "case:startdate"}


@el.event
class PermitHandled:
    """The municipality did a step of the receipt of an application."""

    activity: str
    resource: str
    started: dt.datetime
    deadline: dt.datetime | None
    channel: Literal["Internet", "Desk", "Post", "Intern", "e-mail"]


@pytest.mark.parametrize("kind", ["PermitSeen", PermitHandled])
def test_the_receipt_log(real_data: Path, kind: Any) -> None:
    fields = RECEIPT | {"channel": "case:channel"}
    rows = el.rows(
        kind,
        real_data / "receipt" / "receipt.csv",
        stream="permit-{case:concept:name}",
        occurred_at="time:timestamp",
        fields=fields,
    )
    with el.scratch() as lab:
        done = lab.ingest(rows, source="receipt", recorded_at="occurred_at")
        events, cases, kinds, ways = numbers(lab, "permit", "activity")
        assert (done.events, events, cases, kinds, len(ways), ways[0]) == (8_577, 8_577, 1_434, 27, 116, 713)
        case = list(lab.read(el.stream("permit-case-10011")))
        assert case[0].occurred_at == dt.datetime(2011, 10, 11, 11, 45, 40, 276_000, tzinfo=UTC)
        started = case[0].data["started"] if kind == "PermitSeen" else case[0].data.started
        assert started == ("2011-10-11 13:42:22.688000+02:00" if kind == "PermitSeen" else dt.datetime(
            2011, 10, 11, 11, 42, 22, 688_000, tzinfo=UTC
        ))  # fmt: skip


# -- a help desk: 21,348 steps of 4,580 tickets ----------------------------------------------------------------------------

JUNE = dt.datetime(2012, 6, 1, tzinfo=UTC)
OPEN_TICKETS = (
    "select count(*) as open from (select min(_occurred_at) as first, max(_occurred_at) as last "
    "from events.helpdesk_ticket group by _stream) where first <= $t and $t < last"
)


@el.event
class TicketProgressed:
    """Something was done about a ticket."""

    activity: str
    resource: str
    seriousness: str
    customer: el.Tag[str]


@el.event
class CaseMoved:
    """A case of the IT department came a step further."""

    activity: str


@el.aggregate
class HelpdeskTicket:
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    steps: int = 0
    resources: frozenset[str] = frozenset()

    def evolve(self, event: TicketProgressed, meta: el.Meta) -> Self:
        return replace(
            self,
            first=self.first or meta.occurred_at,
            last=meta.occurred_at,
            steps=self.steps + 1,
            resources=self.resources | {event.resource},
        )


@pytest.fixture
def helpdesk(real_data: Path) -> Path:
    return real_data / "helpdesk" / "helpdesk_best.csv"


@pytest.fixture
def tickets(helpdesk: Path, tmp_path: Path) -> Iterator[el.Lab]:
    rows = el.rows(
        TicketProgressed, helpdesk, stream="helpdesk_ticket-{Case ID}", occurred_at="Complete Timestamp", tz="UTC",
        fields={"activity": "Activity", "resource": "Resource"},
    )  # fmt: skip
    with el.open(tmp_path / "log") as lab:
        lab.ingest(rows, source="helpdesk", recorded_at="occurred_at")
        yield lab


def test_the_helpdesk_log(tickets: el.Lab) -> None:
    events, cases, kinds, ways = numbers(tickets, "helpdesk_ticket", "activity")
    assert (events, cases, kinds, len(ways)) == (21_348, 4_580, 14, 226)
    assert tickets.sql(OPEN_TICKETS, t=JUNE)["open"].to_list() == [217]


def test_tickets_folded_with_a_model_give_the_same_answer(tickets: el.Lab) -> None:
    table = tickets.table(HelpdeskTicket)
    assert (table.height, table["steps"].sum()) == (4_580, 21_348)
    assert table.filter(pl.col("first") <= JUNE, pl.col("last") > JUNE).height == 217
    # What was known then holds the tickets that had begun, each with its steps so far.
    then = tickets.at(JUNE)
    begun = table.filter(pl.col("first") <= JUNE)
    assert then.table(HelpdeskTicket)["_id"].to_list() == begun["_id"].to_list()
    assert then.sql("select count(*) as n from events.helpdesk_ticket")["n"][0] == then.table(HelpdeskTicket)["steps"].sum()
    assert tickets.load(HelpdeskTicket, "Case 1").steps == table.filter(pl.col("_id") == "Case 1")["steps"][0] == 5


def test_the_tickets_that_were_open_are_intervals_of_their_steps(tickets: el.Lab) -> None:
    """A ticket is open from its first step to its last: that is not to be known before, and intervals of the end say it."""
    lives = tickets.intervals(HelpdeskTicket, fields=["steps"])
    spans = lives.group_by("_id").agg(pl.col("_from").min().alias("first"), pl.col("_from").max().alias("last"))
    assert spans.filter(pl.col("first") <= JUNE, pl.col("last") > JUNE).height == 217
    known = tickets.at(JUNE).table(HelpdeskTicket).select("_id", "steps")
    then = lives.filter(pl.col("_from") <= JUNE, pl.col("_to").is_null() | (pl.col("_to") > JUNE)).select("_id", "steps")
    assert then.sort("_id").equals(known)
    (day,) = tickets.series(HelpdeskTicket, "1d", start=JUNE, end=JUNE, fields=["steps"]).partition_by("_at")
    assert day.select("_id", "steps").equals(known)
    sql = "select _id, steps from state.helpdesk_ticket_at(TIMESTAMPTZ '2012-06-01 00:00:00+00') order by _id"
    assert tickets.sql(sql).equals(known)


def test_the_helpdesk_log_without_classes_one_type_an_activity(helpdesk: Path) -> None:
    parts = pl.read_csv(helpdesk, infer_schema=False).partition_by("Activity", as_dict=True)
    # Without fields= the columns are the fields, and some of these cannot name one.
    with el.scratch() as lab:
        frame = next(iter(parts.values()))
        with pytest.raises(IngestRefused, match="'Case ID' cannot name a field"):
            lab.ingest(el.rows("TicketSeen", frame, stream="helpdesk_ticket-{Case ID}"), source="helpdesk")
        rows = [
            el.rows(
                f"Ticket{type_name(activity)}", frame.rename(lambda name: name.lower().replace(" ", "_")),
                stream="helpdesk_ticket-{case_id}", occurred_at="complete_timestamp", tz="UTC",
            )
            for (activity,), frame in parts.items()
        ]  # fmt: skip
        done = lab.ingest(rows, source="helpdesk", recorded_at="occurred_at")
        assert done.by_type == {f"Ticket{type_name(a)}": len(frame) for (a,), frame in parts.items()}
        assert numbers(lab, "helpdesk_ticket", "_type")[:3] == (21_348, 4_580, 14)
        assert lab.sql(OPEN_TICKETS, t=JUNE)["open"].to_list() == [217]


# -- incidents and problems of an IT department, in XES --------------------------------------------------------------------


def xes(path: Path) -> pl.DataFrame:
    """The events of a XES file: case, activity, time; in the order of the file."""
    rows: list[tuple[str, str, str]] = []
    with gzip.open(path) as file:
        for _, node in ElementTree.iterparse(file):
            if node.tag.rpartition("}")[2] != "trace":
                continue
            case = next(of.get("value") for of in node if of.get("key") == "concept:name")
            for event in node.iter():
                if event.tag.rpartition("}")[2] == "event":
                    told = {of.get("key"): of.get("value") for of in event}
                    rows.append((str(case), str(told["concept:name"]), str(told["time:timestamp"])))
            node.clear()
    frame = pl.DataFrame(rows, schema=["case", "activity", "at"], orient="row")
    return frame.with_columns(pl.col("at").str.to_datetime("%+", time_zone="UTC", time_unit="us"))


@el.aggregate
class ServiceCase:
    """An incident or a problem: how far it is, and where it stood last."""

    steps: int = 0
    activity: str = ""

    def evolve(self, event: CaseMoved) -> Self:
        return replace(self, steps=self.steps + 1, activity=event.activity)


@pytest.mark.parametrize(
    ("file", "events", "cases", "variants", "when", "open_then"),
    [
        ("bpic2013_incidents.xes.gz", 65_533, 7_554, 1_511, dt.datetime(2012, 5, 1, tzinfo=UTC), 2_362),
        ("bpic2013_closed.xes.gz", 6_660, 1_487, 183, dt.datetime(2012, 1, 1, tzinfo=UTC), 825),
    ],
)
def test_the_cases_of_an_it_department(
    real_data: Path, file: str, events: int, cases: int, variants: int, when: dt.datetime, open_then: int
) -> None:
    frame = xes(real_data / "bpic2013" / file)
    with el.scratch() as lab:
        rows = el.rows(CaseMoved, frame, stream="service_case-{case}", occurred_at="at")
        assert lab.ingest(rows, source=file, recorded_at="occurred_at").events == events
        found = numbers(lab, "service_case", "activity")
        assert (found[0], found[1], len(found[3])) == (events, cases, variants)
        # A case is open from its first step to its last: in hindsight, by the intervals of its steps.
        lives = lab.intervals(ServiceCase, fields=["steps"])
        spans = lives.group_by("_id").agg(pl.col("_from").min().alias("first"), pl.col("_from").max().alias("last"))
        assert spans.filter(pl.col("first") <= when, pl.col("last") > when).height == open_then
        # What was known then is the same from the moment, from the intervals and from the events before it.
        known = lab.at(when).table(ServiceCase).select("_id", "steps", "activity")
        before = frame.filter(pl.col("at") <= when).group_by("case").len().sort("case")
        assert dict(known.select("_id", "steps").iter_rows()) == dict(before.iter_rows())
        (day,) = lab.series(ServiceCase, "1d", start=when, end=when).partition_by("_at")
        assert day.select("_id", "steps", "activity").equals(known)


# -- the files of two repositories -----------------------------------------------------------------------------------------


@el.event
class TreeFileAdded:
    """A commit brought a new file."""

    path: str
    blob: str


@el.event
class TreeFileModified:
    """A commit changed a file."""

    path: str
    blob: str


@el.event
class TreeFileDeleted:
    """A commit took a file away."""

    path: str


@el.event
class TreeCommitted:
    """Somebody committed."""

    author: str


@el.projection
class TreeFile:
    """A path and what lies there; nothing when it was deleted."""

    blob: str | None = None

    @staticmethod
    def key(event: TreeFileAdded | TreeFileModified | TreeFileDeleted, meta: el.Meta) -> str:
        return event.path

    def evolve(self, event: TreeFileAdded | TreeFileModified | TreeFileDeleted) -> Self:
        match event:
            case TreeFileAdded(blob=blob) | TreeFileModified(blob=blob):
                return replace(self, blob=blob)
            case TreeFileDeleted():
                return replace(self, blob=None)
        return self


def tree(reader: Any) -> dict[str, str]:
    """The path of each file and its blob, as the projection has them."""
    return {path: blob for path, blob in reader.table(TreeFile).select("_id", "blob").iter_rows() if blob is not None}


def digest(files: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(sorted(f"{path}\t{blob}" for path, blob in files.items())).encode()).hexdigest()[:16]


GIT_TYPES = {
    "CommitRecorded": TreeCommitted, "FileAdded": TreeFileAdded, "FileModified": TreeFileModified, "FileDeleted": TreeFileDeleted,
}  # fmt: skip


def commits(path: Path) -> dict[str, pl.DataFrame]:
    frame = pl.read_ndjson(path, infer_schema_length=None)
    frame = frame.with_columns(at=pl.from_epoch("committed_at", "s").dt.replace_time_zone("UTC"))
    return {str(name): part for (name,), part in frame.partition_by("type", as_dict=True).items()}


def test_replaying_a_repository_gives_its_files_at_any_time(real_data: Path) -> None:
    parts = commits(real_data / "git-events" / "attrs.jsonl")
    rows = [el.rows(GIT_TYPES[name], part, stream="tree-attrs", occurred_at="at") for name, part in parts.items()]
    with el.scratch() as lab:
        done = lab.ingest(rows, source="attrs", recorded_at="occurred_at")
        assert (done.events, sum(done.by_type.values())) == (6_674, 6_674)
        known = {year: tree(lab.at(dt.datetime(year, 1, 1, tzinfo=UTC))) for year in (2020, 2024)}
        assert {year: (len(files), digest(files)) for year, files in known.items()} == {
            2020: (74, "e5647e12a8f88888"),
            2024: (116, "bf62bf58e5fb11fa"),
        }


def test_the_spans_of_a_repository_give_the_same_files(real_data: Path) -> None:
    """Intervals, a calendar of states, differences and one history, each against the file's own lines."""
    parts = commits(real_data / "git-events" / "attrs.jsonl")
    rows = [el.rows(GIT_TYPES[name], part, stream="tree-attrs", occurred_at="at") for name, part in parts.items()]
    first, last = (dt.datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2024))
    with el.scratch() as lab:
        lab.ingest(rows, source="attrs", recorded_at="occurred_at")
        lives = lab.intervals(TreeFile, fields=["blob"])
        at = {}
        for when in (first, last):
            there = lives.filter(pl.col("_from") <= when, pl.col("_to").is_null() | (pl.col("_to") > when))
            at[when] = {path: blob for path, blob in there.select("_id", "blob").iter_rows() if blob is not None}
        assert {when.year: (len(files), digest(files)) for when, files in at.items()} == {
            2020: (74, "e5647e12a8f88888"),
            2024: (116, "bf62bf58e5fb11fa"),
        }
        years = lab.series(TreeFile, "1y", start=first, end=last, fields=["blob"]).filter(pl.col("blob").is_not_null())
        for when, files in at.items():
            assert dict(years.filter(pl.col("_at") == when).select("_id", "blob").iter_rows()) == files
        changed = lab.diff(TreeFile, first, last)
        moved = {row["_id"] for row in changed.to_dicts() if row["field"] == "blob"}
        assert moved >= {path for path in at[first] if at[first][path] != at[last].get(path)}
        for path in sorted(moved)[:5]:
            (row,) = changed.filter(pl.col("_id") == path, pl.col("field") == "blob").to_dicts()
            told = lab.history(TreeFile, path, "blob")
            assert told.filter(pl.col("from") <= first)["value"].to_list()[-1] == row["before"]
            after = told.filter(pl.col("from") > first, pl.col("from") <= last)
            assert after["position"].to_list() == row["events"]
            assert after["value"].to_list()[-1] == row["after"] == at[last].get(path)


def test_a_repository_whose_clock_ran_backwards_is_replayed_by_position(real_data: Path) -> None:
    path = real_data / "git-events" / "sqlite-utils.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3_904
    times = [line["committed_at"] for line in lines]
    assert sum(after < before for before, after in pairwise(times)) == 4
    files: dict[str, str] = {}
    with el.scratch() as lab:
        for start in range(0, len(lines), 500):
            some = lines[start : start + 500]
            lab.append("tree-sqlite-utils", [
                el.new(_tree_event(line), occurred_at=dt.datetime.fromtimestamp(line["committed_at"], UTC)) for line in some
            ])  # fmt: skip
            for line in some:
                if line["type"] == "FileDeleted":
                    del files[line["path"]]
                elif line["type"] != "CommitRecorded":
                    files[line["path"]] = line["blob"]
            assert tree(lab) == files
            assert tree(lab.at(position=start + len(some))) == files
        assert lab.head == 3_904
        # In the order of time it is another history: a file is changed before it is there.
        by_time = sorted(range(len(lines)), key=lambda i: times[i])
        assert [e.version for e in lab.read(el.stream("tree-sqlite-utils"))] != [i + 1 for i in by_time]
        exported = lab.read().frame().sort("_occurred_at", maintain_order=True)
        assert exported["_version"].to_list() == [i + 1 for i in by_time]


def _tree_event(line: dict[str, Any]) -> Any:
    match line["type"]:
        case "CommitRecorded":
            return TreeCommitted(line["author"])
        case "FileDeleted":
            return TreeFileDeleted(line["path"])
        case other:
            return GIT_TYPES[other](line["path"], line["blob"])


# -- metered billing: the state after every event is known -----------------------------------------------------------------


@dataclass(frozen=True)
class BillingDimension:
    type: str
    dimension: str
    included: int


@dataclass(frozen=True)
class Usage:
    """Usage to be reported for one hour of one dimension."""

    resource: str
    start: dt.datetime
    plan: str
    dimension: str
    quantity: float


@dataclass(frozen=True)
class Meter:
    """What is left of the included quantity, or what was used beyond it."""

    left: int
    used: int
    beyond: bool
    updated: dt.datetime


@dataclass(frozen=True)
class At:
    """A place in the partition: sequence number and time of arrival."""

    sequence: int = -1
    time: dt.datetime = dt.datetime(1, 1, 1, tzinfo=UTC)


@el.event
class PlanPurchased:
    """A customer subscribed to a plan."""

    resource: str
    start: dt.datetime
    renewal: str
    plan: str
    dimensions: dict[str, BillingDimension]


@el.event
class UsageMetered:
    """A program used some of a dimension."""

    resource: str
    dimension: str
    quantity: int


@el.event
class HourBegan:
    """The aggregator was told that time went on."""

    local_time: dt.datetime


@el.event
class UsageSubmitted:
    """The marketplace took a report of usage."""

    usage: Usage


@el.event
class JunkReceived:
    """Something arrived that is no message."""

    text: str


@el.event
class JunkRemoved:
    """An operator threw junk away: one message, or all."""

    exactly: int | None


BillingEvent = PlanPurchased | UsageMetered | HourBegan | UsageSubmitted | JunkReceived | JunkRemoved


@el.aggregate
class MeterPartition:
    last: At = At()
    last_metered: At = At()
    plan: PlanPurchased | None = None
    meters: dict[str, Meter] = el.field(default_factory=dict)
    to_report: tuple[Usage, ...] = ()
    junk: dict[str, str] = el.field(default_factory=dict)

    def evolve(self, event: BillingEvent, meta: el.Meta) -> Self:
        at = At(meta.version - 1, meta.occurred_at)
        match event:
            case JunkReceived(text=text):
                return replace(self, last=at, junk=self.junk | {str(at.sequence): text})
            case JunkRemoved(exactly=None):
                return replace(self, last=at, junk={})
            case JunkRemoved(exactly=number):
                return replace(self, last=at, junk={key: text for key, text in self.junk.items() if key != str(number)})
            case PlanPurchased(dimensions=dimensions):
                fresh = {name: Meter(of.included, 0, False, at.time) for name, of in dimensions.items()}
                return replace(self, last=at, last_metered=at, plan=event, meters=fresh)
            case UsageMetered(dimension=name, quantity=quantity):
                meter = used(self.meters[name], quantity, at.time)
                return replace(self, last=at, last_metered=at, meters=self.meters | {name: meter})
            case HourBegan(local_time=now):
                return replace(closed(self, now), last=at, last_metered=at)
            case UsageSubmitted(usage=usage):
                rest = tuple(other for other in self.to_report if other != usage)
                return replace(self, last=at, last_metered=at, to_report=rest)
        return self


def used(meter: Meter, quantity: int, now: dt.datetime) -> Meter:
    if meter.beyond:
        return replace(meter, left=meter.left + quantity, used=meter.used + quantity, updated=now)
    if quantity <= meter.left:
        return replace(meter, left=meter.left - quantity, used=meter.used + quantity, updated=now)
    return Meter(quantity - meter.left, quantity - meter.left, True, now)


def closed(state: MeterPartition, now: dt.datetime) -> MeterPartition:
    """At the end of an hour what was used beyond the included is to be reported; at the end of a season all begins anew."""
    assert state.plan is not None
    years = int(state.plan.renewal.split("-")[0])
    renewed = state.plan.start.replace(year=state.plan.start.year + years)
    for name, meter in state.meters.items():
        of = state.plan.dimensions[name]
        if meter.beyond and meter.left:
            hour = meter.updated.replace(minute=0, second=0, microsecond=0)
            usage = Usage(state.plan.resource, hour, state.plan.plan, of.dimension, float(meter.left))
            state = replace(state, to_report=(*state.to_report, usage))
            meter = replace(meter, left=0, updated=now)
        if meter.updated < renewed <= now:
            meter = Meter(of.included, 0, False, now)
        state = replace(state, meters=state.meters | {name: meter})
    return state


def iso(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def placed(at: At) -> dict[str, str]:
    return {"partitionId": "0", "sequenceNumber": str(at.sequence), "partitionTimestamp": iso(at.time)}


def document(state: MeterPartition, times: list[dt.datetime]) -> dict[str, Any]:
    """The state as the billing engine writes it."""
    plan = state.plan
    assert plan is not None
    dimensions = {}
    for name, of in plan.dimensions.items():
        meter, at = state.meters[name], iso(state.meters[name].updated)
        counted = (
            {"consumed": {"consumedQuantity": meter.left, "total": meter.used, "lastUpdate": at}}
            if meter.beyond
            else {"included": {"quantity": meter.left, "consumed": meter.used, "lastUpdate": at}}
        )
        dimensions[name] = {"type": of.type, "meter": counted, "included": of.included, "dimension": of.dimension}
    subscription = {
        "resourceId": plan.resource, "subscriptionStart": iso(plan.start), "renewalInterval": plan.renewal,
        "plan": {"planId": plan.plan, "billingDimensions": dimensions},
    }  # fmt: skip
    to_report = [
        {
            "resourceId": u.resource,
            "effectiveStartTime": iso(u.start),
            "planId": u.plan,
            "dimension": u.dimension,
            "quantity": u.quantity,
        }
        for u in state.to_report
    ]
    junk = [
        {
            "position": placed(At(int(number), times[int(number)])),
            "event": {"type": "UnprocessableMessage", "value": {"type": "string", "value": text}},
        }
        for number, text in reversed(state.junk.items())
    ]
    meter = {"subscription": subscription, "usageToBeReported": to_report, "lastProcessedMessage": placed(state.last_metered)}
    return {"lastProcessedMessage": placed(state.last), "meters": [meter], "unprocessable": junk}


def billing_event(raw: bytes) -> BillingEvent:
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        message = json.loads(text)
    except ValueError:
        return JunkReceived(text)
    value = message["value"]
    match message["type"]:
        case "SubscriptionPurchased":
            bought = value["subscription"]
            dimensions = {name: BillingDimension(**of) for name, of in bought["plan"]["billingDimensions"].items()}
            start = dt.datetime.fromisoformat(bought["subscriptionStart"])
            return PlanPurchased(bought["resourceId"], start, bought["renewalInterval"], bought["plan"]["planId"], dimensions)
        case "UsageReported":
            return UsageMetered(value["resourceId"], value["meterName"], value["quantity"])
        case "Ping":
            return HourBegan(dt.datetime.fromisoformat(value["localTime"]))
        case "UsageSubmittedToAPI":
            done = value["result"]
            start = dt.datetime.fromisoformat(done["effectiveStartTime"])
            return UsageSubmitted(Usage(done["resourceId"], start, done["planId"], done["dimension"], done["quantity"]))
        case "RemoveUnprocessedMessages":
            return JunkRemoved(value.get("exactly"))
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("scenario", ["CleanUpUnprocessableMessages", "RefreshIncludedQuantities"])
def test_folding_billing_events_gives_the_known_state_at_every_step(real_data: Path, tmp_path: Path, scenario: str) -> None:
    folder = real_data / "metered-billing" / scenario
    files = sorted(folder.glob("*--event--*"))
    times = [dt.datetime.strptime(file.name[12:32], "%Y-%m-%d--%H-%M-%S").replace(tzinfo=UTC) for file in files]
    events = [billing_event(file.read_bytes()) for file in files]
    with el.open(tmp_path / "log") as lab, el.open(tmp_path / "copy") as copy:
        for event, time in zip(events, times, strict=True):
            lab.append("meter_partition-0", [event], occurred_at=time)
        # Written as files, one a type, and taken in again as imported history: the same states, now at times too.
        parts = []
        for kind in {type(event) for event in events}:
            path = lab.export(tmp_path / f"{kind.__name__}.jsonl", el.events(kind)).path
            parts.append(el.rows(kind, path, stream="meter_partition-{_id}", occurred_at="_occurred_at"))
        copy.ingest(parts, source=scenario, recorded_at="occurred_at")
        for number, time in enumerate(times):
            known = json.loads((folder / f"{number:03d}--state.json").read_text(encoding="utf-8-sig"))
            assert document(lab.at(position=number + 1).load(MeterPartition, "0"), times) == known
            assert document(copy.at(time).load(MeterPartition, "0"), times) == known
        assert lab.table(MeterPartition)["_version"].to_list() == [len(files)]
        assert Counter(e.type for e in copy.read()) == Counter(type(event).__name__ for event in events)

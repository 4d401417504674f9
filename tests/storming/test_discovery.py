"""What happens in a log, by brute force and by discovery; processes that are simulated, discovered and held to."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.display import html
from eventlab.display.mapping import HIGH, WIDE, map_svg
from eventlab.errors import InvalidName, InvalidValue, UnknownType, Unsupported
from eventlab.storming.process import Process

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
STEPS = ("KettleFilled", "KettleBoiled", "TeaPoured", "CupWashed")
FACTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STEPS), st.integers(0, 50)), max_size=25)


def told(lab: el.Lab, facts: list[tuple[str, str, int]]) -> None:
    """Facts in their order, each at its minute after noon, or as soon as the one before it."""
    frame = pl.DataFrame(facts, schema={"id": pl.String, "step": pl.String, "minute": pl.Int64}, orient="row")
    frame = frame.with_row_index("n").with_columns(
        at=pl.lit(NOON) + pl.duration(minutes=pl.col("minute").cum_sum()) + pl.duration(microseconds=pl.col("n"))
    )
    rows = [
        el.rows(str(step), part, stream="kettle-{id}", occurred_at="at", fields={"step": "step"})
        for (step,), part in frame.partition_by("step", as_dict=True).items()
    ]
    if rows:
        lab.ingest(rows, source="kitchen", recorded_at="occurred_at")


@given(FACTS, st.sampled_from([None, "step"]))
@settings(max_examples=60, deadline=None)
def test_the_map_and_the_variants_are_those_of_the_streams(facts: list[tuple[str, str, int]], step: str | None) -> None:
    with el.scratch() as lab:
        told(lab, facts)
        if step is not None and not facts:
            return
        found = lab.discover(step=step)
        # Brute force: each stream as a list.
        ways: dict[str, list[Any]] = defaultdict(list)
        for event in lab.read():
            ways[event.stream].append(event)
        pairs = [(a, b) for way in ways.values() for a, b in pairwise(way)]
        waits: dict[tuple[str, str], list[dt.timedelta]] = defaultdict(list)
        for a, b in pairs:
            waits[a.type, b.type].append(b.occurred_at - a.occurred_at)
        assert (found.events, found.streams) == (len(facts), len(ways))
        rows = {(row["step"], row["then"]): row for row in found.map.to_dicts()}
        assert {pair: row["count"] for pair, row in rows.items()} == Counter((a.type, b.type) for a, b in pairs)
        for pair, row in rows.items():
            assert row["first_wait"] == min(waits[pair])
            assert abs(row["median_wait"] - median(waits[pair])) <= dt.timedelta(microseconds=1)
            assert found.positions(*pair) == sorted(b.position for a, b in pairs if (a.type, b.type) == pair)
        taken = Counter(" → ".join(event.type for event in way) for way in ways.values())
        assert dict(found.variants.select("way", "streams").iter_rows()) == taken
        for number, way in enumerate(found.variants["way"]):
            mine = [stream for stream, of in ways.items() if " → ".join(event.type for event in of) == way]
            assert found.streams_of(number) == sorted(mine)
        assert dict(found.starts.iter_rows()) == Counter(way[0].type for way in ways.values())
        assert dict(found.ends.iter_rows()) == Counter(way[-1].type for way in ways.values())
        again = Counter(event.type for way in ways.values() for event in way)
        again.subtract(name for way in ways.values() for name in {event.type for event in way})
        assert dict(found.rework.select("step", "again").iter_rows()) == {name: n for name, n in again.items() if n}


def test_types_fields_and_causes(tmp_path: Path) -> None:
    @el.event(name="storming.LampSwitched")
    class LampSwitched:
        on: bool
        by: str | None = None

    @el.event(name="storming.MothCame")
    class MothCame:
        size: int

    with el.open(tmp_path / "log") as lab:
        lab.append("lamp-1", [LampSwitched(on=True, by="ann"), LampSwitched(on=False)])
        (first, _) = lab.read().list()
        with lab.context(causation_id=first.event_id):
            lab.append("moth-7", [MothCame(3)])
        found = lab.discover()
        assert found.fields.select("type", "field", "filled", "events").rows() == [
            ("storming.LampSwitched", "by", 1, 2), ("storming.LampSwitched", "on", 2, 2), ("storming.MothCame", "size", 1, 1),
        ]  # fmt: skip
        assert found.types.select("category", "type", "events", "first", "last").rows() == [
            ("lamp", "storming.LampSwitched", 2, 1, 2), ("moth", "storming.MothCame", 1, 3, 3),
        ]  # fmt: skip
        assert found.causes.select("of", "cause", "category", "type", "count", "across").rows() == [
            ("lamp", "storming.LampSwitched", "moth", "storming.MothCame", 1, 1)
        ]
        assert found.filled("storming.LampSwitched", "by") == [1]
        assert found.filled("storming.LampSwitched", "by", empty=True) == [2]
        assert found.caused("storming.MothCame", "storming.LampSwitched") == [3]
        with pytest.raises(UnknownType, match="LampSwitched was caused by something that is no event here"):
            found.caused("storming.LampSwitched")
        with pytest.raises(UnknownType, match=r"storming.MothCame has no field 'wings'"):
            found.filled("storming.MothCame", "wings")
        with pytest.raises(UnknownType, match="no event was given by a command 'Sing'"):
            found.given("Sing")
        # Of the moths alone the cause is no event.
        assert lab.discover(el.category("moth")).caused("storming.MothCame") == [3]
        assert lab.discover(el.category("moth")).events == 1
        with pytest.raises(UnknownType, match="no event has a field 'colour'"):
            lab.discover(step="colour")
        with pytest.raises(UnknownType, match="there is no step 'x'"):
            found.positions("x")
        with pytest.raises(InvalidValue, match="there is no variant 9"):
            found.streams_of(9)
        with pytest.raises(Unsupported, match="one tenant"), el.open(tmp_path / "log", tenant=el.ALL) as all_of_them:
            all_of_them.discover()


def test_a_drawing_says_what_it_hides_and_names_are_text() -> None:
    facts = [("a", f"Step{n:02}", 1) for n in range(30)] + [("b", "Step00", 1)]
    with el.scratch() as lab:
        told(lab, facts)
        drawn = lab.discover().mermaid(nodes=5)
        assert drawn.count("<br/>") == 5
        assert "25 more steps, 25 events, not drawn" in drawn
        assert 'n0["Step00<br/>2"]' in drawn
        hostile = '"]; click n0 "javascript:alert(1)'
        frame = pl.DataFrame({"id": ["1"], "step": [hostile]})
        lab.ingest(el.rows("Drawn", frame, stream="drawn-{id}", fields={"step": "step"}), source="drawn")
        found = lab.discover(el.category("drawn"), step="step")
        assert hostile not in found.mermaid()
        ElementTree.fromstring(map_svg(found))
        assert "<script" not in html.discovery_html(found)
        assert re.search(r"what follows on what", html.discovery_html(lab.discover()))


@given(FACTS, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_picture_counts_what_it_draws_and_what_it_hides(facts: list[tuple[str, str, int]], nodes: int) -> None:
    with el.scratch() as lab:
        told(lab, facts)
        found = lab.discover()
    drawn = map_svg(found, nodes)
    tree = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [(float(box.get("x", 0)), float(box.get("y", 0))) for box in tree.iter(f"{space}rect")]
    assert len(boxes) == len(set(boxes)) == min(nodes, len(found.steps))
    assert all(abs(a - x) >= WIDE or abs(b - y) >= HIGH for at, (a, b) in enumerate(boxes) for x, y in boxes[:at])
    width, height = (float(tree.get(of, 0)) for of in ("width", "height"))
    for path in tree.iter(f"{space}path"):
        numbers = [float(of) for of in re.findall(r"-?\d+", path.get("d", ""))]
        assert min(numbers) >= 0
        assert max(numbers) <= max(width, height)
    lines = [line for line in tree.iter(f"{space}path") if line.get("marker-end")]
    said = re.search(r"(\d+) moves?, made ([\d,]+) times", drawn)
    assert len(lines) + (int(said[1]) if said else 0) == len(found.map)
    counts = [int((text.text or "").replace(",", "")) for text in tree.findall(f"{space}text") if (text.text or "").isdecimal()]
    assert sum(counts) + (int(said[2].replace(",", "")) if said else 0) == found.map["count"].sum()
    # As Mermaid and as picture the same events are hidden.
    rest = re.search(r"steps? of (\d+) events?", drawn)
    assert (int(rest[1]) if rest else 0) == found.events - sum(found.steps["events"].head(nodes))


# -- the logs that nobody here wrote


@pytest.mark.parametrize(
    ("file", "case", "activity", "at", "events", "streams", "steps", "variants", "top"),
    [
        ("receipt/receipt.csv", "case:concept:name", "concept:name", "time:timestamp", 8_577, 1_434, 27, 116, 713),
        ("helpdesk/helpdesk_best.csv", "Case ID", "Activity", "Complete Timestamp", 21_348, 4_580, 14, 226, None),
        ("running-example/running-example.csv", "case:concept:name", "concept:name", "time:timestamp", 42, 6, 8, None, None),
    ],
)
def test_known_logs_have_their_known_numbers(
    real_data: Path, file: str, case: str, activity: str, at: str, events: int, streams: int, steps: int, variants: int | None,
    top: int | None,
) -> None:  # fmt: skip
    rows = el.rows(
        "StepTaken", real_data / file, stream="known_case-{" + case + "}", occurred_at=at, tz="UTC", fields={"activity": activity}
    )
    with el.scratch() as lab:
        lab.ingest(rows, source="known", recorded_at="occurred_at")
        found = lab.discover(step="activity")
        numbers = [found.events, found.streams, len(set(found._rows["step"]))]
        assert numbers == [events, streams, steps]
        assert variants in (None, len(found.variants))
        assert top in (None, found.variants["streams"][0])
        assert found.map["count"].sum() == events - streams
        # What is discovered is held to by the log it came from, and by nothing that happens otherwise.
        held = lab.conform(Process.of(found), step="activity")
        assert held.ok
        assert held.fitness == held.coverage == 1


# -- processes


def processes() -> st.SearchStrategy[Process]:
    """Processes whose every step can be reached, and comes to an end."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Process:
        names = draw(st.lists(st.sampled_from(["Asked", "Given", "Taken", "Lost", "Found"]), min_size=1, unique=True))
        share = st.floats(0.2, 1.0)
        moves = [el.Move("", names[0], 1.0, 0.0)]
        for at, name in enumerate(names):
            others = draw(st.sets(st.sampled_from(names), max_size=2))
            following = others | ({names[at + 1]} if at + 1 < len(names) else set())
            moves += [el.Move(name, then, draw(share), draw(st.sampled_from([0.0, 60.0]))) for then in sorted(following)]
            moves.append(el.Move(name, "", draw(share), 0.0))
        return Process("errand", tuple(moves))

    return drawn()


def happened(lab: el.Lab, process: Process, streams: int, seed: int) -> None:
    log = process.simulate(streams, seed=seed)
    assert log["at"].is_sorted()
    rows = [
        el.rows(f"Errand{step}", part, stream=process.category + "-{id}", occurred_at="at", fields={"step": "step"})
        for (step,), part in log.partition_by("step", as_dict=True).items()
    ]
    lab.ingest(rows, source="made", recorded_at="occurred_at")


@given(processes(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_what_is_simulated_is_discovered_and_every_change_of_the_process_is_a_deviation(process: Process, seed: int) -> None:
    assert Process.read(process.text()) == process
    with el.scratch() as lab:
        happened(lab, process, 60, seed)
        seen = Process.of(lab.discover(step="step"))
        assert {(m.step, m.then) for m in seen.moves} <= {(m.step, m.then) for m in process.moves}
        held = lab.conform(process, step="step")
        assert held.fitness == 1
        assert set(held.deviations["kind"]) <= {"never happened"}
        assert lab.conform(seen, step="step").ok
        # Each move that is taken out is the one deviation, with its events; one that is added never happened.
        for move in seen.moves:
            less = replace(seen, moves=tuple(m for m in seen.moves if m != move))
            found = lab.conform(less, step="step")
            if not any(move.then in (m.step, m.then) for m in less.moves if move.then):
                assert "unknown step" in set(found.deviations["kind"]) or move.then == ""
                continue
            if move.step and not any(move.step in (m.step, m.then) for m in less.moves):
                continue
            (row,) = found.deviations.to_dicts()
            assert (row["step"], row["then"]) == (move.step, move.then)
            kind = "start" if not move.step else "end" if not move.then else "move"
            assert row["kind"] == f"undesigned {kind}"
            assert row["count"] > 0
            assert found.fitness < 1
            assert found.coverage == 1
        extra = el.Move("Errand", "Never")
        (row,) = lab.conform(replace(seen, moves=(*seen.moves, extra)), step="step").deviations.to_dicts()
        assert (row["kind"], row["step"], row["then"], row["count"]) == ("never happened", "Errand", "Never", 0)


def test_a_simulation_is_the_same_for_a_seed_and_has_the_shares_of_its_process() -> None:
    process = Process("toss", (
        el.Move("", "Tossed", 1.0, 0.0), el.Move("Tossed", "Heads", 0.25, 600.0), el.Move("Tossed", "Tails", 0.75, 60.0),
        el.Move("Heads", ""), el.Move("Tails", ""),
    ))  # fmt: skip
    log = process.simulate(8_000, seed=3)
    assert log.equals(process.simulate(8_000, seed=3))
    assert not log.equals(process.simulate(8_000, seed=4))
    counts = Counter(log["step"])
    assert counts["Tossed"] == 8_000
    assert abs(counts["Heads"] / 8_000 - 0.25) < 0.02
    begun = log.filter(pl.col("step") == "Tossed").select("id", begun="at")
    waits = log.filter(pl.col("step") == "Heads").join(begun, on="id").select(pl.col("at") - pl.col("begun"))
    assert abs(waits.to_series().dt.total_seconds().mean() - 600) < 60  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("moves = [", "this is no TOML"),
        ('category = "a"', "KeyError"),
        ('category = "a"\nmoves = [["", "B"]]', "not enough values"),
        ('category = "a"\nmoves = [["", "B", 0.0, 1.0]]', "a share is above 0"),
        ('category = "a"\nmoves = [["", "B", 1, 1], ["", "B", 1, 1]]', "the move begin → B is there twice"),
        ('category = "a"\nmoves = [["", "", 1, 1]]', "has no step"),
    ],
)
def test_a_file_that_is_no_process_says_why(text: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(said)):
        Process.read(text)
    with pytest.raises(InvalidName):
        Process("not a category", ())
    with pytest.raises(InvalidValue, match="has no beginning"):
        Process("a", (el.Move("B", "C"),)).simulate(1)
    with el.scratch() as lab, pytest.raises(InvalidValue, match="nothing happened"):
        Process.of(lab.discover())


def test_the_shell_discovers_saves_and_holds_a_log_to_it(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        told(lab, [("a", "KettleFilled", 0), ("a", "KettleBoiled", 5), ("b", "KettleFilled", 1), ("b", "KettleBoiled", 4)])

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "eventlab"
        return subprocess.run([program, *arguments, "--store", "log"], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = shell("discover", "--save", "kettle.toml", "--json")
    assert json.loads(done.stdout)["streams"] == 2, done.stderr
    assert "flowchart LR" in shell("discover", "--mermaid").stdout
    assert "2 streams: 2 steps, 1 variant" in shell("discover").stdout
    assert shell("conform", "kettle.toml").returncode == 0
    with el.open(tmp_path / "log", maintain=False) as lab:
        frame = pl.DataFrame({"id": ["c"], "step": ["x"]})
        lab.ingest(el.rows("CupBroken", frame, stream="kettle-{id}", fields={"step": "step"}), source="more")
    done = shell("conform", "kettle.toml", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert [(d["kind"], d["step"], d["first"]) for d in answer["deviations"]] == [("unknown step", "CupBroken", 5)]
    assert round(answer["fitness"], 3) == 0.667
    assert shell("conform", "kettle.toml", "--fail-under", "fitness=0.6").returncode == 0
    assert shell("conform", "kettle.toml", "--fail-under", "fitness=0.7").returncode == 1
    assert "is no limit" in shell("conform", "kettle.toml", "--fail-under", "speed=1").stderr
    assert "cannot be read" in shell("conform", "nothing.toml").stderr


def test_fields_that_are_filled_less_and_less_are_seen() -> None:
    frame = pl.DataFrame({"id": [f"{n}" for n in range(40)], "at": [NOON + dt.timedelta(minutes=n) for n in range(40)],
                          "note": [None if n >= 20 and n % 2 else "x" for n in range(40)], "size": list(range(40))})  # fmt: skip
    with el.scratch() as lab:
        lab.ingest(el.rows("CupFilled", frame, stream="cup-{id}", occurred_at="at"), source="cups", recorded_at="occurred_at")
        fields = {row["field"]: row for row in lab.discover().fields.to_dicts()}
    assert (fields["note"]["rate"], fields["note"]["early"], fields["note"]["late"]) == (0.75, 1.0, 0.5)
    assert fields["note"]["drift"] == -0.5
    assert (fields["size"]["rate"], fields["size"]["drift"]) == (1.0, 0.0)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_commands_that_were_handled_under_an_id_are_seen_and_stand_on_the_board(where: str, tmp_path: Path) -> None:
    from eventlab.domains.banking import Account, AccountOpened, Deposit, OpenAccount

    with el.scratch() if where == "memory" else el.open(tmp_path / "bank", maintain=False) as lab:
        for number in range(3):
            lab.handle(Account, f"{number}", OpenAccount("Ann"), command_id=f"open-{number}")
            lab.handle(Account, f"{number}", Deposit(el.money(5)), command_id=f"pay-{number}")
        lab.handle(Account, "1", Deposit(el.money(7)))
        lab.append("account-9", [AccountOpened("Bob", el.money(0))])
        found = lab.discover()
        assert found.commands.select("command", "type", "count").rows() == [
            ("Deposit", "MoneyDeposited", 3), ("OpenAccount", "AccountOpened", 3),
        ]  # fmt: skip
        assert found.given("Deposit") == [2, 4, 6] == found.given("Deposit", "MoneyDeposited")
        assert found.given("Deposit", "AccountOpened") == []
        board = lab.board("seen")
        assert [of.name for of in board.after("OpenAccount", "event")] == ["AccountOpened"]
        assert lab.conform(board).deviations["kind"].unique().to_list() == ["event without cause"]
        lab.seal()
        assert lab.discover().commands.equals(found.commands)

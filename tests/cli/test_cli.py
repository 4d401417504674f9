"""The command line: real processes, their output, their exit codes, and what a stranger reads when something is wrong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import eventlab as el

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMANDS = (
    "demo", "info", "show", "events", "rebuild", "accept", "run", "status", "parked", "table", "explain", "sql", "check",
    "replay-diff", "goldens", "discover", "conform", "board", "docs", "schema", "lint", "snapshots", "verify", "seal", "compact",
    "gc", "backup", "restore", "upgrade", "lab",
)  # fmt: skip
#: Runs command lines as they come, one after the other: each one's exit code, output and errors as a line of JSON.
WORKER = """
import contextlib, io, json, sys, traceback
from eventlab.cli import main
for line in sys.stdin:
    arguments, out, error = json.loads(line), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
            code = 1
    print(json.dumps([code, out.getvalue(), error.getvalue()]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Shell:
    """Runs command lines: one in a process of its own, or many in one process, whose start takes most of the time.

    A command that names no store gets the one of these tests.
    """

    store: Path
    worker: subprocess.Popen[str]

    def __call__(self, *arguments: str, stdin: str = "", at: Path | None = None) -> Done:
        command = [sys.executable, "-m", "eventlab.cli", *self._whole(arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=at or HERE, timeout=60, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def many(self, *commands: Sequence[str]) -> list[Done]:
        return [self._next(arguments) for arguments in commands]

    def _next(self, arguments: Sequence[str]) -> Done:
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        print(json.dumps(self._whole(arguments)), file=self.worker.stdin, flush=True)
        too_late = threading.Timer(60, self.worker.kill)
        too_late.start()
        line = self.worker.stdout.readline()
        too_late.cancel()
        assert line, f"{arguments} ended the process"
        return Done(*json.loads(line))

    def _whole(self, arguments: Sequence[str]) -> list[str]:
        own = not arguments or "--store" in arguments or arguments[-1] == "--help" or arguments[0] not in COMMANDS
        return [*arguments[:1], *(() if own else ("--store", str(self.store))), *arguments[1:]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three orders: seven events, the first four sealed."""
    sys.path.insert(0, str(HERE))
    import shop

    path = tmp_path_factory.mktemp("cli") / "shop"
    with el.open(path) as lab:
        for i in (1, 2):
            lab.append(f"order-{i}", [shop.ItemAdded("hat", i, el.money("9.50")), shop.OrderPlaced(f"c{i}")])
        lab.seal()
        lab.append("order-3", [shop.ItemAdded("[bold]coat[/bold] :hat:", 1, el.money("120.00"))], tags=["vip"])
        lab.append("order-1", [shop.ItemAdded("sock", 10, el.money("1.00")), shop.ItemAdded("tie", 1, el.money("5.00"))])
    return path


@pytest.fixture(scope="module")
def store(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for those who only read, or make read models."""
    path = tmp_path_factory.mktemp("shared") / "shop"
    shutil.copytree(original, path)
    return path


@pytest.fixture(scope="module")
def run(store: Path) -> Iterator[Shell]:
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE) as worker:
        yield Shell(store, worker)


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(original, tmp_path / "shop")
    return tmp_path / "shop"


def answer(done: Done) -> dict[str, Any]:
    """The one JSON object that --json prints, and nothing else."""
    assert len(done.stdout.splitlines()) == 1, done
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


# -- the command line ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helps(run: Shell) -> dict[str, Done]:
    return dict(zip(COMMANDS, run.many(*([command, "--help"] for command in COMMANDS)), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(helps: dict[str, Done], command: str) -> None:
    assert helps[command].returncode == 0
    assert f"example:\n  eventlab {command}" in helps[command].stdout
    assert "--json" in helps[command].stdout


def test_no_command_or_a_wrong_one_shows_the_commands(run: Shell) -> None:
    nothing, wrong = run.many([], ["frobnicate"])
    assert nothing.returncode == 2
    assert wrong.returncode == 2
    assert all(command in wrong.stderr for command in COMMANDS)


def test_the_readme_names_every_command() -> None:
    (listed,) = re.findall(r"^The same from a shell: `eventlab ([^`]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert tuple(re.split(r" \| ", listed)) == COMMANDS


# -- looking at events -----------------------------------------------------------------------------------------------------


def test_events_shows_events_in_order_and_payload_text_is_only_text(run: Shell) -> None:
    done = run("events")
    assert done.returncode == 0
    assert re.findall(r"order-\d", done.stdout) == ["order-1"] * 2 + ["order-2"] * 2 + ["order-3"] + ["order-1"] * 2
    assert "[bold]coat[/bold] :hat:" in done.stdout


def test_events_picks_by_type_stream_tag_and_position(run: Shell) -> None:
    expected = {
        ("--type", "OrderPlaced"): [2, 4],
        ("--stream", "order-1", "--type", "ItemAdded"): [1, 6, 7],
        ("--tag", "customer:c2"): [4],
        ("--tag", "vip"): [5],
        ("--category", "order", "--after", "3", "--until", "6"): [4, 5, 6],
        ("--limit", "2"): [1, 2],
        ("--position", "3"): [1, 2, 3],
    }
    found = run.many(*(("events", "--json", *arguments) for arguments in expected))
    assert [[event["position"] for event in answer(one)["events"]] for one in found] == list(expected.values())
    # Without the classes the payloads are seen all the same.
    assert answer(found[-1])["events"][0]["data"] == {"sku": "hat", "quantity": 1, "unit_price": "9.50"}


def test_numbers_that_json_does_not_have_are_null(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "gauge.py").write_text(
        "import eventlab as el\n@el.event\nclass Measured:\n    value: el.AnyFloat\n    more: list[el.AnyFloat]\n"
        "with el.open('gauge') as lab:\n    lab.append('gauge-1', [Measured(float('nan'), [1.5, float('-inf')])])\n"
    )
    subprocess.run([sys.executable, "gauge.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    gauge = ("--store", str(tmp_path / "gauge"), "--json")
    query = "select value from types.measured"
    listed, shown, asked = run.many(("events", *gauge), ("show", *gauge, "1"), ("sql", *gauge, query))
    assert answer(listed)["events"][0]["data"] == {"value": None, "more": [1.5, None]}
    assert [field["value"] for field in answer(shown)["payload"]] == [None, [1.5, None]]
    assert answer(asked)["rows"] == [{"value": None}]


def test_table_and_sql_give_the_same_answer(run: Shell) -> None:
    whole, asked, before = run.many(
        ("table", "Order", "--models", "shop", "--json"),
        ("sql", "--models", "shop", "--json", "select * from state.order order by _id"),
        ("table", "shop:Order", "--position", "1", "--json"),
    )
    rows = answer(whole)["rows"]
    assert [(r["_id"], r["status"], r["total"], r["_version"]) for r in rows] == [
        ("1", "placed", "24.50", 4),
        ("2", "placed", "19.00", 2),
        ("3", "draft", "120.00", 1),
    ]
    assert answer(asked)["rows"] == rows
    assert answer(before)["rows"] == [{"_id": "1", "status": "draft", "total": "9.50", "_version": 1, "_position": 1}]
    assert answer(run("sql", "--json", "-", stdin="select count(*) as n from events.log"))["rows"] == [{"n": 7}]


def test_explain_says_how_a_model_is_folded_and_gives_the_query_and_the_loop(run: Shell) -> None:
    model = ("explain", "Order", "--models", "shop")
    plan, sql, loop, both, plain = run.many(
        model, (*model, "--sql"), (*model, "--loop"), (*model, "--sql", "--loop"), (*model, "--json")
    )
    assert plan.stdout.splitlines() == [
        "Order: lifted, 2 of 2 fields lift (ItemAdded, OrderPlaced)",
        "  status  LAST    stratum 0  lifted",
        "  total   SUM     stratum 0  lifted",
        "  guard: ItemAdded, shop.py:35: a result beyond what is exact",
    ]
    assert sql.stdout.startswith("WITH e AS (")
    assert "read_parquet" in sql.stdout
    assert compile(loop.stdout, "loop", "exec")
    assert both.stdout == sql.stdout + loop.stdout
    found = answer(plain)
    assert (found["model"], found["engine"], found["sql"] + "\n") == ("Order", "lifted", sql.stdout)
    assert [field["kind"] for field in found["fields"]] == ["LAST", "SUM"]


def test_explain_names_the_line_that_does_not_lift(run: Shell) -> None:
    model = ("explain", "basket:Basket")
    plan, sql = run.many(model, (*model, "--sql"))
    assert plan.stdout.startswith("Basket: rows, 0 of 1 fields lift (BasketFilled)\n  basket.py:")
    assert "      for _ in range(event.quantity):\n" in plan.stdout
    assert "what would lift it: " in plan.stdout
    assert (sql.returncode, sql.stdout) == (3, "")
    assert sql.stderr.startswith("NotLiftable: there is no query that folds Basket: ")
    assert "Hint: without --sql it says more" in sql.stderr


def test_sql_takes_parameters_and_a_moment(run: Shell) -> None:
    query = "select sku from types.item_added where quantity >= $least::int order by _position"
    given = ("sql", "--json", "--param", "least=2")
    today, before = run.many((*given, query), (*given, "--position", "5", query))
    assert answer(today)["rows"] == [{"sku": "hat"}, {"sku": "sock"}]
    assert answer(before)["rows"] == [{"sku": "hat"}]


def test_rebuild_makes_read_models_that_sql_finds_without_the_code(run: Shell) -> None:
    made, moved = run.many(("rebuild", "--models", "shop", "--json"), ("rebuild", "--models", "shop", "--catch-up", "--json"))
    assert made.returncode == 0
    assert answer(made)["rebuilt"][0]["rows"] == 3
    assert answer(moved)["rebuilt"][0]["events"] == 0
    assert answer(run("sql", "--json", "select count(*) as n from state.order"))["rows"] == [{"n": 3}]


def test_run_status_parked_and_accept_from_a_shell(run: Shell) -> None:
    ran, status, parked, text, accepted = run.many(
        ("run", "--models", "shop", "--once", "--json"), ("status", "--json"), ("parked", "--json"), ("parked",),
        ("accept", "Order", "--models", "shop", "--json"),
    )  # fmt: skip
    assert [done.returncode for done in (ran, status, parked, text, accepted)] == [0] * 5
    (row,) = answer(status)["rows"]
    assert (row["name"], row["state"], row["lag"], row["rows"], row["parked"]) == ("order", "accepted", 0, 3, 0)
    assert answer(parked)["rows"] == []
    assert "nothing stopped" in text.stdout
    print_ = answer(accepted)["accepted"][0]["fingerprint"]
    assert print_ == row["fingerprint"]
    again = run("accept", "order", "--fingerprint", print_[:6])
    assert f"state.order stands for {print_[:8]} from here on" in again.stdout


def test_models_can_be_named_in_pyproject(run: Shell, store: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.eventlab]\nmodels = ["shop"]\n')
    (tmp_path / "shop.py").write_text((HERE / "shop.py").read_text())
    assert len(answer(run("table", "Order", "--json", at=tmp_path))["rows"]) == 3


def test_check_says_no_divergence_and_exits_with_0(run: Shell) -> None:
    done = run("check", "--models", "shop", "--json")
    assert done.returncode == 0
    found = answer(done)
    assert found["ok"] is True
    assert found["reports"][0]["events"] == 7


# -- schemas and snapshots -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parcels of the first version."""
    sys.path.insert(0, str(HERE))
    import parcels

    path = tmp_path_factory.mktemp("cli") / "parcels"
    with el.open(path, maintain=False) as lab:
        lab.append("cli_parcel-1", [parcels.Posted("Bern", weight) for weight in (5, 6, 7)])
    return path


def schema_verbs(path: Path, version: str, monkeypatch: pytest.MonkeyPatch, *commands: Sequence[str]) -> list[Done]:
    """Schema commands in one process, whose class is of this version."""
    monkeypatch.setenv("PARCELS", version)
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE) as worker:
        shell = Shell(path, worker)
        return shell.many(*(("schema", *of, "--models", "parcels") for of in commands))


def test_schema_commands_pass_where_every_version_can_be_read(posted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, dry, whole, json_ = schema_verbs(
        posted, "first", monkeypatch, ("check", "--strict"), ("dry-run", "--strict"), ("dry-run", "--json"), ("json",)
    )
    assert (check.returncode, check.stdout) == (0, "every stored version can be read\n")
    assert (dry.returncode, whole.returncode, json_.returncode) == (0, 0, 0)
    (row,) = answer(whole)["rows"]
    assert (row["version"], row["rows"], row["failed"], row["new_nulls"], row["lost"]) == (1, 3, 0, 0, 0)
    assert answer(json_)["cli.ParcelPosted"]["required"] == ["town", "weight"]
    assert [done.stderr for done in (check, dry, whole, json_)] == [""] * 4


def test_a_rename_with_a_default_is_a_question_and_its_loss_is_counted(posted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, strict, dry, dry_strict, diff = schema_verbs(
        posted, "renamed", monkeypatch, ("check",), ("check", "--strict"), ("dry-run",), ("dry-run", "--strict"),
        ("diff", "cli.ParcelPosted", "--old", "1"),
    )  # fmt: skip
    assert (check.returncode, strict.returncode) == (0, 1)
    assert "question: cli.ParcelPosted version 1: was weight renamed to grams?" in check.stdout
    assert "if so, @el.upcast(ParcelPosted, from_version=1) gives grams=old.weight" in check.stdout
    assert (dry.returncode, dry_strict.returncode) == (0, 1)
    assert "weight is lost in 3 events: here it was 5, and ParcelPosted has no such field today" in dry.stdout
    assert "3 values are newly None or lost" in dry.stdout
    assert (diff.returncode, diff.stdout) == (1, "weight: is gone (breaks)\ngrams: is new, and may be left out\n")


def test_a_chain_with_a_gap_fails_in_check_and_dry_run(posted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, said, dry, unknown = schema_verbs(
        posted, "gap", monkeypatch, ("check",), ("check", "--json"), ("dry-run",), ("json", "cli.ParcelLost")
    )
    assert (check.returncode, said.returncode, dry.returncode, unknown.returncode) == (1, 1, 1, 3)
    (error,) = json.loads(said.stdout)
    assert (error["kind"], error["version"]) == ("error", 1)
    assert error["hint"] == "there is no step from version 2: @el.upcast(ParcelPosted, from_version=2)"
    assert "stored as version 1, failed after the step from version 1" in dry.stdout
    assert "no event class is stored as 'cli.ParcelLost'" in unknown.stderr


def test_only_commands_that_do_not_report_it_themselves_warn_of_what_cannot_be_read(
    posted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = schema_verbs(posted, "broken", monkeypatch, ("check",))
    assert (check.returncode, check.stderr) == (1, "")
    command = [sys.executable, "-m", "eventlab.cli", "events", "--models", "parcels", "--store", str(posted)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, timeout=60, check=False)
    assert done.returncode == 3
    assert "warning: cli.ParcelPosted version 1 does not fit the code here: cli.ParcelPosted.grams is not in" in done.stderr


def test_snapshots_are_proved_and_one_that_is_wrong_is_found(run: Shell, copied: Path) -> None:
    import shop

    from eventlab.store.base import checksum, pack, unpack

    store = ("--store", str(copied))
    (none,) = run.many(("snapshots", "prove", "--models", "shop", *store))
    assert (none.returncode, none.stdout) == (0, "there are no snapshots\n")
    with el.open(copied, maintain=False, snapshots=el.SnapshotPolicy(every=1)) as lab:
        lab.load(shop.Order, "1")
    (equal,) = run.many(("snapshots", "prove", "--models", "shop", "--json", *store))
    assert equal.returncode == 0
    assert [row["verdict"] for row in answer(equal)["rows"]] == ["equal"]
    with contextlib.closing(sqlite3.connect(copied / "catalog.sqlite", isolation_level=None)) as catalog:
        columns = "tenant, stream, model, fingerprint, version, position, state"
        *key, state = catalog.execute(f"SELECT {columns} FROM snapshot").fetchone()
        wrong = pack(["planted", *unpack(state)[1:]])
        catalog.execute("UPDATE snapshot SET state = ?, checksum = ?", (wrong, checksum(*key, wrong)))
    text, said, drop, after = run.many(
        ("snapshots", "prove", "--models", "shop", *store), ("snapshots", "prove", "--models", "shop", "--json", *store),
        ("snapshots", "drop", *store), ("snapshots", "prove", "--models", "shop", *store),
    )  # fmt: skip
    assert (text.returncode, said.returncode) == (1, 1)
    (row,) = answer(said)["rows"]
    assert (row["stream"], row["verdict"]) == ("order-1", "differs")
    assert "differs" in text.stdout
    assert (drop.returncode, drop.stdout) == (0, "1 snapshot dropped\n")
    assert after.returncode == 0


# -- looking after a store -------------------------------------------------------------------------------------------------


def test_info_and_verify_know_the_store(run: Shell) -> None:
    told, looked, text, quick = run.many(("info", "--json"), ("verify", "--full", "--json"), ("info",), ("verify",))
    found = answer(told)
    assert (found["events"], found["sealed"], found["hot"]) == (7, 4, 3)
    assert [(level["level"], level["events"]) for level in found["levels"]] == [("hot", 3), ("level 0", 4), ("eras", 0)]
    assert (looked.returncode, quick.returncode) == (0, 0)
    assert "7 events (4 sealed, 3 hot)" in text.stdout
    assert answer(looked)["ok"] is True


def test_show_prints_events_streams_segments_and_the_catalog(run: Shell) -> None:
    looks = (("1",), ("5",), ("--stream", "order-1"), ("--segment", "1"), ("--catalog",), ("--catalog", "stream_head"))
    texts = run.many(*(("show", *look) for look in looks))
    assert [done.returncode for done in texts] == [0] * len(looks)
    sealed, hot, stream, segment, catalog, table = (done.stdout for done in texts)
    assert "event 1: ItemAdded, version 1 of order-1" in sealed
    assert re.search(r"where +segment 1 \(level 0, positions 1 to 4 in order\), row group 0, row 0", sealed)
    assert re.search(r"unit_price +Decimal\(18, 2\) +Decimal\('9.50'\)", sealed)
    assert re.search(r"where +hot: a row of catalog.sqlite", hot)
    assert "'[bold]coat[/bold] :hat:'" in hot
    assert re.search(r"1 to 2 +2 +1 to 2 +as it was written +segment 1", stream)
    assert re.search(r"3 to 4 +2 +6 to 7 +as it was written +hot", stream)
    assert "level 0, positions 1 to 4 in order" in segment
    assert re.search(r"^stream_head +3 +streams", catalog, re.MULTILINE)
    assert "table stream_head: 3 of 3 rows" in table
    found = [answer(done) for done in run.many(*(("show", "--json", *look) for look in looks))]
    assert found[0]["envelope"]["stream"] == "order-1"
    assert {field["name"]: field["value"] for field in found[0]["payload"]} == {"sku": "hat", "quantity": 1, "unit_price": "9.50"}
    assert [part["versions"] for part in found[2]["streams"][0]["parts"]] == [[1, 2], [3, 4]]
    assert found[3]["rows"] == 4
    assert found[4]["log"]["head"] == 7
    assert found[5]["total"] == 3


def test_damage_is_found_by_verify_and_named_by_show_which_shows_the_rest(run: Shell, copied: Path) -> None:
    (segment,) = (copied / "segments").rglob("*.parquet")
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes(bytes(raw))
    there = ("--store", str(copied))
    looked, sealed, hot, stream, file = run.many(
        ("verify", *there),
        ("show", *there, "1"),
        ("show", *there, "5"),
        ("show", *there, "--stream", "order-1"),
        ("show", *there, "--segment", "1"),
    )
    assert [done.returncode for done in (looked, sealed, hot, stream, file)] == [1, 1, 0, 1, 1]
    for done in (looked, sealed, stream, file):
        assert segment.name in done.stdout
        assert done.stderr == ""
    assert "in a segment that cannot be read: 1" in sealed.stdout
    assert "cannot be read: it is not as it was written" in stream.stdout
    assert re.search(r"3 to 4 +2 +6 to 7 +as it was written +hot", stream.stdout)


def test_a_catalog_that_is_no_database_any_more_is_an_error_with_a_message(run: Shell, copied: Path) -> None:
    catalog = copied / "catalog.sqlite"
    whole = catalog.read_bytes()
    there = ("--store", str(copied))
    commands = [("show", *there, "--catalog"), ("info", *there), ("verify", *there), ("upgrade", *there), ("seal", *there)]
    broken = (
        b"not a database at all" * 500,
        whole[:100] + bytes(len(whole) - 100),
        whole[: len(whole) // 2],
        whole.replace(b"CREATE TABLE log", b"CREATE TABL\xff log"),
    )
    assert whole not in broken
    for raw in broken:
        catalog.write_bytes(raw)
        for done in run.many(*commands):
            assert "Traceback" not in done.stderr, done
            assert done.returncode in (0, 1, 4)
            assert done.stdout or re.match(r"\w+: ", done.stderr)


def test_seal_compact_and_gc_say_what_they_did_and_what_is_left(run: Shell, copied: Path) -> None:
    there = ("--store", str(copied))
    due, sealed, again, compacted, kept, swept, look, bye = run.many(
        ("compact", *there),
        ("seal", *there, "--json"),
        ("seal", *there),
        ("compact", *there, "--all", "--json"),
        ("gc", *there),
        ("gc", *there, "--grace", "0", "--json"),
        ("verify", *there, "--full", "--json"),
        ("compact", *there, "--all"),
    )
    assert "there was nothing due" in due.stdout
    assert "hot: 3 events; eventlab seal comes first for them" in due.stdout
    assert answer(sealed) == {"sealed": 3, "events": 7, "sealed_to": 7, "hot": 0}
    assert again.stdout == "there was nothing to seal; 7 of 7 events are in segments\n"
    assert answer(compacted) == {
        "eras": 1, "merged": 0, "events": 7, "files_before": 2, "files_after": 1, "not_sorted": 0, "hot": 0
    }  # fmt: skip
    assert kept.stdout.startswith("0 files deleted, 0 B\nreplaced: 2 files, kept for 900 s")
    assert (answer(swept)["files"], answer(swept)["retired"]) == (2, 0)
    assert answer(look)["findings"] == []
    assert bye.stdout == "there was nothing to compact\n"
    assert len(list((copied / "segments").rglob("*.parquet"))) == 1


def test_a_store_that_another_process_maintains_says_to_try_again(run: Shell, copied: Path) -> None:
    with (copied / "maintain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for done in run.many(*((name, "--store", str(copied)) for name in ("seal", "compact"))):
            assert done.returncode == 5
            assert "Busy: another process is sealing or compacting" in done.stderr
    assert run("seal", "--store", str(copied)).stdout == "3 events sealed; 7 of 7 events are in segments\n"


def test_a_backup_is_restored_to_the_same_events(run: Shell, copied: Path, tmp_path: Path) -> None:
    to, again = str(tmp_path / "monday"), str(tmp_path / "again")
    made, twice, back, twice_back, events, same, raw = run.many(
        ("backup", "--store", str(copied), "--to", to, "--json"),
        ("backup", "--store", str(copied), "--to", to),
        ("restore", "--from", to, "--store", again),
        ("restore", "--from", to, "--store", again),
        ("events", "--store", str(copied), "--json"),
        ("events", "--store", again, "--json"),
        ("backup", "--store", str(copied), "--to", str(tmp_path / "monday" / "catalog.sqlite" / "x")),
    )
    assert (made.returncode, answer(made)["events"], answer(made)["path"]) == (0, 7, to)
    assert back.stdout.startswith("7 events, 1 segment, ")
    assert answer(same) == answer(events)
    for refused in (twice, twice_back):
        assert refused.returncode == 4
        assert "is there already, and a backup never writes over anything" in refused.stderr
    assert raw.returncode == 4
    assert "Traceback" not in raw.stderr


def test_a_damaged_backup_is_not_restored(run: Shell, copied: Path, tmp_path: Path) -> None:
    segment = next((copied / "segments").rglob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:-1])
    done, onto = run.many(
        ("restore", "--from", str(copied), "--store", str(tmp_path / "new")),
        ("backup", "--store", str(copied), "--to", str(tmp_path / "copy")),
    )
    assert (done.returncode, onto.returncode) == (4, 4)
    assert f"the backup in {copied} is damaged: segment {segment.name} is not what was written" in done.stderr
    assert "it was not backed up" in onto.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]


def with_format(path: Path, number: int) -> None:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.execute("UPDATE log SET format = ?", (number,))


def test_a_store_of_another_format_says_what_to_do(run: Shell, copied: Path, tmp_path: Path) -> None:
    there = ("--store", str(copied))
    same, as_json = run.many(("upgrade", *there), ("upgrade", *there, "--json"))
    today = answer(as_json)["after"]
    assert f"has format {today} already: nothing was changed" in same.stdout
    assert answer(as_json) == {"path": str(copied), "before": today, "after": today}
    with_format(copied, today - 1)
    for done in run.many(("verify", *there), ("info", *there), ("show", *there, "1")):
        assert done.returncode == 4
        assert f"Hint: eventlab upgrade --store {copied}" in done.stderr
    with_format(copied, today + 1)
    for done in run.many(("verify", *there), ("upgrade", *there)):
        assert done.returncode == 4
        assert "install a newer eventlab" in done.stderr
    (tmp_path / "other").mkdir()
    sqlite3.connect(tmp_path / "other" / "catalog.sqlite").execute("CREATE TABLE t(x)").connection.close()
    (done,) = run.many(("upgrade", "--store", str(tmp_path / "other")))
    assert done.returncode == 4
    assert "is not the catalog of a store" in done.stderr


# -- mistakes --------------------------------------------------------------------------------------------------------------

MISTAKES: dict[tuple[str, ...], tuple[int, str]] = {
    ("info", "--store", "no/such/folder"): (4, "there is no store in"),
    ("info", "--store", str(HERE)): (4, "it is not a store"),
    ("table", "Nothing", "--models", "shop"): (3, "no model is called 'Nothing'"),
    ("table", "Order", "--models", "no.such.module"): (3, "no.such.module cannot be imported"),
    ("rebuild",): (3, "no models are named"),
    ("run",): (3, "no models are named"),
    ("run", "--models", "no.such.module"): (3, "cannot be imported"),
    ("accept", "order", "--fingerprint", "zz"): (3, "begin with the fingerprint"),
    ("sql", "insert into events.log values (1)"): (3, "only reads"),
    ("sql", "selekt 1"): (3, "does not parse"),
    ("sql", "select * from events.nothing"): (3, "nothing"),
    ("sql", "select * from read_csv('/etc/passwd')"): (3, "nothing else"),
    ("sql", "--param", "oops", "select 1"): (3, "NAME=VALUE"),
    ("events", "--at", "yesterday"): (3, "is not a time"),
    ("events", "--at", "2013-02-08T18:00"): (3, "has no time zone"),
    ("events", "--type", "no such type"): (3, "cannot name a type"),
    ("events", "--type", "ItemAded"): (3, "no event type is called 'ItemAded'"),
    ("events", "--stream", "order"): (3, "is not the name of a stream"),
    ("table", "Order", "--models", "shop", "--position", "-1"): (3, "is not a position"),
    ("show", "99"): (3, "there is no position 99: the log ends at 7"),
    ("show", "0"): (3, "there is no position 0"),
    ("show", "--stream", "order-9"): (3, "there is no stream 'order-9'"),
    ("show", "--stream", "order-1", "--tenant", "b"): (3, "of tenant 'b'"),
    ("show", "--segment", "99"): (3, "there is no segment '99'"),
    ("show", "--segment", "no.parquet"): (3, "there is no segment 'no.parquet'"),
    ("show", "--catalog", "events"): (3, "the catalog has no table 'events'"),
    ("show", "--catalog", "event", "--where", "sku=hat"): (3, "has no column 'sku'"),
    ("show", "--catalog", "event", "--where", "sku"): (3, "NAME=VALUE"),
    ("show", "--catalog", "--store", "no/such/folder"): (4, "there is no store in"),
    ("seal", "--store", "no/such/folder"): (4, "there is no store in"),
    ("compact", "--store", str(HERE)): (4, "it is not a store"),
    ("gc", "--store", "no/such/folder"): (4, "there is no store in"),
    ("backup", "--to", str(HERE)): (4, "is there already"),
    ("backup", "--to", __file__): (4, "is there already"),
    ("backup", "--store", "no/such/folder", "--to", "no/other"): (4, "there is no store in"),
    ("restore", "--from", "no/such/folder", "--store", "no/other"): (4, "there is no store in"),
    ("upgrade", "--store", "no/such/folder"): (4, "there is no store in"),
}


@pytest.fixture(scope="module")
def mistakes(run: Shell) -> dict[tuple[str, ...], tuple[Done, Done]]:
    """What each mistake is answered with, in words and in JSON."""
    words = run.many(*MISTAKES)
    objects = run.many(*((*arguments, "--json") for arguments in MISTAKES))
    return dict(zip(MISTAKES, zip(words, objects, strict=True), strict=True))


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_answered_with_what_where_and_the_way_out(
    mistakes: dict[tuple[str, ...], tuple[Done, Done]], arguments: tuple[str, ...]
) -> None:
    code, says = MISTAKES[arguments]
    done, asked = mistakes[arguments]
    assert done.returncode == code, done
    assert done.stdout == ""
    assert says in done.stderr.replace("\n", " ")
    assert "Hint: " in done.stderr or arguments[0] in ("sql", "events")
    assert "Traceback" not in done.stderr
    assert asked.returncode == code
    assert says in str(answer(asked)["message"])


WRONG: tuple[tuple[str, ...], ...] = (
    ("show",),
    ("show", "1", "--catalog"),
    ("show", "first"),
    ("show", "--catalog", "event", "--limit", "-2"),
    ("gc", "--grace", "-1"),
    ("gc", "--grace", "soon"),
    ("backup",),
    ("restore",),
)


def test_a_wrong_command_line_is_told_how_it_is_used(run: Shell) -> None:
    for arguments, done in zip(WRONG, run.many(*WRONG), strict=True):
        assert done.returncode == 2, done
        assert f"usage: eventlab {arguments[0]}" in done.stderr
        assert done.stdout == ""


# -- ending early -------------------------------------------------------------------------------------------------------------


def test_reading_through_a_pipe_that_closes_early_is_no_error(store: Path) -> None:
    command = f"{sys.executable} -m eventlab.cli events --store {store} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


def test_ctrl_c_ends_with_130_and_no_traceback(store: Path) -> None:
    # The query runs for minutes unless it is interrupted.
    query = "select count(*) from range(100000) a, range(100000) b where (a.range * b.range) % 7 = 3"
    command = [sys.executable, "-m", "eventlab.cli", "sql", "--store", str(store), query]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        opened = Path(f"/proc/{process.pid}/fd")
        until = time.monotonic() + 60
        while not any("catalog.sqlite" in os.path.realpath(file) for file in opened.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "what was acknowledged is safe" in said

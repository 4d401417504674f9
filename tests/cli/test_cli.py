"""The command line: real processes, their output, their exit codes, and what a stranger reads when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import eventlab as el

HERE = Path(__file__).parent
COMMANDS = ("demo", "info", "events", "rebuild", "table", "sql", "check", "verify", "lab")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three orders: seven events, the first four sealed."""
    sys.path.insert(0, str(HERE))
    import shop

    path = tmp_path_factory.mktemp("cli") / "shop"
    with el.open(path) as lab:
        for i in (1, 2):
            lab.append(f"order-{i}", [shop.ItemAdded("hat", i, el.money("9.50")), shop.OrderPlaced(f"c{i}")])
        lab.seal()
        lab.append("order-3", [shop.ItemAdded("[bold]coat[/bold]", 1, el.money("120.00"))], tags=["vip"])
        lab.append("order-1", [shop.ItemAdded("sock", 10, el.money("1.00")), shop.ItemAdded("tie", 1, el.money("5.00"))])
    return path


@pytest.fixture
def run(store: Path) -> Run:
    def run(*arguments: str, stdin: str = "", at: Path | None = None) -> subprocess.CompletedProcess[str]:
        own = not arguments or "--store" in arguments or arguments[-1] == "--help" or arguments[0] not in COMMANDS
        named = () if own else ("--store", str(store))
        command = [sys.executable, "-m", "eventlab.cli", *arguments[:1], *named, *arguments[1:]]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=at or HERE, timeout=60, check=False)

    return run


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """The one JSON object that --json prints, and nothing else."""
    assert len(done.stdout.splitlines()) == 1, done.stdout
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"example:\n  eventlab {command}" in done.stdout


def test_no_command_or_a_wrong_one_shows_the_commands(run: Run) -> None:
    assert run().returncode == 2
    wrong = run("frobnicate")
    assert wrong.returncode == 2
    assert all(command in wrong.stderr for command in COMMANDS)


def test_events_shows_events_in_order_and_payload_text_is_only_text(run: Run) -> None:
    done = run("events")
    assert done.returncode == 0
    assert re.findall(r"order-\d", done.stdout) == ["order-1"] * 2 + ["order-2"] * 2 + ["order-3"] + ["order-1"] * 2
    assert "[bold]coat[/bold]" in done.stdout


def test_events_picks_by_type_stream_tag_and_position(run: Run) -> None:
    def positions(*arguments: str) -> list[int]:
        return [event["position"] for event in answer(run("events", "--json", *arguments))["events"]]  # type: ignore[attr-defined]

    assert positions("--type", "OrderPlaced") == [2, 4]
    assert positions("--stream", "order-1", "--type", "ItemAdded") == [1, 6, 7]
    assert positions("--tag", "customer:c2") == [4]
    assert positions("--tag", "vip") == [5]
    assert positions("--category", "order", "--after", "3", "--until", "6") == [4, 5, 6]
    assert positions("--limit", "2") == [1, 2]
    assert positions("--position", "3") == [1, 2, 3]


def test_a_process_without_the_classes_still_sees_the_payloads(run: Run) -> None:
    first = answer(run("events", "--json", "--limit", "1"))["events"][0]  # type: ignore[index]
    assert first["data"] == {"sku": "hat", "quantity": 1, "unit_price": "9.50"}


def test_table_and_sql_give_the_same_answer(run: Run) -> None:
    rows = answer(run("table", "Order", "--models", "shop", "--json"))["rows"]
    assert [(r["_id"], r["status"], r["total"], r["_version"]) for r in rows] == [  # type: ignore[attr-defined]
        ("1", "placed", "24.50", 4),
        ("2", "placed", "19.00", 2),
        ("3", "draft", "120.00", 1),
    ]
    assert answer(run("sql", "--models", "shop", "--json", "select * from state.order order by _id"))["rows"] == rows
    assert answer(run("sql", "--json", "-", stdin="select count(*) as n from events.log"))["rows"] == [{"n": 7}]


def test_sql_takes_parameters_and_a_moment(run: Run) -> None:
    query = "select sku from types.item_added where quantity >= $least::int order by _position"
    assert answer(run("sql", "--json", "--param", "least=2", query))["rows"] == [{"sku": "hat"}, {"sku": "sock"}]
    assert answer(run("sql", "--json", "--param", "least=2", "--position", "5", query))["rows"] == [{"sku": "hat"}]


def test_a_table_as_it_was_at_a_position(run: Run) -> None:
    rows = answer(run("table", "shop:Order", "--position", "1", "--json"))["rows"]
    assert rows == [{"_id": "1", "status": "draft", "total": "9.50", "_version": 1, "_position": 1}]


def test_rebuild_makes_read_models_that_sql_finds_without_the_code(run: Run) -> None:
    done = run("rebuild", "--models", "shop", "--json")
    assert done.returncode == 0
    assert answer(done)["rebuilt"][0]["rows"] == 3  # type: ignore[index]
    assert answer(run("rebuild", "--models", "shop", "--catch-up", "--json"))["rebuilt"][0]["events"] == 0  # type: ignore[index]
    assert answer(run("sql", "--json", "select count(*) as n from state.order"))["rows"] == [{"n": 3}]


def test_models_can_be_named_in_pyproject(run: Run, store: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.eventlab]\nmodels = ["shop"]\n')
    (tmp_path / "shop.py").write_text((HERE / "shop.py").read_text())
    assert len(answer(run("table", "Order", "--json", at=tmp_path))["rows"]) == 3  # type: ignore[arg-type]


def test_check_says_no_divergence_and_exits_with_0(run: Run) -> None:
    done = run("check", "--models", "shop", "--json")
    assert done.returncode == 0
    found = answer(done)
    assert found["ok"] is True
    assert found["reports"][0]["events"] == 7  # type: ignore[index]


def test_info_and_verify_know_the_store(run: Run) -> None:
    found = answer(run("info", "--json"))
    assert found["events"] == 7
    done = run("verify", "--full", "--json")
    assert done.returncode == 0
    assert "7" in run("info").stdout
    assert run("verify").returncode == 0


def test_verify_exits_with_1_when_a_segment_is_damaged(run: Run, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(store), str(copy)], check=True)
    segment = next((copy / "segments").rglob("*.parquet"))
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes(bytes(raw))
    done = run("verify", "--store", str(copy))
    assert done.returncode == 1
    assert segment.name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("info", "--store", "no/such/folder"), 4, "there is no store in"),
        (("info", "--store", str(HERE)), 4, "it is not a store"),
        (("table", "Nothing", "--models", "shop"), 3, "no model is called 'Nothing'"),
        (("table", "Order", "--models", "no.such.module"), 3, "no.such.module cannot be imported"),
        (("rebuild",), 3, "no models are named"),
        (("sql", "insert into events.log values (1)"), 3, "only reads"),
        (("sql", "selekt 1"), 3, "does not parse"),
        (("sql", "select * from events.nothing"), 3, "nothing"),
        (("sql", "select * from read_csv('/etc/passwd')"), 3, "nothing else"),
        (("sql", "--param", "oops", "select 1"), 3, "NAME=VALUE"),
        (("events", "--at", "yesterday"), 3, "is not a time"),
        (("events", "--at", "2013-02-08T18:00"), 3, "has no time zone"),
        (("events", "--type", "no such type"), 3, "cannot name a type"),
        (("events", "--type", "ItemAded"), 3, "no event type is called 'ItemAded'"),
        (("events", "--stream", "order"), 3, "is not the name of a stream"),
        (("table", "Order", "--models", "shop", "--position", "-1"), 3, "is not a position"),
    ],
)
def test_a_mistake_is_answered_with_what_where_and_the_way_out(
    run: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    asked = run(*arguments, "--json")
    assert asked.returncode == code
    assert says in str(answer(asked)["message"])


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
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "what was acknowledged is safe" in said

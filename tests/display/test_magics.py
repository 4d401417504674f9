"""The magics in a shell of their own: SQL to a frame, moments, parameters, and errors in a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import eventlab as el


@el.event
class GateOpened:
    """Somebody came in."""

    visitors: int


@pytest.fixture
def shell() -> Iterator[Any]:
    made = InteractiveShell()
    made.run_line_magic("load_ext", "eventlab")
    with el.scratch() as lab:
        for visitors in (3, 4, 5):
            lab.append("gate-1", [GateOpened(visitors)])
        made.user_ns["lab"] = lab
        yield made


def test_sql_in_a_cell_is_a_frame(shell: Any) -> None:
    frame = shell.run_cell_magic("events", "", "select sum(visitors) as n from types.gate_opened")
    assert isinstance(frame, pl.DataFrame)
    assert frame.item() == 12
    shell.user_ns["least"] = 4
    shell.run_cell_magic("events", "many", "select visitors from types.gate_opened where visitors >= $least order by 1")
    assert shell.user_ns["many"]["visitors"].to_list() == [4, 5]
    shell.user_ns["prices"] = pl.DataFrame({"visitors": [3], "price": [9]})
    joined = shell.run_cell_magic("events", "", "select count(*) as n from types.gate_opened where visitors < 5")
    assert joined.item() == 2


def test_the_moment_is_chosen_once_for_all_cells(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    count = "select count(*) as n from events.log"
    for line, said, events in (("", "now", 3), ("2", "position 2", 2), ("", "position 2", 2), ("now", "now", 3)):
        shell.run_line_magic("at", line)
        assert capsys.readouterr().out == f"as of {said}\n"
        assert shell.run_cell_magic("events", "", count).item() == events
    first = next(iter(shell.user_ns["lab"].read())).recorded_at
    shell.run_line_magic("at", first.isoformat())
    assert shell.run_cell_magic("events", "", count).item() >= 1


@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("", "select nothing from nowhere", "nowhere"), ("a b", "select 1", "are all it takes"),
        ("--lab other", "select 1", "there is no lab 'other'"), ("", "create table t(x int)", "read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(shell: Any, line: str, cell: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        shell.run_cell_magic("events", line, cell)


def test_several_labs_or_none_are_asked_about(shell: Any) -> None:
    with el.scratch() as other:
        shell.user_ns["other"] = other
        with pytest.raises(UsageError, match=r"there are 2 labs here: lab, other \(%%events --lab NAME\)"):
            shell.run_cell_magic("events", "", "select 1")
        assert shell.run_cell_magic("events", "--lab other", "select count(*) as n from events.log").item() == 0
    del shell.user_ns["other"], shell.user_ns["lab"]
    with pytest.raises(UsageError, match="there is no lab here"):
        shell.run_line_magic("at", "3")
    with pytest.raises(UsageError):
        shell.run_line_magic("at", "not a time")
    shell.run_line_magic("load_ext", "eventlab")

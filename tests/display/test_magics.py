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
    shell.user_ns["least"] = 5
    shell.run_cell_magic("events", "many", "select visitors from types.gate_opened where visitors >= $least")
    assert shell.user_ns["many"]["visitors"].to_list() == [5], "run again, a cell takes what the variable is now"


@pytest.mark.parametrize(
    "cell",
    [
        "select '$least' as a", "select 'it''s $least' as a", "select 1 as \"$least\"", "select 1 as a -- $least",
        "select 1 as a /* $least\n$least */", "select $$ $least $$ as a", "select $x$ $least $x$ as a",
    ],
)  # fmt: skip
def test_a_dollar_in_a_text_or_comment_is_no_parameter(shell: Any, cell: str) -> None:
    shell.user_ns |= {"least": 4, "x": 1}
    assert len(shell.run_cell_magic("events", "", cell)) == 1
    assert shell.run_cell_magic("events", "", f"select * from ({cell}\n), (select $least as b)")["b"].to_list() == [4]


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
        ("class", "select 1", "are all it takes"), ("--lab", "select 1", "are all it takes"),
        ("", "select $nobody", "nobody"),
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
        shell.run_line_magic("at", "2")
        assert shell.run_cell_magic("events", "--lab lab", "select count(*) as n from events.log").item() == 2
    del shell.user_ns["other"], shell.user_ns["lab"]
    with pytest.raises(UsageError, match=r"there is no lab here \(lab = el.open\(…\)\)"):
        shell.run_cell_magic("events", "", "select 1")


def test_what_is_no_moment_is_refused_and_the_one_before_stays(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("at", "2")
    for text in ("not a time", "-3", "2013-02-08T18:00"):
        with pytest.raises(UsageError):
            shell.run_line_magic("at", text)
    capsys.readouterr()
    shell.run_line_magic("at", "")
    assert capsys.readouterr().out == "as of position 2\n"


def test_an_error_is_shown_in_a_line_and_loading_again_is_no_error(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(shell.run_cell("%%events --lab other\nselect 1").error_in_exec, UsageError)
    told = capsys.readouterr()
    assert (told.out + told.err).strip() == "UsageError: there is no lab 'other' (other = el.open(…))"
    shell.run_line_magic("load_ext", "eventlab")
    assert shell.run_cell_magic("events", "", "select count(*) as n from events.log").item() == 3

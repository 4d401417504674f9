"""Code from a board: it stands as it is made, what a person wrote is never lost, and a change of the board is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from storming.boards import LENDING, boards

from eventlab.errors import EventlabError, InvalidValue
from eventlab.storming import Board, Example, Fact, Note, scaffold, write
from eventlab.storming.information import in_code

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: Every type that a field may have, where it comes from, and names that have to be told apart from Python's.
WIDE = Board(
    "every type: 2",
    (
        Note("command", "DoMuch", (*(f"f{at}: {of}" for at, of in enumerate((
            "str", "int", "float", "bool", "bytes", "Money", "Decimal", "date", "datetime", "time", "timedelta", "UUID",
            "list[str]", "tuple[int, ...]", "set[str]", "dict[str, Money]", "Tag[str]", "Literal['a', 'b']", "date | None",
            "Money | None", "list[dict[str, int]]",
        ))), "made: int"), ("Thing", "MuchDone", "ThenSome"), 'It says "much" \\ more.'),
        Note("aggregate", "Thing", ("seen: int", "kind: Literal['x', 'y']", "last: datetime", "f0: str"),
             ("MuchDone", "ThenSome", "UnheardOfThingHappenedInAVeryFarAwayPlace")),
        Note("event", "MuchDone", tuple(f"f{at}: {of}" for at, of in enumerate((
            "str", "int", "float", "bool", "bytes", "Money", "Decimal", "date", "datetime", "time", "timedelta", "UUID",
            "list[str]", "tuple[int, ...]", "set[str]", "dict[str, Money]", "Tag[str]", "Literal['a', 'b']", "date | None",
            "Money | None", "list[dict[str, int]]",
        ))), ("Sums", "Page")),
        Note("event", "ThenSome", ("kind: Literal['x', 'y']", "seen: int"), ("Sums", "AfterAll")),
        Note("event", "UnheardOfThingHappenedInAVeryFarAwayPlace", (), ("AfterAll",)),
        Note("read_model", "Sums", ("seen: int", "f5: Money")),
        Note("read_model", "Page", ("f11: UUID", "f0: str")),
        Note("read_model", "Nothing"),
        Note("policy", "AfterAll", to=("DoMuch", "Orphan")),
        Note("command", "Orphan"),
        Note("hotspot", "class"),
    ),
    (
        Example("much is done", Fact("DoMuch"), then=[Fact("MuchDone"), Fact("ThenSome", {"kind": "x", "seen": 0})]),
        Example("it is not (yet) much", Fact("DoMuch", {"f5": "1.50"}), [Fact("ThenSome", {"kind": "y"})], [Fact("MuchDone")]),
        Example("enough", Fact("DoMuch"), [Fact("MuchDone")] * 2, rejected="enough"),
    ),
)  # fmt: skip


def tool(folder: Path, *command: str | Path) -> None:
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def stands(folder: Path) -> str:
    """What pytest says of a folder that ruff and mypy have nothing to say of."""
    tool(folder, BIN / "ruff", "check", "--quiet", "--config", ROOT / "pyproject.toml", "--no-cache", ".")
    tool(folder, BIN / "ruff", "check", "--quiet", "--isolated", "--no-cache", "--select", "E4,E7,E9,F,I,UP", ".")
    tool(folder, BIN / "mypy", "--strict", "--cache-dir", folder.parent / ".mypy_cache", "--exclude", r"\.board", ".")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", "/dev/null", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("board", "said"), [(LENDING, r"2 passed, 2 xfailed"), (WIDE, r"1 passed, 2 xfailed")], ids=["lending", "wide"]
)
def test_what_is_made_passes_ruff_mypy_and_pytest_as_it_stands(board: Board, said: str, tmp_path: Path) -> None:
    done = write(board, tmp_path)
    assert [one.what for one in done] == ["new", "new"]
    assert re.match(said, stands(tmp_path))


def test_a_rule_that_a_person_writes_makes_its_test_say_that_it_waits_no_longer(tmp_path: Path) -> None:
    write(LENDING, tmp_path)
    path = tmp_path / "lending.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('missing("BookLent.due: today and so many days")', "dt.date(2026, 1, command.days)").replace(
            "            case LendBook():\n",
            "            case LendBook():\n"
            "                if self.reader is not None:\n"
            '                    raise el.Rejected(f"it is lent (to {self.reader})")\n',
        ),
        encoding="utf-8",
    )
    # The board's example names no number of days, and 49 is made up: any rule that rejects first is enough.
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path, tmp_path],
                          cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "XPASS(strict)" in done.stdout
    assert "test_a_book_that_is_out_cannot_be_lent" in done.stdout
    assert "1 failed, 2 passed, 1 xfailed" in done.stdout


def test_what_a_person_wrote_is_never_written_over(tmp_path: Path) -> None:
    assert [str(one) for one in write(LENDING, tmp_path)] == ["lending.py: new", "test_lending.py: new"]
    assert [one.what for one in write(LENDING, tmp_path)] == ["same", "same"]
    changed = LENDING.change("BookReturned", fields=["reader: str", "worn: bool"])
    module, tests = write(changed, tmp_path)
    assert (module.what, tests.what) == ("updated", "updated"), "nobody touched them"
    assert "+    worn: bool\n" in module.diff

    mine = (tmp_path / "lending.py").read_text(encoding="utf-8") + "\n\nMINE = 1\n"
    (tmp_path / "lending.py").write_text(mine, encoding="utf-8")
    assert [(one.what, one.diff) for one in write(changed, tmp_path)] == [("kept", ""), ("same", "")]
    again = changed.add("event", "BookLost", fields=["where: str"]).link("Book", "BookLost")
    module, tests = write(again, tmp_path)
    assert (tmp_path / "lending.py").read_text(encoding="utf-8") == mine
    assert module.what == "kept"
    assert "+class BookLost:\n" in module.diff
    assert "MINE" not in module.diff, "the difference is the board's, not the person's"
    assert str(module) == "lending.py: kept; the board says otherwise now, see lending.py.new"
    assert (tmp_path / "lending.py.new").read_text(encoding="utf-8") == scaffold(again)["lending.py"]
    # A file that eventlab never wrote is a person's, whatever it says.
    shutil.rmtree(tmp_path / ".board")
    assert [one.what for one in write(LENDING, tmp_path)] == ["kept", "kept"]
    assert (tmp_path / "lending.py").read_text(encoding="utf-8") == mine


@given(boards())
@settings(max_examples=60, deadline=None)
def test_any_board_becomes_code_that_compiles_or_says_why_not(board: Board) -> None:
    try:
        files = scaffold(board)
    except InvalidValue:
        return
    for name, text in files.items():
        compile(text, name, "exec")
    assert files == scaffold(board), "the same from the same board"


@pytest.mark.parametrize(
    ("board", "said"),
    [
        (Board("x"), "nothing on x that becomes code"),
        (Board("x").add("event", "Done", fields=["class: str"]), "is a word of Python"),
        (Board("x").add("event", "Done", fields=["a: instant"]), "'instant' is no type of a field"),
        (Board("x").add("event", "Same").add("command", "Same"), "two notes of x are called Same"),
        (Board("x").add("event", "Self"), "a name that the code needs itself"),
        (Board("x").add("command", "Go").with_example(Example("e", Fact("Go"))), "no aggregate decides Go"),
        (LENDING.with_example(Example("e", Fact("LendBook", {"days": "many"}))), "e: LendBook.days"),
    ],
)
def test_what_no_code_can_be_made_of_is_said(board: Board, said: str) -> None:
    with pytest.raises(EventlabError, match=said):
        scaffold(board)


@pytest.mark.parametrize(
    "text", ["str()", "__import__('os')", "str.join", "lambda: 1", "[str]", "list", "dict[int, str]", "", "a b"]
)
def test_a_type_is_a_type_and_nothing_that_runs(text: str) -> None:
    with pytest.raises(InvalidValue, match="is no type of a field"):
        in_code(text)

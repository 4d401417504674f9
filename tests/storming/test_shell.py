"""Boards from a shell: drawn, shown, reviewed, compared, made into code, and a log held against them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from storming.boards import LENDING

import eventlab as el
from eventlab.cli import main
from eventlab.storming import Board, simulate


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with el.open(tmp_path / "store", maintain=False) as lab:
        lab.ingest(simulate(LENDING, 40, seed=2), source="made up", recorded_at="occurred_at")
    return tmp_path / "store"


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    code = main([str(of) for of in arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_a_board_goes_all_the_way_round(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seen.board.toml"
    assert said(capsys, "board", "draw", path, "--store", store)[0] == 0
    seen = Board.load(path)
    assert seen.name == "seen"
    assert {note.name for note in seen.find("event")} == {"BookLent", "BookReturned", "ReaderReminded"}
    assert said(capsys, "conform", path, "--store", store)[0] == 0
    code, text = said(capsys, "board", "draw", path, "--store", store)
    assert (code, "is there already" in text) == (3, True)
    assert said(capsys, "board", "draw", path, "--store", store, "--force", "--name", "other")[0] == 0
    assert Board.load(path).name == "other"

    mine = tmp_path / "lending.board.toml"
    LENDING.save(mine)
    code, text = said(capsys, "board", "show", mine)
    assert (code, "```mermaid" in text, "a book comes back" in text) == (0, True, True)
    assert said(capsys, "board", "review", mine) == (0, "nothing to say\n")
    assert said(capsys, "board", "diff", mine, "--since", mine) == (0, "no difference\n")
    LENDING.remove("Loans").save(tmp_path / "old.toml")
    code, text = said(capsys, "board", "diff", mine, "--since", tmp_path / "old.toml")
    assert (code, "loans added" in text) == (1, True)
    code, text = said(capsys, "board", "review", tmp_path / "old.toml", "--json")
    assert code == 1
    assert json.loads(text)["findings"][0].startswith("B2 nobody reads")
    assert said(capsys, "board", "code", mine, "-o", tmp_path / "code") == (0, "lending.py: new\ntest_lending.py: new\n")
    code, text = said(capsys, "board", "code", mine, "-o", tmp_path / "code", "--json")
    assert [of["what"] for of in json.loads(text)["files"]] == ["same", "same"]
    code, text = said(capsys, "board", "show", mine, "--json")
    assert len(json.loads(text)["notes"]) == len(LENDING.notes)


def test_code_is_drawn_without_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ordering.board.toml"
    assert said(capsys, "board", "draw", path, "--models", "eventlab.domains.ordering")[0] == 0
    assert Board.load(path).note("SubmitOrder").kind == "command"


def test_a_log_is_held_against_a_board_in_ci(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lending.board.toml"
    LENDING.save(path)
    assert said(capsys, "conform", path, "--store", store)[0] == 0
    LENDING.remove("ReaderReminded").save(path)
    code, text = said(capsys, "conform", path, "--store", store)
    assert (code, "unknown event" in text, "not observable: what causes BookLent" in text) == (1, True, True)
    accepted = tmp_path / "accepted.toml"
    accepted.write_text('[[accepted]]\nkind = "unknown event"\nstep = "ReaderReminded"\nreason = "the old system writes it"\n')
    code, text = said(capsys, "conform", path, "--store", store, "--accepted", accepted, "--json")
    found = json.loads(text)
    assert (code, found["deviations"]) == (0, [])
    assert [of["reason"] for of in found["accepted"]] == ["the old system writes it"]
    LENDING.change("BookReturned", fields=["reader: str", "worn: bool"]).save(path)
    assert said(capsys, "conform", path, "--store", store, "--fail-under", "fitness=1", "--fail-under", "drift=0")[0] == 1
    assert said(capsys, "conform", path, "--store", store, "--fail-under", "fitness=1")[0] == 0
    code, text = said(capsys, "conform", path, "--store", store, "--fail-under", "speed=1")
    assert (code, "'speed=1' is no limit" in text) == (3, True)
    code, text = said(capsys, "conform", tmp_path / "nothing.toml", "--store", store)
    assert (code, "cannot be read" in text) == (3, True)

"""The board's controller without a browser: gestures, undo and redo, files, errors in words, several threads."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storming.boards import LENDING, boards

import eventlab as el
from eventlab.display.editing import Editor, look
from eventlab.display.html import board_html
from eventlab.display.widgets import BoardView, storm
from eventlab.storming.board import KINDS, LEADS, Board, Layout
from eventlab.storming.placing import HIGH, WIDE, placed, svg


@st.composite
def gestures(draw: st.DrawFn, board: Board) -> dict[str, Any]:
    ids = [note.id for note in board.notes] or ["nobody"]
    one = st.sampled_from([*ids, "nobody"])
    place = st.integers(0, 3_000) | st.floats() | st.just("x")
    return draw(st.one_of(
        st.fixed_dictionaries({"do": st.just("add"), "kind": st.sampled_from([*KINDS, "smell"]),
                               "name": st.sampled_from(["order placed", "pay", "", "???"])},
                              optional={"from": st.just("@made") | one, "x": place, "y": place, "before": one}),
        st.fixed_dictionaries({"do": st.just("change"), "id": one},
                              optional={"name": st.text(max_size=5), "kind": st.sampled_from(KINDS),
                                        "within": st.sampled_from(["", "3", "-1", "x"]),
                                        "fields": st.sampled_from(["a: int\n\nb", "1: x", "", "a\na"]),
                                        "text": st.text(max_size=5), "context": st.sampled_from(["", "sales"])}),
        st.fixed_dictionaries({"do": st.sampled_from(["link", "unlink"]), "id": one, "to": one}),
        st.fixed_dictionaries({"do": st.just("remove"), "ids": st.lists(one, max_size=2)}),
        st.fixed_dictionaries({"do": st.just("move"), "to": st.lists(st.tuples(one, place, place), max_size=2)}),
        st.fixed_dictionaries({"do": st.just("step"), "id": one, "earlier": st.booleans()}),
        st.fixed_dictionaries({"do": st.just("group"), "ids": st.lists(one, max_size=2), "context": st.just("shop")}),
        st.sampled_from([{"do": of} for of in ("undo", "redo", "tidy", "hello", "reload", "nonsense", "add", "move")] + [{}]),
    ))  # fmt: skip


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_is_done_is_undone_and_done_again(data: st.DataObject) -> None:
    editor = Editor(Board("shop"))
    seen = [(editor.board, editor.layout)]
    for _ in range(data.draw(st.integers(1, 15))):
        gesture = data.draw(gestures(editor.board))
        before, back, forth = (editor.board, editor.layout), len(editor._past), len(editor._future)
        done = editor.do(gesture)
        now = (editor.board, editor.layout)
        json.dumps(editor.state())
        assert done == (not editor.error)
        if not done:
            assert now == before, "an error changes nothing"
        if gesture.get("do") == "undo":
            assert (len(editor._past), len(editor._future)) == (max(back - 1, 0), forth + (back > 0))
            seen = seen[:-1] if back else seen
        elif gesture.get("do") == "redo":
            seen = [*seen, now] if forth else seen
        elif now != before:
            seen.append(now)
            assert not editor._future
        assert Board.read(editor.board.text()) == editor.board
    for want in reversed(seen[:-1]):
        editor.do({"do": "undo"})
        assert (editor.board, editor.layout) == want
    for want in seen[1:]:
        editor.do({"do": "redo"})
        assert (editor.board, editor.layout) == want


def test_every_edit_is_in_the_files_and_those_of_others_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "shop.board.toml"
    view = storm(path)
    assert view.board == Board("shop")
    assert not path.exists(), "nothing was done yet"
    view.do(do="add", kind="event", name="order placed", x=5, y=6)
    assert Board.load(path) == view.board
    assert Layout.beside(path).read_text(encoding="utf-8") == "[places]\norder-placed = [5, 6]\n"
    before = path.stat().st_mtime_ns
    view.do(do="move", to=[["order-placed", 50, 60]])
    assert path.stat().st_mtime_ns == before, "to move a note leaves the model's file alone"
    view.do(do="undo")
    view.do(do="undo")
    assert Board.load(path) == Board("shop")
    assert not Layout.beside(path).exists()
    view.do(do="redo")

    other = storm(path)
    assert other.board == view.board
    assert other.layout_of_notes == view.layout_of_notes
    assert other.do(do="add", kind="event", name="order paid")
    assert not view.do(do="add", kind="event", name="order sent")
    assert view.state["error"] == "shop.board.toml was changed by somebody else (reload it; undo brings yours back)"
    assert [note.name for note in view.board.notes] == ["OrderPlaced"]
    assert view.do(do="reload")
    assert view.do(do="add", kind="event", name="order sent")
    assert [note.name for note in Board.load(path).notes] == ["OrderPlaced", "OrderPaid", "OrderSent"]
    assert view.code() == f"el.Board.load({str(path)!r})"
    path.write_text("nonsense =", encoding="utf-8")
    assert not view.do(do="reload")
    assert "this is no TOML" in view.state["error"]
    (tmp_path / "folder").mkdir()
    editor = Editor(Board("x"), path=tmp_path / "folder" / "file" / "b.toml")
    (tmp_path / "folder" / "file").write_text("in the way")
    assert not editor.do({"do": "add", "kind": "event", "name": "done"})
    assert "b.toml cannot be written" in editor.error
    assert editor.board == Board("x")


def test_gestures_of_several_threads_are_all_there(tmp_path: Path) -> None:
    view = storm(tmp_path / "b.toml")

    def work(mine: int) -> None:
        for number in range(25):
            view._hear(view, {"do": "add", "kind": "event", "name": f"done {mine} {number}"}, [])

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({note.name for note in view.board.notes}) == 100
    assert Board.load(tmp_path / "b.toml") == view.board
    assert view.state["turn"] == 101
    view._hear(view, "no gesture", [])
    assert "there is no gesture" in view.state["error"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_that_turns_into_another_kind_keeps_what_still_makes_sense(kind: str) -> None:
    editor = Editor(LENDING)
    assert editor.do({"do": "change", "id": "book-lent", "kind": kind, "name": "x y"})
    board = editor.board
    assert board.note("book-lent").kind == kind
    assert all(board.note(to).kind in LEADS[kind] for to in board.note("book-lent").to)
    assert Board.read(board.text()) == board
    assert editor.do({"do": "undo"})
    assert editor.board == LENDING


@given(boards(), st.data())
@settings(max_examples=60, deadline=None)
def test_notes_that_nobody_moved_do_not_lie_on_each_other(board: Board, data: st.DataObject) -> None:
    places = placed(board)
    assert set(places) == {note.id for note in board.notes}
    spots = sorted(places.values())
    for (ax, ay), (bx, by) in ((a, b) for at, a in enumerate(spots) for b in spots[at + 1 :]):
        assert bx - ax >= WIDE or abs(by - ay) >= HIGH
    columns = [places[note.id][0] for note in board.notes]
    assert columns == sorted(columns), "along the timeline from left to right"
    if board.notes:
        note = data.draw(st.sampled_from(board.notes))
        moved = placed(board, Layout().at(note.id, 7, 9))
        assert moved == places | {note.id: (7, 9)}
    assert svg(board).count("<g>") == len(board.notes)


def test_a_picture_is_what_is_shown_where_nothing_runs() -> None:
    view = BoardView(Editor(LENDING))
    bundle, _ = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == board_html(LENDING)
    assert bundle["text/plain"] == repr(view) == f"BoardView({LENDING!r})"
    hostile = Board("x").add("actor", '<img src=x onerror=alert(1)>"').change("img-src-x-onerror-alert-1", text="<script>")
    for drawn in (svg(hostile), board_html(hostile)):
        assert "<script" not in drawn
        assert "<img src=x" not in drawn
    assert Board.read(eval(view.code().removeprefix("el.Board.read"))) == LENDING


def test_kinds_differ_by_more_than_colour() -> None:
    kinds = look()
    assert set(kinds) == set(KINDS)
    assert len({of["letter"] for of in kinds.values()}) == len(KINDS)
    assert el.storm is storm

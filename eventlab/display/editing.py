"""What happens on a board that people work at: each gesture is one edit, undone and done again, and kept in its files.

No browser is needed for any of it: the widget sends what `Editor.do` takes, and draws what `Editor.state` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from eventlab.display.html import board_html
from eventlab.display.view import Controller
from eventlab.errors import InvalidValue
from eventlab.storming.board import KINDS, LEADS, Board, Layout, Note, write_whole
from eventlab.storming.drawing import SHAPES
from eventlab.storming.placing import LETTERS, placed
from eventlab.storming.review import review

#: So many steps can be taken back.
STEPS: Final = 1_000
_TEXTS: Final = ("name", "text", "context", "lane", "kind")


class Editor(Controller):
    """A board under work: `board` and `layout` are values, `do` is one gesture.

    With a `path`, every edit is in the file at once, and the layout in the file beside it. A file that somebody else changed in
    between is not written over: the edit is refused until `reload`.
    """

    def __init__(self, board: Board, layout: Layout | None = None, path: Path | None = None) -> None:
        super().__init__()
        self.board, self.layout, self.path = board, layout or Layout(), path
        self._past: list[tuple[Board, Layout]] = []
        self._future: list[tuple[Board, Layout]] = []
        self._kept: dict[Path, str | None] = {}
        #: The note that the last edit made.
        self.made = self._last = ""
        if path is not None:
            self._kept = {of: _text_of(of) for of in (path, Layout.beside(path))}

    def __repr__(self) -> str:
        return f"Editor({self.board!r})"

    def do(self, gesture: Mapping[str, Any]) -> bool:
        """One gesture; see `Controller`."""
        with self._one:
            self.made = ""
            return super().do(gesture)

    def code(self) -> str:
        """Python that gives this board in another cell."""
        return f"el.Board.load({str(self.path)!r})" if self.path is not None else f"el.Board.read({self.board.text()!r})"

    def html(self) -> str:
        """The board as a picture."""
        return board_html(self.board, self.layout)

    def state(self) -> dict[str, Any]:
        """All that is drawn, as plain values."""
        with self._one:
            places = placed(self.board, self.layout)
            notes = [
                {
                    "id": note.id, "kind": note.kind, "name": note.name, "text": note.text, "context": note.context,
                    "lane": note.lane, "within": note.within, "fields": [str(of) for of in note.fields], "to": list(note.to),
                    "x": places[note.id][0], "y": places[note.id][1],
                }
                for note in self.board.notes
            ]  # fmt: skip
            said = [{"code": one.code, "of": one.subject, "said": one.message, "hint": one.hint} for one in review(self.board)]
            return {
                "name": self.board.name, "notes": notes, "said": said, "error": self.error, "made": self.made,
                "undo": len(self._past), "redo": len(self._future), "path": self.path.name if self.path else "",
            }  # fmt: skip

    # -- gestures

    def on_add(self, told: Mapping[str, Any]) -> None:
        kind, name = told.get("kind", "event"), str(told["name"])
        board = self.board.add(str(kind), name, before=told.get("before") or None)
        known = {note.id for note in self.board.notes}
        new = next(note for note in board.notes if note.id not in known)
        source = self._last if told.get("from") == "@made" else told.get("from")
        if source and new.kind in LEADS[board.note(source).kind]:
            board = board.link(source, new.id)
        layout = self.layout
        if told.get("x") is not None:
            layout = layout.at(new.id, _pixels(told["x"]), _pixels(told["y"]))
        self._put(board, layout)
        self.made = self._last = new.id

    def on_change(self, told: Mapping[str, Any]) -> None:
        what: dict[str, Any] = {name: str(told[name]) for name in _TEXTS if name in told}
        if "fields" in told:
            given = told["fields"]
            lines = given.splitlines() if isinstance(given, str) else given
            what["fields"] = [str(line) for line in lines if str(line).strip()]
        if "within" in told:
            what["within"] = float(told["within"]) if told["within"] not in (None, "") else None
        note = self.board.note(str(told["id"]))
        if what.get("kind", note.kind) != note.kind:
            self._put(_turned(self.board, note, what), self.layout)
        elif any(getattr(note, name) != value for name, value in _plain(what, note).items()):
            self._put(self.board.change(note.id, **what), self.layout)

    def on_remove(self, told: Mapping[str, Any]) -> None:
        self._put(self.board.remove(*told["ids"]), self.layout)

    def on_link(self, told: Mapping[str, Any]) -> None:
        self._put(self.board.link(str(told["id"]), str(told["to"])), self.layout)

    def on_unlink(self, told: Mapping[str, Any]) -> None:
        self._put(self.board.unlink(str(told["id"]), str(told["to"])), self.layout)

    def on_move(self, told: Mapping[str, Any]) -> None:
        layout = self.layout
        for note, x, y in told["to"]:
            layout = layout.at(self.board.note(str(note)).id, _pixels(x), _pixels(y))
        self._put(self.board, layout)

    def on_tidy(self, told: Mapping[str, Any]) -> None:
        self._put(self.board, Layout())

    def on_step(self, told: Mapping[str, Any]) -> None:
        """Earlier or later on the timeline, by one note."""
        order = [note.id for note in self.board.notes]
        at = order.index(self.board.note(str(told["id"])).id)
        to = at - 1 if told.get("earlier") else at + 2
        if 0 <= to <= len(order):
            self._put(self.board.place(order[at], order[to] if to < len(order) else None), self.layout)

    def on_group(self, told: Mapping[str, Any]) -> None:
        board = self.board
        for note in told["ids"]:
            board = board.change(str(note), context=str(told.get("context", "")).strip())
        self._put(board, self.layout)

    def on_rename(self, told: Mapping[str, Any]) -> None:
        self._put(replace(self.board, name=str(told["name"])), self.layout)

    def on_undo(self, told: Mapping[str, Any]) -> None:
        self._back(self._past, self._future)

    def on_redo(self, told: Mapping[str, Any]) -> None:
        self._back(self._future, self._past)

    def on_reload(self, told: Mapping[str, Any]) -> None:
        """From the files again, with what somebody else wrote; what was here can be had back by undo."""
        if self.path is None:
            raise InvalidValue("this board has no file")
        beside = Layout.beside(self.path)
        board = Board.load(self.path)
        layout = Layout.read(beside.read_text(encoding="utf-8")) if beside.exists() else Layout()
        self._kept = {of: _text_of(of) for of in (self.path, beside)}
        self._past.append((self.board, self.layout))
        self.board, self.layout = board, layout

    # -- keeping

    def _put(self, board: Board, layout: Layout) -> None:
        """The new state, when something differs; whole or not at all."""
        known = {note.id for note in board.notes}
        layout = Layout({note: place for note, place in layout.places.items() if note in known})
        if (board, layout) == (self.board, self.layout):
            return
        self._keep(board, layout)
        self._past = [*self._past, (self.board, self.layout)][-STEPS:]
        self._future = []
        self.board, self.layout = board, layout

    def _back(self, taken: list[tuple[Board, Layout]], given: list[tuple[Board, Layout]]) -> None:
        if taken:
            board, layout = taken[-1]
            self._keep(board, layout)
            taken.pop()
            given.append((self.board, self.layout))
            self.board, self.layout = board, layout

    def _keep(self, board: Board, layout: Layout) -> None:
        if self.path is None:
            return
        beside = Layout.beside(self.path)
        for path, text in ((self.path, board.text()), (beside, layout.text() if layout.places else None)):
            if text == self._kept[path]:
                continue
            try:
                if _text_of(path) != self._kept[path]:
                    raise InvalidValue(f"{path.name} was changed by somebody else", hint="reload it; undo brings yours back")
                if text is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, text)
            except OSError as why:
                raise InvalidValue(f"{path.name} cannot be written: {why.strerror}") from None
            self._kept[path] = text


def look() -> dict[str, Any]:
    """How the kinds look, and what may lead to what: for whoever draws them."""
    return {kind: {"letter": LETTERS[kind], "colour": SHAPES[kind][2], "leads": list(LEADS[kind])} for kind in KINDS}


def _turned(board: Board, note: Note, what: Mapping[str, Any]) -> Board:
    """With a note of another kind, without the links that make no sense any more."""
    kind = str(what["kind"])
    if kind not in KINDS:
        raise InvalidValue(f"there is no kind of note {kind!r}", hint=", ".join(KINDS))
    notes = []
    for of in board.notes:
        if of.id == note.id:
            to = tuple(to for to in of.to if board.note(to).kind in LEADS[kind])
            notes.append(replace(of, **{**what, "to": to, "within": of.within if kind == "policy" else None}))
        else:
            notes.append(replace(of, to=tuple(to for to in of.to if to != note.id or kind in LEADS[of.kind])))
    examples = tuple(of for of in board.examples if all(fact.note != note.id for fact in of.facts))
    return replace(board, notes=tuple(notes), examples=examples)


def _plain(what: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """What would be of a note, to see whether anything differs."""
    changed = replace(note, **what)
    return {of.name: getattr(changed, of.name) for of in fields(Note) if of.name in what}


def _pixels(value: Any) -> float:
    number = float(value)
    if not -100_000 <= number <= 100_000:
        raise InvalidValue(f"{value!r} is no place on a board")
    return number


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None

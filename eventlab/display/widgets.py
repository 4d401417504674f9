"""Live views in JupyterLab: one Python class and one ES module each, and nothing fetched from outside.

Only what a view shows and what a person does crosses over; what comes of it is decided by a controller that needs no browser.
Messages may come on other threads, also while a cell runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eventlab.display.editing import Editor, look
from eventlab.display.html import board_html
from eventlab.errors import Unsupported
from eventlab.storming.board import Board, Layout

try:
    import anywidget
    import traitlets
except ImportError:
    raise Unsupported("live views need anywidget, which is not installed", hint='pip install "eventlab[lab]"') from None

_HERE: Final = Path(__file__).parent
_VIEW: Final = "application/vnd.jupyter.widget-view+json"


class BoardView(anywidget.AnyWidget):
    """A board that people work at; `board` is its value, now."""

    _esm = _HERE / "board.js"
    _css = _HERE / "board.css"
    look = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._told = 0
        self._one = threading.Lock()
        super().__init__(look=look(), state=self._state())
        self.on_msg(self._hear)

    @property
    def board(self) -> Board:
        """The board as it is now: a value, which later gestures do not change."""
        return self.editor.board

    @property
    def layout_of_notes(self) -> Layout:
        """Where its notes lie."""
        return self.editor.layout

    def do(self, **gesture: Any) -> bool:
        """Do what a gesture does, from Python: `view.do(do="add", kind="event", name="order placed")`."""
        with self._one:
            done = self.editor.do(gesture)
            self.state = self._state()
        return done

    def code(self) -> str:
        """Python that gives this board in another cell."""
        path = self.editor.path
        return f"el.Board.load({str(path)!r})" if path is not None else f"el.Board.read({self.board.text()!r})"

    def _hear(self, _widget: Any, gesture: Any, _buffers: Any) -> None:
        self.do(**gesture if isinstance(gesture, Mapping) else {"do": ""})

    def _state(self) -> dict[str, Any]:
        self._told += 1
        return {**self.editor.state(), "turn": self._told}

    def __repr__(self) -> str:
        return f"BoardView({self.editor.board!r})"

    def _repr_mimebundle_(self, **how: Any) -> Any:
        """The live view, and for whoever cannot run it the board as a picture."""
        bundle = super()._repr_mimebundle_(**how)
        data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {of: value for of, value in data.items() if of == _VIEW}
        return {"text/plain": repr(self), "text/html": board_html(self.board, self.editor.layout), **data}, about


def storm(board: Board | str | os.PathLike[str]) -> BoardView:
    """Open a board to work at: a value, or a file, which is made where there is none and holds every change at once.

    In JupyterLab it is live: notes are typed, dragged, connected, undone. `view.board` is the value for the next cell.
    """
    if isinstance(board, Board):
        return BoardView(Editor(board))
    path = Path(board)
    if not path.exists():
        return BoardView(Editor(Board(path.stem.removesuffix(".board")), path=path))
    beside = Layout.beside(path)
    layout = Layout.read(beside.read_text(encoding="utf-8")) if beside.exists() else Layout()
    return BoardView(Editor(Board.load(path), layout, path))

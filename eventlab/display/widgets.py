"""Live views in JupyterLab: one Python class and one ES module each, and nothing fetched from outside.

Only what a view shows and what a person does crosses over; what comes of it is decided by a controller that needs no browser.
Messages may come on other threads, also while a cell runs.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from eventlab.display.browsing import Browser
from eventlab.display.editing import Editor, look
from eventlab.display.following import Follower
from eventlab.display.looking import AsOf, Inspector
from eventlab.display.stepping import Stepper, stepper
from eventlab.display.view import Controller
from eventlab.display.watching import Watcher
from eventlab.errors import InvalidValue, Unsupported
from eventlab.lab import Lab
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.meta import Recorded
from eventlab.storming.board import Board, Layout
from eventlab.temporal.debugger import Debugger, Parting

try:
    import anywidget
    import traitlets
except ImportError:
    raise Unsupported("live views need anywidget, which is not installed", hint='pip install "eventlab[lab]"') from None

C = TypeVar("C", bound=Controller)
_JS: Final = Path(__file__).parent / "js"
_VIEW: Final = "application/vnd.jupyter.widget-view+json"


def _module(name: str, kind: str) -> str:
    """The text of a view: what all of them begin with, and its own."""
    files = [_JS / f"{of}.{kind}" for of in ("common", name)]
    return "".join(file.read_text(encoding="utf-8") for file in files if file.exists())


class LiveView(anywidget.AnyWidget, Generic[C]):
    """A view of a controller: what it gives is drawn, and what a person does comes to it."""

    state = traitlets.Dict().tag(sync=True)

    def __init__(self, controller: C, **more: Any) -> None:
        self.controller = controller
        self._drawn = 0
        self._one = threading.RLock()
        super().__init__(state=self._state(), **more)
        self.on_msg(self._hear)

    def do(self, **gesture: Any) -> bool:
        """Do what a gesture does, from Python; whether it was done. What was wrong is in `error`."""
        with self._one:
            done = self.controller.do(gesture)
            replies = self.controller.taken()
            # A page of rows is no change of the state.
            if self.controller.error or not replies:
                self.state = self._state()
            for reply in replies:
                self.send(reply)
        return done

    @property
    def error(self) -> str:
        """What was wrong with the last gesture."""
        return self.controller.error

    def code(self) -> str:
        """Python that gives what is shown, for the next cell."""
        return self.controller.code()

    def _hear(self, _widget: Any, gesture: Any, _buffers: Any) -> None:
        self.do(**gesture if isinstance(gesture, Mapping) else {"do": ""})

    def _state(self) -> dict[str, Any]:
        self._drawn += 1
        return {**self.controller.state(), "turn": self._drawn}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.controller!r})"

    def _repr_mimebundle_(self, **how: Any) -> Any:
        """The live view, and for whoever cannot run it what it shows as HTML."""
        bundle = super()._repr_mimebundle_(**how)
        data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {of: value for of, value in data.items() if of == _VIEW}
        return {"text/plain": repr(self), "text/html": self.controller.html(), **data}, about


class BoardView(LiveView[Editor]):
    """A board that people work at; `board` is its value, now."""

    _esm = _module("board", "js")
    _css = _module("board", "css")
    look = traitlets.Dict().tag(sync=True)

    def __init__(self, editor: Editor) -> None:
        super().__init__(editor, look=look())

    @property
    def board(self) -> Board:
        """The board as it is now: a value, which later gestures do not change."""
        return self.controller.board

    @property
    def layout_of_notes(self) -> Layout:
        """Where its notes lie."""
        return self.controller.layout

    def __repr__(self) -> str:
        return f"BoardView({self.board!r})"


class BrowserView(LiveView[Browser]):
    """The events of a log, to be looked through."""

    _esm = _module("browser", "js")
    _css = _module("browser", "css")


class StepperView(LiveView[Stepper]):
    """A debugger, to be stepped through."""

    _esm = _module("stepper", "js")
    _css = _module("stepper", "css")

    def swap(self, other: type[Any]) -> Parting | None:
        """Hold another definition of the fold against this one, edited in a cell: where their states part first."""
        with self._one:
            found = self.controller.swap(other)
            self.state = self._state()
        return found


class AsOfView(LiveView[AsOf]):
    """A model as of a moment that is slid along the log."""

    _esm = _module("asof", "js")
    _css = _module("asof", "css")


class InspectorView(LiveView[Inspector]):
    """A read model, looked into."""

    _esm = _module("inspector", "js")
    _css = _module("inspector", "css")


class FollowerView(LiveView[Follower]):
    """A conversation, to be followed from cause to effect."""

    _esm = _module("follow", "js")
    _css = _module("follow", "css")


class WatcherView(LiveView[Watcher]):
    """What goes on in a store, now."""

    _esm = _module("watch", "js")
    _css = _module("watch", "css")


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


def browse(lab: Lab, filter: Filter = EVERYTHING) -> BrowserView:
    """Look through the events of a log, or those that a filter picks: scroll, filter, open, compare, follow causes.

    In JupyterLab it is live; `view.code()` gives the Python for what is looked at.
    """
    return BrowserView(Browser(_lab(lab), filter))


def step(debugger: Debugger) -> StepperView:
    """A debugger with a face: `el.step(lab.debug(Order, "7"))`. Step both ways, run to stops, see what each event changed.

    `view.swap(OtherOrder)` holds another definition of the fold against it.
    """
    return StepperView(stepper(debugger))


def slide(lab: Lab, model: type[Any], id: str | None = None) -> AsOfView:
    """A model as of any moment, by a slider along the log: the table of all, or the state of one."""
    return AsOfView(AsOf(_lab(lab), model, id))


def inspect(lab: Lab, model: type[Any]) -> InspectorView:
    """A read model looked into: its rows, what it rests on, what stopped, and which events made a cell."""
    return InspectorView(Inspector(_lab(lab), model))


def follow(lab: Lab, of: Recorded | uuid.UUID | str) -> FollowerView:
    """A conversation, of an event or of a correlation id: its events as a waterfall and a graph, from cause to effect."""
    return FollowerView(Follower(_lab(lab), of))


def watch(lab: Lab) -> WatcherView:
    """What goes on in a store: how fast events come, how far behind read models and consumers are; looked at each second."""
    return WatcherView(Watcher(_lab(lab)))


def _lab(given: Any) -> Lab:
    if not isinstance(given, Lab):
        raise InvalidValue(f"{given!r} is no lab", hint='lab = el.open("data/shop")')
    return given

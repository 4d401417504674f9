"""Progress of long work: a bar in a terminal, a widget in a notebook, nothing where nobody looks.

`EVENTLAB_PROGRESS` decides: `auto` (the default) looks for a terminal or a notebook, `off` is always quiet.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Final

from eventlab.temporal.reader import Bar

#: Work that is over before this many seconds shows nothing.
PATIENCE: Final = 0.7


def open_bar(what: str, total: int) -> Bar:
    """A progress display for a piece of work of `total` events."""
    if os.environ.get("EVENTLAB_PROGRESS", "auto") == "off" or threading.current_thread() is not threading.main_thread():
        return Bar()
    if _in_notebook():
        return _Late(what, total, _notebook_bar)
    return _Late(what, total, _terminal_bar) if sys.stderr.isatty() else Bar()


class _Late(Bar):
    """Waits before it shows anything, and then shows a real bar."""

    def __init__(self, what: str, total: int, make: Any) -> None:
        self._what, self._total, self._make = what, total, make
        self._started = time.monotonic()
        self._done = 0
        self._bar: Bar | None = None

    def advance(self, events: int) -> None:
        """So many more events are done."""
        self._done += events
        if self._bar is not None:
            self._bar.advance(events)
        elif time.monotonic() - self._started > PATIENCE:
            self._bar = self._make(self._what, self._total)
            self._bar.advance(self._done)

    def close(self) -> None:
        """The work is over."""
        if self._bar is not None:
            self._bar.close()


class _Terminal(Bar):
    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self, events: int) -> None:
        """So many more events are done."""
        self._progress.advance(self._task, events)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class _Notebook(Bar):
    def __init__(self, what: str, total: int) -> None:
        from IPython.display import display
        from ipywidgets import IntProgress

        self._bar = IntProgress(value=0, max=max(total, 1), description=what, style={"description_width": "initial"})
        display(self._bar)  # type: ignore[no-untyped-call]

    def advance(self, events: int) -> None:
        """So many more events are done."""
        self._bar.value += events

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _terminal_bar(what: str, total: int) -> Bar:
    try:
        return _Terminal(what, total)
    except Exception:
        # Another live display holds the terminal: the work goes on without a bar.
        return Bar()


def _notebook_bar(what: str, total: int) -> Bar:
    try:
        return _Notebook(what, total)
    except ImportError:
        return Bar()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    here = shell.get_ipython() if shell is not None else None
    return here is not None and type(here).__name__ == "ZMQInteractiveShell"

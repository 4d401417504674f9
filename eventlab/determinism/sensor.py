"""The sensor: what a fold touches while it runs, wherever it is called from: the clock, chance, the machine, files, threads.

It sees what reading the code cannot: a library that looks at the clock deep inside. It is a profile function of this thread
and an audit hook of this process, and costs a few microseconds a call; so it watches the first events, and not a whole log.
"""

from __future__ import annotations

import builtins
import datetime as dt
import os
import random
import sys
import time
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Protocol, Self

from eventlab.replay.rows import RowFold


@dataclass(frozen=True)
class Touch:
    """What a fold did to the world around it or read of it: where in the code, and at which event first."""

    what: str
    place: str
    position: int
    stream: str
    event: str

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else ""
        return f"{self.what}{where}, first at position {self.position:,} ({self.event} of {self.stream!r})"


class Where(Protocol):
    """Who knows the position of the last event that was folded."""

    position: int


_CLOCKS: Final = {
    getattr(time, name)
    for name in "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns "
    "clock_gettime clock_gettime_ns".split()
    if hasattr(time, name)
}
_OS: Final = {os.urandom, os.getpid, os.getppid, os.getcwd, os.uname, os.getloadavg, os.times}
_NOW: Final = frozenset({"now", "utcnow", "today"})
_ENVIRONMENT: Final = type(os.environ).__getitem__.__code__
#: Where an audit event begins like this, something outside is touched.
_AUDITED: Final = (
    "open", "os.listdir", "os.scandir", "os.system", "os.putenv", "os.remove", "os.rename", "os.mkdir", "os.spawn", "os.exec",
    "os.fork", "os.kill", "subprocess.Popen", "socket.", "sqlite3.connect", "urllib.Request", "tempfile.", "shutil.",
    "_thread.start_new_thread", "time.sleep",
)  # fmt: skip
#: The frames from which a model's code is called.
_ROOTS: Final[frozenset[CodeType]] = frozenset({RowFold._run.__code__, RowFold._keys.__code__})
#: Files that these read are part of the program, and the same for every run of it.
_PROGRAM: Final = ("<frozen importlib", "zoneinfo", "linecache", "inspect")


class Sensor:
    """Watches while it is entered; `found` has what was touched, with the place in the code and the position before."""

    _hooked: Sensor | None = None
    _installed = False

    def __init__(self, where: Where) -> None:
        self.found: dict[str, tuple[str, int]] = {}
        self._where = where
        self._busy = False

    def __enter__(self) -> Self:
        if not Sensor._installed:
            # An audit hook stays as long as its process.
            sys.addaudithook(_audited)
            Sensor._installed = True
        Sensor._hooked = self
        sys.setprofile(self._profile)
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None) -> None:
        sys.setprofile(None)
        Sensor._hooked = None

    def _profile(self, frame: FrameType, event: str, of: Any) -> None:
        if event == "call":
            if frame.f_code is _ENVIRONMENT:
                self._touched("reads os.environ", frame.f_back)
        elif event == "c_call":
            what = _named(of)
            if what is not None:
                self._touched(what, frame, of)

    def _touched(self, what: str, frame: FrameType | None, of: Any = None) -> None:
        if what in self.found or self._busy or frame is None:
            return
        # `hash` and `id` are how a library finds its way; what counts is the fold's own use.
        if of in (builtins.hash, builtins.id) and (_library(frame.f_code.co_filename) or frame.f_code.co_filename[:1] == "<"):
            return
        place = self._place(frame)
        if place is not None:
            self.found[what] = (place, self._where.position)

    def audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Something outside is about to be touched."""
        if self._busy or not name.startswith(_AUDITED):
            return
        self._busy = True
        try:
            place = self._place(sys._getframe(2))
            if place is not None:
                about = f" {str(arguments[0])[:60]!r}" if name == "open" and arguments else ""
                verb = "opens" if name == "open" else f"does {name}"
                self.found.setdefault(f"{verb}{about}", (place, self._where.position))
        finally:
            self._busy = False

    @staticmethod
    def _place(frame: FrameType | None) -> str | None:
        """The line of the model's code from which it came; None where no fold called it, or only the program was read."""
        last = None
        while frame is not None:
            if frame.f_code in _ROOTS:
                return None if last is None else f"{os.path.basename(last.f_code.co_filename)}:{last.f_lineno}"
            if any(part in frame.f_code.co_filename for part in _PROGRAM):
                return None
            last, frame = frame, frame.f_back
        return None


def _audited(name: str, arguments: tuple[Any, ...]) -> None:
    sensor = Sensor._hooked
    if sensor is not None:
        sensor.audited(name, arguments)


def _named(of: Any) -> str | None:
    """What a function of C does that a fold should not; None where it is harmless."""
    owner = getattr(of, "__self__", None)
    try:
        if of in _CLOCKS:
            return f"calls time.{of.__name__}()"
        if of in _OS:
            return f"calls os.{of.__name__}()"
    except TypeError:  # it cannot be hashed, and so is none of these
        return None
    name = getattr(of, "__name__", "")
    if name in _NOW and isinstance(owner, type) and issubclass(owner, dt.date):
        return f"calls {owner.__name__}.{name}()"
    if owner is _chance() or type(owner).__name__ == "RandomState" or isinstance(owner, random.SystemRandom):
        return "draws from the random numbers of the process"
    if name == "generate_time_safe":
        return "makes an id from the clock"
    if of is builtins.hash or of is builtins.id:
        return f"calls {name}()"
    return None


def _chance() -> Any:
    """The generator that the functions of `random` share."""
    return random._inst


def _library(file: str) -> bool:
    return file.startswith((sys.prefix, sys.base_prefix)) or "site-packages" in file

"""Fresh processes for jobs: started under a variant's conditions, watched while they fold, ended when they hang or eat memory.

They end with this process, and when whoever waits for them gives up.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from eventlab import errors
from eventlab.determinism.sensor import Touch
from eventlab.determinism.variants import BASELINE, Variant
from eventlab.determinism.worker import ELSEWHERE, WHERE, Job, Outcome, event_after, import_model
from eventlab.errors import StoreError
from eventlab.store.base import ALL
from eventlab.store.disk import open_store

#: Seconds that an event may take; a fold that takes longer is said to hang.
PATIENCE: Final = 60.0
#: The share of this machine's memory that a process may take before it is ended.
MEMORY_SHARE: Final = 0.4
_LOOK: Final = 0.1


@dataclass(frozen=True)
class Stopped:
    """A fold that came to no end: it raised, hung, took too much memory, or ended its process; and the event it was at."""

    model: str
    what: str
    position: int
    stream: str
    event: str
    variant: str

    def __str__(self) -> str:
        at = f" at position {self.position:,} ({self.event} of {self.stream!r})" if self.event else ""
        return f"{self.model} {self.what}{at}, under {self.variant!r}"


@dataclass(frozen=True)
class Done:
    """What came of a job, by model: an outcome, why it stopped, that it forked."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stopped: dict[str, Stopped] = field(default_factory=dict)
    forked: dict[str, Touch] = field(default_factory=dict)


class Workers:
    """Fresh processes; all of them are ended when it is left."""

    def __init__(self, patience: float = PATIENCE, memory: int | None = None) -> None:
        self._patience = patience
        self._memory = memory if memory is not None else int(_memory_of_machine() * MEMORY_SHARE)
        self._live: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._over = True
            for process in self._live:
                process.kill()

    def run(self, job: Job, variant: Variant = BASELINE) -> Done:
        """Do a job under a variant's conditions, in a fresh process; in another one for what is left when it ends early."""
        done, left = Done(), job.models
        while left:
            for reference, answer in self._once(replace(job, models=left), variant):
                if isinstance(answer, Outcome):
                    done.outcomes[reference] = answer
                elif isinstance(answer, Stopped):
                    done.stopped[reference] = answer
                else:
                    done.forked[reference] = answer
            rest = tuple(of for of in left if of not in done.outcomes and of not in done.stopped)
            if len(rest) == len(left):
                raise StoreError("a worker of the check did nothing", hint="run it again; if it stays, it is a fault of eventlab")
            left = rest
        return done

    def _once(self, job: Job, variant: Variant) -> Iterator[tuple[str, Outcome | Stopped | Touch]]:
        with tempfile.NamedTemporaryFile(prefix="eventlab-board-") as board:
            board.write(WHERE.pack(0, ELSEWHERE))
            board.flush()
            own = {"batch": variant.batch, "collector": variant.collector, "board": board.name, "parent": os.getpid()}
            text = json.dumps(asdict(job) | own)
            with self._started(variant) as process:
                told: list[tuple[str, str]] = []
                reader = threading.Thread(target=lambda: told.append(process.communicate(text)), daemon=True)
                reader.start()
                why = self._watch(process, reader, board.name)
                reader.join()
                number, position = WHERE.unpack(Path(board.name).read_bytes())
        out, err = told[0] if told else ("", "")
        if self._over:
            raise KeyboardInterrupt
        at = job.models[min(number, len(job.models) - 1)]
        for line in out.splitlines():
            answer = _parsed(line)
            if answer is None:
                continue
            if answer[0] == "refused":
                raise getattr(errors, answer[1])(answer[2], hint=answer[3])
            if answer[0] == "forked":
                yield job.models[answer[1]], _forked(job.models[answer[1]], answer[2], job)
            elif answer[0] == "exited":
                why = f"ends its process with SystemExit({answer[1]})"
            else:
                yield answer[0], Outcome.read(answer[1])
        if why is None and process.returncode != 0:
            why = f"ends its process with {_ended(process.returncode)}"
            if position == ELSEWHERE:
                raise StoreError(f"a worker of the check died: {why}", hint=err.strip()[-2000:])
        if why is not None:
            yield at, _stopped(at, why, position, job, variant)

    @contextlib.contextmanager
    def _started(self, variant: Variant) -> Iterator[subprocess.Popen[str]]:
        # -I would ignore PYTHONHASHSEED; -s and -P keep the user's site and the working directory out.
        command = [sys.executable, "-s", "-P", *(["-O"] if variant.optimise else []), "-m", "eventlab.determinism.worker"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_")) and k not in ("TZ", "LANG")}
        environment = {**kept, **variant.environment, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
        with self._lock:
            if self._over:
                raise KeyboardInterrupt
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=variant.folder
            )
            self._live.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._live.discard(process)

    def _watch(self, process: subprocess.Popen[str], reader: threading.Thread, board: str) -> str | None:
        """Wait for its end; what it did wrong where it has to be ended."""
        before, since = b"", time.monotonic()
        with open(board, "rb") as file, mmap.mmap(file.fileno(), WHERE.size, access=mmap.ACCESS_READ) as memory:
            while True:
                reader.join(_LOOK)
                if not reader.is_alive():
                    return None
                now = memory[:]
                if now != before or WHERE.unpack(now)[1] == ELSEWHERE:
                    before, since = now, time.monotonic()
                elif time.monotonic() - since > self._patience:
                    process.kill()
                    return f"hangs (nothing came of one event in {self._patience:g} s)"
                taken = _memory_of(process.pid)
                if taken > self._memory:
                    process.kill()
                    return f"takes {taken / 2**30:.1f} GiB of memory (of {self._memory / 2**30:.1f} that it may)"


def _parsed(line: str) -> list[Any] | None:
    """A line of a worker; None where it was killed in the middle of it."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, list) and found else None


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _stopped(reference: str, what: str, position: int, job: Job, variant: Variant) -> Stopped:
    return Stopped(import_model(reference).name, what, *_event_after(reference, position, job), variant.name)


def _forked(reference: str, position: int, job: Job) -> Touch:
    return Touch("forks its process", "", *_event_after(reference, position, job))


def _event_after(reference: str, position: int, job: Job) -> tuple[int, str, str]:
    """The event that comes after the last one that was folded: its position, stream and type."""
    if position == ELSEWHERE:
        return 0, "", ""
    store = open_store(job.store, now=lambda: 0, create=False)
    try:
        return event_after(import_model(reference), store.cut(), ALL if job.tenant is None else job.tenant, position, job)
    finally:
        store.close()


def _memory_of(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

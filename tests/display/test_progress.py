"""Progress shows itself to a person at a terminal, and to nobody else."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from eventlab.display import progress

WORK = """
import time
from eventlab.display.progress import open_bar
bar = open_bar("fold order", 100)
for _ in range(15):
    bar.advance(5)
    time.sleep(0.1)
bar.close()
print("done")
"""


def run_at_a_terminal(**environment: str) -> str:
    """What a person sees: the process has a terminal for its output."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "EVENTLAB_PROGRESS": "auto", **environment}
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=child, stderr=child, env=env, close_fds=True)
    os.close(child)
    seen = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ready, _, _ = select.select([parent], [], [], 0.2)
        if ready:
            try:
                seen += os.read(parent, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    process.wait(10)
    os.close(parent)
    return seen.decode(errors="replace")


def test_long_work_shows_a_bar_at_a_terminal() -> None:
    seen = run_at_a_terminal()
    assert "fold order" in seen
    assert "done" in seen


def test_progress_can_be_switched_off() -> None:
    seen = run_at_a_terminal(EVENTLAB_PROGRESS="off")
    assert "fold order" not in seen
    assert "done" in seen


def test_without_a_terminal_nothing_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "EVENTLAB_PROGRESS": "auto"},
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_short_work_does_not_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    bar = progress._Late("quick", 10, lambda what, total: made.append(what) or progress.Bar())
    bar.advance(10)
    bar.close()
    assert made == []
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    bar = progress._Late("slow", 10, lambda what, total: made.append(what) or progress.Bar())
    bar.advance(5)
    assert made == ["slow"]

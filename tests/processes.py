"""Functions of test modules in processes of their own: fresh ones, for a fork takes threads' locks along and not the threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent


def started(function: Callable[..., Any], *arguments: object) -> subprocess.Popen[bytes]:
    """Call a function of a test module with texts, in a process of its own."""
    file = Path(sys.modules[function.__module__].__file__ or "").resolve()
    name = function.__name__
    code = f"import sys; sys.path.insert(0, {str(file.parent)!r}); from {file.stem} import {name}; {name}(*sys.argv[1:])"
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)


def ended(processes: list[subprocess.Popen[bytes]], seconds: float = 60) -> list[int]:
    """Wait for them; their exit codes. What they said on the way out is printed."""
    codes = []
    for process in processes:
        _, said = process.communicate(timeout=seconds)
        if process.returncode not in (0, 1, -9):
            print(said.decode())
        codes.append(process.returncode)
    return codes

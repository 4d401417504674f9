"""The same verbs from a shell: `eventlab --help` names them, `eventlab VERB --help` tells of one.

`parser` says what each takes; `using` looks at a log and keeps its read models, `proving` proves what code makes of it,
`designing` goes between a log, a board and documents, `keeping` looks after files; `shared` is what they have in common.

Exit codes: 0 done; 1 done, and something was found (a divergence, damage, an unexpected answer); 2 the command line is
wrong; 3 the call was refused or the model is wrong; 4 the store or its disk needs attention; 5 try again; 130 interrupted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sqlite3
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from eventlab import display
from eventlab.cli.parser import command_line
from eventlab.errors import EventlabError, ModelError, Refused, StoreError, TryAgain
from eventlab.schemas import SchemaWarning

_CODES: Final[tuple[tuple[type[EventlabError], int], ...]] = ((Refused, 3), (ModelError, 3), (StoreError, 4), (TryAgain, 5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    parser = command_line()
    given = parser.parse_args(arguments)
    display.register()
    python_says = warnings.showwarning
    warnings.showwarning = functools.partial(_warn, python_says)
    # The folder it is called from is where a user's own model modules are.
    sys.path.insert(0, os.getcwd())
    # Without a terminal there is no width to keep to: a file or a pipe gets whole lines.
    console = Console(quiet=given.json, width=None if sys.stdout.isatty() else 180, emoji=False)
    try:
        return int(given.run(given, console))
    except EventlabError as why:
        _complain(given, type(why).__name__, why.message, why.hint)
        return next((code for kind, code in _CODES if isinstance(why, kind)), 3)
    except KeyboardInterrupt:
        _complain(given, "Interrupted", "interrupted; what was acknowledged is safe", "the same command goes on where it stopped")
        return 130
    except BrokenPipeError:
        # Whoever reads our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except sqlite3.Error as why:
        _complain(given, "Damaged", f"the catalog of {given.store} cannot be read: {why}", "restore a backup: eventlab restore")
        return 4
    except OSError as why:
        where = f" at {why.filename}" if why.filename else ""
        _complain(given, "StoreError", f"the system refused{where}: {why.strerror or why}", "see to the folder, then repeat it")
        return 4
    finally:
        warnings.showwarning = python_says


def _warn(other: Any, message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    """What the classes here cannot read is said like everything else; other warnings as Python says them."""
    if issubclass(category, SchemaWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        other(message, category, *rest, **more)


def _complain(given: argparse.Namespace, kind: str, message: str, hint: str) -> None:
    if given.json:
        print(json.dumps({"error": kind, "message": message, "hint": hint}))
        return
    console = Console(stderr=True, highlight=False, emoji=False)
    console.print(f"[bold red]{kind}[/bold red]: {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f"Hint: {escape(hint)}", soft_wrap=True)

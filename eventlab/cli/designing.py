"""Commands between a log, a design and its documents."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import re
from pathlib import Path

from rich.console import Console

from eventlab.cli.shared import (
    load_models,
    opened,
    print_json,
    say,
    show_frame,
    working,
)
from eventlab.display.catalogue import write as write_catalogue
from eventlab.errors import InvalidValue
from eventlab.lab import scratch as el_scratch
from eventlab.model.filters import EVERYTHING, category
from eventlab.store.words import many
from eventlab.storming import Board, markdown, review, write
from eventlab.storming.discovery import told
from eventlab.storming.process import SHARES, Process, limits, read_accepted, read_text


def discover_command(given: argparse.Namespace, console: Console) -> int:
    """What happens in a log."""
    load_models(given)
    with opened(given) as lab, working("look at what happens"):
        found = lab.discover(category(*given.category) if given.category else EVERYTHING, step=given.step)
    if given.save:
        Path(given.save).write_text(Process.of(found).text(), encoding="utf-8")
    if given.mermaid:
        say(console, found.mermaid(given.nodes).rstrip())
    elif given.json:
        print_json(told(found))
    else:
        say(console, repr(found))
        for name in ("map", "variants"):
            show_frame(getattr(found, name), given, console)
    return 0


def conform_command(given: argparse.Namespace, console: Console) -> int:
    """A log held against a design."""
    least, design = limits(given.fail_under or ()), _design(Path(given.design))
    accepted = read_accepted(Path(given.accepted)) if given.accepted else []
    with opened(given) as lab, working("hold the log against its design"):
        found = lab.conform(design, step=given.step).accepting(accepted, dt.datetime.now(dt.UTC).date())
    if given.json:
        about = {name: getattr(found, name) for name in ("category", "streams", *SHARES, "first", "last", "ok")}
        frames = {"deviations": found.deviations, "accepted": found.accepted}
        listed = {name: frame.to_dicts() if frame is not None else [] for name, frame in frames.items()}
        print_json(about | listed | {"not_observable": list(found.not_observable)})
    else:
        say(console, str(found))
        if len(found.deviations):
            show_frame(found.deviations, given, console)
        for unseen in found.not_observable:
            say(console, f"not observable: {unseen}")
    good = all(_good(name, getattr(found, name), number) for name, number in least.items()) if least else found.ok
    return 0 if good else 1


def _design(path: Path) -> Process | Board:
    """A process or a board, by what its file says."""
    text = read_text(path)
    return Board.read(text) if re.search(r"^board\s*=", text, re.MULTILINE) else Process.read(text)


def _good(name: str, share: float, limit: float) -> bool:
    return share <= limit if name == "drift" else share >= limit


def board_command(given: argparse.Namespace, console: Console) -> int:
    """A board shown, reviewed, drawn, made into code, or compared."""
    path = Path(given.file)
    if given.verb == "draw":
        models = [model.cls for model in load_models(given)]
        with el_scratch() if models else opened(given) as lab:
            drawn = lab.board(given.name or path.stem.removesuffix(".board"), *models)
        if path.exists() and not given.force:
            raise InvalidValue(f"{path} is there already", hint="another file, or --force; board diff compares two")
        drawn.save(path)
        say(console, f"{path}: {drawn!r}")
        return 0
    board = Board.load(path)
    if given.verb == "diff":
        if not given.since:
            raise InvalidValue("diff compares with an older board", hint="--since OLD.board.toml")
        changes = board.changes(Board.load(given.since))
        return _listed([str(one) for one in changes], "changes", "no difference", given, console)
    if given.verb == "review":
        said = [f"{one.code} {one.message} ({one.hint})" for one in review(board)]
        return _listed(said, "findings", "nothing to say", given, console)
    if given.verb == "code":
        written = write(board, Path(given.out or "."))
        if given.json:
            print_json({"files": [{"path": str(of.path), "what": of.what, "diff": of.diff} for of in written]})
        for of in written:
            say(console, str(of))
            if of.diff:
                say(console, of.diff.rstrip())
        return 0
    if given.json:
        print_json({"name": board.name, "notes": board.table().to_dicts(), "examples": [of.name for of in board.examples]})
    else:
        say(console, markdown(board).rstrip())
    return 0


def _listed(lines: list[str], name: str, none: str, given: argparse.Namespace, console: Console) -> int:
    if given.json:
        print_json({name: lines})
    for line in lines or [none]:
        say(console, line)
    return 1 if lines else 0


def docs_command(given: argparse.Namespace, console: Console) -> int:
    """The catalogue."""
    models = load_models(given, required=True)
    with contextlib.ExitStack() as stack:
        lab = None if given.code_only else stack.enter_context(opened(given))
        written = write_catalogue(models, Path(given.out), lab)
    if given.json:
        print_json({"files": [str(path) for path in written]})
    else:
        say(console, f"{many(len(written), 'file')} written; {written[1]}")
    return 0

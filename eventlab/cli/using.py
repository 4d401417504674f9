"""Commands for whoever looks at a log and keeps its read models."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import eventlab
from eventlab.cli.shared import (
    configured,
    event_dict,
    fields_of,
    filter_of,
    import_models,
    load_models,
    moment_of,
    named,
    opened,
    pair,
    print_json,
    say,
    show_frame,
    shown,
    stored,
    working,
)
from eventlab.errors import (
    NotLiftable,
    Refused,
    UnknownType,
)
from eventlab.model.events import findings
from eventlab.model.models import MODELS
from eventlab.projections.consumers import CONSUMERS
from eventlab.projections.handmade import HANDMADE


def demo_command(given: argparse.Namespace, console: Console) -> int:
    """The main job, end to end."""
    from eventlab import demo

    done = demo.run(Path(given.store), console, quick=given.quick)
    if given.json:
        print_json(done.to_dict())
    return 0 if done.as_expected else 1


def info_command(given: argparse.Namespace, console: Console) -> int:
    """A store explained."""
    from eventlab.store.info import info

    with stored(given) as store, working(f"counting {given.store}"):
        found = info(store)
    if given.json:
        print_json({**dataclasses.asdict(found), "findings": [dataclasses.asdict(f) for f in findings()]})
    say(console, str(found))
    return 0


def show_command(given: argparse.Namespace, console: Console) -> int:
    """One event, stream, segment or catalog row."""
    from eventlab.store import show

    asked = [given.position is not None, given.stream is not None, given.segment is not None, given.catalog is not None]
    if sum(asked) != 1:
        given.refuse("name one thing to show: a POSITION, --stream NAME, --segment NAME-OR-NUMBER, or --catalog [TABLE]")
    with stored(given) as store, working(f"looking through {given.store}"):
        found: tuple[Any, ...]
        if given.position is not None:
            found = (show.show_event(store, given.position),)
        elif given.stream is not None:
            found = show.show_stream(store, given.stream, given.tenant)
        elif given.segment is not None:
            found = (show.show_segment(store, given.segment),)
        elif given.catalog:
            where = dict(pair(text, "--where id=17") for text in given.where or ())
            found = (show.show_table(store, given.catalog, where=where, limit=given.limit),)
        else:
            found = (show.show_catalog(store),)
    if given.json:
        plain_values = [{**dataclasses.asdict(one), "ok": not one.problems} for one in found]
        print_json({"streams": plain_values} if given.stream is not None else plain_values[0])
    say(console, "\n\n".join(map(str, found)))
    return 1 if any(one.problems for one in found) else 0


def events_command(given: argparse.Namespace, console: Console) -> int:
    """Events as lines."""
    load_models(given)
    with opened(given, read_all=True) as lab:
        picked = moment_of(lab, given).read(filter_of(given), after=given.after, until=given.until, limit=given.limit)
        if given.json:
            print_json({"events": [event_dict(event) for event in picked]})
            return 0
        table = Table(box=None, header_style="bold")
        for name in ("position", "recorded at", "stream", "version", "type", "what it says"):
            right = name in ("position", "version")
            table.add_column(
                name,
                justify="right" if right else "left",
                no_wrap=True,
                overflow="ellipsis" if name == "what it says" else "fold",
            )
        for event in picked:
            said = ", ".join(f"{k}={v!r}" for k, v in fields_of(event.data).items())
            when = event.recorded_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(f"{event.position:,}", when, *map(escape, (event.stream, str(event.version), event.type, said)))
        console.print(table)
        if table.row_count == given.limit:
            console.print(f"the first {given.limit:,} after position {given.after:,}; --after and --limit show more")
    return 0


def rebuild_command(given: argparse.Namespace, console: Console) -> int:
    """Fold read models anew."""
    models = load_models(given, required=True)
    with opened(given) as lab:
        first, *more = [model.cls for model in models]
        move = lab.catch_up if given.catch_up else lab.rebuild
        done = move(first, *more) if more else [move(first)]
        if given.accept:
            for model in models:
                lab.accept(model.cls)
            done = [dataclasses.replace(one, state="accepted") for one in done]
    stopped = sum(one.parked for one in done)
    if given.json:
        print_json({"rebuilt": [dataclasses.asdict(one) for one in done]})
        return 1 if stopped else 0
    columns = ("read model", "state", "rows", "events folded", "checkpoint", "events/s", "keys that stopped")
    table = Table(*columns, box=None, header_style="bold")
    for one in done:
        table.add_row(
            f"state.{one.model}", one.state, f"{one.rows:,}", f"{one.events:,}", f"{one.position:,}",
            f"{one.events_per_second:,.0f}", f"{one.parked:,}",
        )  # fmt: skip
    console.print(table)
    if stopped:
        console.print("eventlab parked says why")
    return 1 if stopped else 0


def accept_command(given: argparse.Namespace, console: Console) -> int:
    """Take a new version of a read model."""
    models = load_models(given, required=given.fingerprint is None)
    with opened(given) as lab:
        if given.fingerprint is not None:
            done = [lab.accept(given.model, given.fingerprint)]
        else:
            done = [lab.accept(named(given.model, models))]
    if given.json:
        print_json({"accepted": [{"name": of.name, "fingerprint": of.fingerprint, "position": of.position} for of in done]})
    for of in () if given.json else done:
        where = f"{of.rows:,} rows at position {of.position:,}"
        say(console, f"state.{of.name} stands for {of.fingerprint[:8]} from here on, {where}")
    return 0


def run_command(given: argparse.Namespace, console: Console) -> int:
    """The loop that keeps everything going."""
    work = _work(given)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with opened(given) as lab:
        if given.once:
            lab.run_until_idle(*work)
        else:
            if not given.json:
                names = ", ".join(of.__name__ if isinstance(of, type) else of.name for of in work)
                say(console, f"running {names}; Ctrl-C ends it")
            lab.run(*work, lease_seconds=given.lease)
        return shown(lab.status(), given, console, "nothing is kept yet")


def status_command(given: argparse.Namespace, console: Console) -> int:
    """Where each read model and consumer stands."""
    with opened(given, read_all=True) as lab:
        return shown(lab.status(), given, console, "nothing is kept: eventlab rebuild --models …, or eventlab run")


def parked_command(given: argparse.Namespace, console: Console) -> int:
    """What stopped, and why."""
    with opened(given, read_all=True) as lab:
        found = lab.parked(given.name)
        shown(found, given, console, "nothing stopped")
        return 1 if len(found) else 0


def _work(given: argparse.Namespace) -> list[Any]:
    """What the modules named by --models define: projections, and aggregates, and consumers."""
    references = [part for text in given.models or () for part in text.split(",") if part] or configured()
    if not references:
        load_models(given, required=True)
    work: list[Any] = []
    for reference in references:
        module = reference.partition(":")[0]
        try:
            importlib.import_module(module)
        except ImportError as why:
            raise UnknownType(f"{reference} cannot be imported: {why}", hint="package.module, found from this folder") from None
        known: list[Any] = [*HANDMADE.values(), *CONSUMERS.values()]
        others = [of for of in known if of.reference.partition(":")[0] == module]
        if reference == module and others and not any(model.cls.__module__ == module for model in MODELS.all()):
            work += others
            continue
        work += [model.cls for model in import_models(reference)]
        work += others if reference == module else []
    return work


def table_command(given: argparse.Namespace, console: Console) -> int:
    """A table of a model, now or at a moment."""
    models = load_models(given)
    with opened(given, read_all=True) as lab:
        show_frame(moment_of(lab, given).table(named(given.model, models)), given, console)
    return 0


def explain_command(given: argparse.Namespace, console: Console) -> int:
    """How a model is folded."""
    models = load_models(given)
    with opened(given, read_all=True) as lab:
        plan = lab.explain(named(given.model, models))
    if given.json:
        print_json(dataclasses.asdict(plan))
        return 0
    if not (given.sql or given.loop):
        say(console, str(plan))
    for asked, text, what in (("sql" * given.sql, plan.sql, "query"), ("loop" * given.loop, plan.loop, "loop")):
        if asked and not text:
            first = plan.refusals[0] if plan.refusals else None
            why = plan.reason or (first.reason if first else "the log has no events for it")
            raise NotLiftable(f"there is no {what} that folds {plan.model}: {why}", hint=f"without --{asked} it says more")
        if asked:
            say(console, text)
    return 0


def sql_command(given: argparse.Namespace, console: Console) -> int:
    """A query."""
    load_models(given)
    parameters = dict(pair(text, "--param carrier=UA, used as $carrier in the query") for text in given.param or ())
    text = sys.stdin.read() if given.query == "-" else given.query
    with opened(given, read_all=True) as lab:
        show_frame(moment_of(lab, given).sql(text, **parameters), given, console)
    return 0


def lab_command(given: argparse.Namespace, console: Console) -> int:
    """JupyterLab on the notebooks."""
    try:
        importlib.import_module("jupyterlab")
    except ImportError:
        raise Refused("JupyterLab is not installed", hint='pip install -e ".[lab]"') from None
    # After -- the first option stands where a notebook would.
    words = [word for word in (given.notebook, *given.options) if word and word != "--"]
    named = [word for word in words if not word.startswith("-")]
    if len(named) > 1:
        raise Refused(f"{', '.join(named)} are several notebooks", hint="name one; the others are beside it")
    here = Path(named[0] if named else "notebooks/00_start_here.ipynb")
    target = here if here.exists() else Path(eventlab.__file__).parents[1] / here
    if not target.exists():
        raise Refused(f"there is no notebook {here}", hint="run it in the project's folder, or name a notebook")
    # Only those that come with eventlab: what stands in another's notebook is not known here.
    if target.resolve().parent == Path(eventlab.__file__).resolve().parents[1] / "notebooks":
        for notebook in target.parent.glob("*.ipynb"):
            _trust(notebook)
    options = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    options += ["--no-browser"] if given.no_browser else []
    options += [word for word in words if word.startswith("-")]
    console.print(f"opening {target}; Ctrl-C twice ends it")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(target), *options])


def _trust(notebook: Path) -> None:
    """Sign a notebook as `jupyter trust` does: its live views run when it is opened; one that is no notebook is passed over."""
    nbformat = importlib.import_module("nbformat")
    with contextlib.suppress(OSError, ValueError, nbformat.ValidationError):
        importlib.import_module("nbformat.sign").NotebookNotary().sign(nbformat.read(notebook, as_version=4))

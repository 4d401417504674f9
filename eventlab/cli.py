"""The same verbs from a shell.

`eventlab demo | info | show | events | rebuild | accept | run | status | parked | table | explain | sql | check | schema | lint |
snapshots | verify | seal | compact | gc | backup | restore | upgrade | lab`.

Exit codes: 0 done; 1 done, and something was found (a divergence, damage, an unexpected answer); 2 the command line is
wrong; 3 the call was refused or the model is wrong; 4 the store or its disk needs attention; 5 try again; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import importlib
import json
import math
import os
import signal
import sqlite3
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import eventlab
from eventlab import display
from eventlab.determinism.lint import Found, lint
from eventlab.determinism.selftest import selftest
from eventlab.display.catalogue import write as write_catalogue
from eventlab.errors import (
    Busy,
    Damaged,
    EventlabError,
    ModelError,
    NotLiftable,
    ReadOnly,
    Refused,
    StoreError,
    TryAgain,
    UnknownType,
)
from eventlab.lab import Lab
from eventlab.lab import open as open_lab
from eventlab.model.changes import json_schema, released
from eventlab.model.events import EVENTS, findings
from eventlab.model.filters import EVERYTHING, Filter, category, events, stream, tag
from eventlab.model.models import MODELS, Model, model_of
from eventlab.projections.consumers import CONSUMERS
from eventlab.projections.handmade import HANDMADE
from eventlab.projections.runner import LEASE_SECONDS
from eventlab.schemas import differences
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.gc import GRACE_SECONDS
from eventlab.store.maintain import alone
from eventlab.store.words import many, size_text
from eventlab.storming.discovery import told
from eventlab.storming.process import Process, limits, read_process
from eventlab.temporal.reader import Reader

DEFAULT_STORE: Final = "data/flights"

_ENVELOPE: Final = (
    "position", "stream", "version", "type", "schema_version", "event_id", "recorded_at", "occurred_at", "correlation_id",
    "causation_id", "actor", "tenant", "tags",
)  # fmt: skip
_CODES: Final[tuple[tuple[type[EventlabError], int], ...]] = ((Refused, 3), (ModelError, 3), (StoreError, 4), (TryAgain, 5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    parser = _parser()
    given = parser.parse_args(arguments)
    display.register()
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


def _complain(given: argparse.Namespace, kind: str, message: str, hint: str) -> None:
    if given.json:
        print(json.dumps({"error": kind, "message": message, "hint": hint}))
        return
    console = Console(stderr=True, highlight=False, emoji=False)
    console.print(f"[bold red]{kind}[/bold red]: {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f"Hint: {escape(hint)}", soft_wrap=True)


# -- the commands ----------------------------------------------------------------------------------------------------------


def _demo(given: argparse.Namespace, console: Console) -> int:
    from eventlab import demo

    done = demo.run(Path(given.store), console)
    if given.json:
        _print_json(done.to_dict())
    return 0 if done.as_expected else 1


def _info(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store.info import info

    with _store(given) as store, _working(f"counting {given.store}"):
        found = info(store)
    if given.json:
        _print_json({**dataclasses.asdict(found), "findings": [dataclasses.asdict(f) for f in findings()]})
    _say(console, str(found))
    return 0


def _show(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store import show

    asked = [given.position is not None, given.stream is not None, given.segment is not None, given.catalog is not None]
    if sum(asked) != 1:
        given.refuse("name one thing to show: a POSITION, --stream NAME, --segment NAME-OR-NUMBER, or --catalog [TABLE]")
    with _store(given) as store, _working(f"looking through {given.store}"):
        found: tuple[Any, ...]
        if given.position is not None:
            found = (show.show_event(store, given.position),)
        elif given.stream is not None:
            found = show.show_stream(store, given.stream, given.tenant)
        elif given.segment is not None:
            found = (show.show_segment(store, given.segment),)
        elif given.catalog:
            where = dict(_pair(text, "--where id=17") for text in given.where or ())
            found = (show.show_table(store, given.catalog, where=where, limit=given.limit),)
        else:
            found = (show.show_catalog(store),)
    if given.json:
        plain_values = [{**dataclasses.asdict(one), "ok": not one.problems} for one in found]
        _print_json({"streams": plain_values} if given.stream is not None else plain_values[0])
    _say(console, "\n\n".join(map(str, found)))
    return 1 if any(one.problems for one in found) else 0


def _events(given: argparse.Namespace, console: Console) -> int:
    _load_models(given)
    with _open(given, read_all=True) as lab:
        picked = _at(lab, given).read(_filter(given), after=given.after, until=given.until, limit=given.limit)
        if given.json:
            _print_json({"events": [_event_dict(event) for event in picked]})
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
            said = ", ".join(f"{k}={v!r}" for k, v in _fields(event.data).items())
            when = event.recorded_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(f"{event.position:,}", when, *map(escape, (event.stream, str(event.version), event.type, said)))
        console.print(table)
        if table.row_count == given.limit:
            console.print(f"the first {given.limit:,} after position {given.after:,}; --after and --limit show more")
    return 0


def _rebuild(given: argparse.Namespace, console: Console) -> int:
    models = _load_models(given, required=True)
    with _open(given) as lab:
        done = [(lab.catch_up if given.catch_up else lab.rebuild)(model.cls) for model in models]
        if given.accept:
            for model in models:
                lab.accept(model.cls)
            done = [dataclasses.replace(one, state="accepted") for one in done]
    stopped = sum(one.parked for one in done)
    if given.json:
        _print_json({"rebuilt": [dataclasses.asdict(one) for one in done]})
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


def _accept(given: argparse.Namespace, console: Console) -> int:
    models = _load_models(given, required=given.fingerprint is None)
    with _open(given) as lab:
        if given.fingerprint is not None:
            done = [lab.accept(given.model, given.fingerprint)]
        else:
            done = [lab.accept(_named(given.model, models))]
    if given.json:
        _print_json({"accepted": [{"name": of.name, "fingerprint": of.fingerprint, "position": of.position} for of in done]})
    for of in () if given.json else done:
        where = f"{of.rows:,} rows at position {of.position:,}"
        _say(console, f"state.{of.name} stands for {of.fingerprint[:8]} from here on, {where}")
    return 0


def _run(given: argparse.Namespace, console: Console) -> int:
    work = _work(given)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with _open(given) as lab:
        if given.once:
            lab.run_until_idle(*work)
        else:
            if not given.json:
                names = ", ".join(of.__name__ if isinstance(of, type) else of.name for of in work)
                _say(console, f"running {names}; Ctrl-C ends it")
            lab.run(*work, lease_seconds=given.lease)
        return _shown(lab.status(), given, console, "nothing is kept yet")


def _status(given: argparse.Namespace, console: Console) -> int:
    with _open(given, read_all=True) as lab:
        return _shown(lab.status(), given, console, "nothing is kept: eventlab rebuild --models …, or eventlab run")


def _parked(given: argparse.Namespace, console: Console) -> int:
    with _open(given, read_all=True) as lab:
        found = lab.parked(given.name)
        _shown(found, given, console, "nothing stopped")
        return 1 if len(found) else 0


def _shown(frame: Any, given: argparse.Namespace, console: Console, none: str) -> int:
    if given.json or len(frame):
        given.limit = len(frame)
        _show_frame(frame, given, console)
    else:
        _say(console, none)
    return 0


def _work(given: argparse.Namespace) -> list[Any]:
    """What the modules named by --models define: projections, and aggregates, and consumers."""
    references = [part for text in given.models or () for part in text.split(",") if part] or _configured()
    if not references:
        _load_models(given, required=True)
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
        work += [model.cls for model in _import(reference)]
        work += others if reference == module else []
    return work


def _table(given: argparse.Namespace, console: Console) -> int:
    models = _load_models(given)
    with _open(given, read_all=True) as lab:
        _show_frame(_at(lab, given).table(_named(given.model, models)), given, console)
    return 0


def _explain(given: argparse.Namespace, console: Console) -> int:
    models = _load_models(given)
    with _open(given, read_all=True) as lab:
        plan = lab.explain(_named(given.model, models))
    if given.json:
        _print_json(dataclasses.asdict(plan))
        return 0
    if not (given.sql or given.loop):
        _say(console, str(plan))
    for asked, text, what in (("sql" * given.sql, plan.sql, "query"), ("loop" * given.loop, plan.loop, "loop")):
        if asked and not text:
            first = plan.refusals[0] if plan.refusals else None
            why = plan.reason or (first.reason if first else "the log has no events for it")
            raise NotLiftable(f"there is no {what} that folds {plan.model}: {why}", hint=f"without --{asked} it says more")
        if asked:
            _say(console, text)
    return 0


def _sql(given: argparse.Namespace, console: Console) -> int:
    _load_models(given)
    parameters = dict(_pair(text, "--param carrier=UA, used as $carrier in the query") for text in given.param or ())
    text = sys.stdin.read() if given.query == "-" else given.query
    with _open(given, read_all=True) as lab:
        _show_frame(_at(lab, given).sql(text, **parameters), given, console)
    return 0


def _selftest(given: argparse.Namespace, console: Console) -> int:
    from eventlab.domains import suspects

    with _working("check the checker"):
        done = selftest(suspects.FAULTY, suspects.SOUND, suspects.streams, lambda path: open_lab(path, maintain=False))
    if given.json:
        _print_json(done.to_dict())
        return 0 if done.ok else 1
    table = Table(title="The checker, checked", show_lines=False)
    for heading in ("fold", "faulty", "read", "folded", "touches", ""):
        table.add_column(heading)
    for one in done.tried:
        right, codes, touches = "" if one.found == one.faulty else "[red]wrong[/red]", ", ".join(one.lint), ", ".join(one.touches)
        table.add_row(one.name, "yes" if one.faulty else "", codes, one.divergence or "", touches, right)
    console.print(table)
    told = done.to_dict()
    _say(console, f"{told['faulty']['found']} of {told['faulty']['total']} faulty folds found, "
                  f"{told['sound']['accused']} of {told['sound']['total']} sound ones accused")  # fmt: skip
    return 0 if done.ok else 1


def _check(given: argparse.Namespace, console: Console) -> int:
    if given.what == "selftest":
        return _selftest(given, console)
    models = _load_models(given, required=True)
    memory = None if given.memory is None else int(given.memory * 2**30)
    limits: dict[str, Any] = {"sample": given.sample, "until": given.until, "patience": given.patience, "memory": memory}
    with _open(given) as lab:
        reports = lab.check(*(model.cls for model in models), level=given.level, **limits)
    if given.json:
        _print_json({"ok": all(r.ok for r in reports), "reports": [r.to_dict() for r in reports]})
    for report in reports:
        console.print(f"[{'green' if report.ok else 'red'}]{escape(str(report))}[/]", soft_wrap=True, highlight=False)
        for line in report.details:
            console.print(f"  [dim]{escape(line)}[/]", soft_wrap=True, highlight=False)
    for finding in findings():
        console.print(f"{finding.code} {escape(finding.message)} ({escape(finding.hint)})", highlight=False)
    return 0 if all(report.ok for report in reports) else 1


def _replay_diff(given: argparse.Namespace, console: Console) -> int:
    models = [model.cls for model in _load_models(given, required=True)]
    with _open(given) as lab, _working("fold the log with both"):
        found = lab.replay_diff(*models, base=given.base, until=given.until, accepted=given.accepted or ())
    if given.json:
        _print_json({"ok": all(one.ok for one in found), "models": [one.to_dict() for one in found]})
    else:
        _say(console, "\n".join(map(str, found)))
    return 0 if all(one.ok for one in found) else 1


def _goldens(given: argparse.Namespace, console: Console) -> int:
    models = [model.cls for model in _load_models(given, required=True)]
    with _open(given) as lab, _working("hold against the goldens"):
        found = lab.keep_goldens(given.folder, *models, until=given.until) if given.accept else lab.goldens(given.folder, *models)
    if given.json:
        _print_json({"ok": all(one.ok for one in found), "models": [one.to_dict() for one in found]})
    else:
        for one in found:
            _say(console, str(one))
            if len(one.frame):
                _say(console, str(one.frame.head(10)))
        if given.accept:
            _say(console, f"{many(len(found), 'golden')} kept in {given.folder}")
    return 0 if given.accept or all(one.ok for one in found) else 1


def _discover(given: argparse.Namespace, console: Console) -> int:
    _load_models(given)
    with _open(given) as lab, _working("look at what happens"):
        found = lab.discover(category(*given.category) if given.category else EVERYTHING, step=given.step)
    if given.save:
        Path(given.save).write_text(Process.of(found).text(), encoding="utf-8")
    if given.mermaid:
        _say(console, found.mermaid(given.nodes).rstrip())
    elif given.json:
        _print_json(told(found))
    else:
        _say(console, repr(found))
        for name in ("map", "variants"):
            _show_frame(getattr(found, name), given, console)
    return 0


def _conform(given: argparse.Namespace, console: Console) -> int:
    least, process = limits(given.fail_under or ()), read_process(Path(given.process))
    with _open(given) as lab, _working("hold the log against the process"):
        found = lab.conform(process, step=given.step)
    if given.json:
        about = {name: getattr(found, name) for name in ("category", "streams", "fitness", "coverage", "first", "last", "ok")}
        _print_json(about | {"deviations": found.deviations.to_dicts()})
    else:
        _say(console, str(found))
        if len(found.deviations):
            _show_frame(found.deviations, given, console)
    good = all(getattr(found, name) >= number for name, number in least.items()) if least else found.ok
    return 0 if good else 1


def _docs(given: argparse.Namespace, console: Console) -> int:
    models = _load_models(given, required=True)
    with contextlib.ExitStack() as stack:
        lab = None if given.code_only else stack.enter_context(_open(given))
        written = write_catalogue(models, Path(given.out), lab)
    if given.json:
        _print_json({"files": [str(path) for path in written]})
    else:
        _say(console, f"{many(len(written), 'file')} written; {written[1]}")
    return 0


def _schema(given: argparse.Namespace, console: Console) -> int:
    if given.verb == "compat":
        return _compat(given, console)
    _load_models(given, required=given.verb in ("json", "dry-run", "check"))
    if given.verb == "json":
        kinds = [kind for kind in EVENTS.all() if given.type in (None, kind.name)]
        if not kinds:
            raise UnknownType(f"no event class is stored as {given.type!r}", hint="--models package.module")
        _print_json({kind.name: json_schema(kind) for kind in kinds})
        return 0
    with _open(given, read_all=True) as lab:
        if given.verb == "diff":
            if given.type is None:
                raise UnknownType("eventlab schema diff takes a type", hint="eventlab schema diff OrderPlaced --old 1")
            found = differences(given.type, lab.store.cut().schemas, given.old, given.new)
            if given.json:
                _print_json([dataclasses.asdict(change) for change in found])
            else:
                _say(console, "\n".join(map(str, found)) or "nothing is different")
            return 1 if any(change.breaks for change in found) else 0
        if given.verb == "dry-run":
            with _working("dry run"):
                frame = lab.dry_run()
            _shown(frame, given, console, "no stored type has a class here")
            return 1 if frame["failed"].sum() else 0
        findings_ = lab.check_schemas()
        if given.json:
            _print_json([dataclasses.asdict(finding) for finding in findings_])
        else:
            _say(console, "\n".join(map(str, findings_)) or "every stored version can be read")
        return 1 if any(finding.kind == "error" for finding in findings_) else 0


def _compat(given: argparse.Namespace, console: Console) -> int:
    """Released versions of JSON Schemas in a folder: the steps whose declared compatibility is untrue."""
    if given.type is None:
        raise UnknownType("eventlab schema compat takes a folder", hint="eventlab schema compat schemas/ --ignore meta.version")
    steps = released(Path(given.type), given.ignore or ())
    untrue = [step for step in steps if step.untrue]
    if given.json:
        _print_json({"steps": len(steps), "untrue": [dataclasses.asdict(step) for step in untrue]})
    else:
        for step in untrue:
            said = "; ".join(str(change) for change in dict.fromkeys([*step.breaking, *step.demands]))
            _say(console, f"{step.name} {step.before} → {step.after} is declared {step.declared}: {said}")
        _say(console, f"{len(untrue)} of {len(steps)} steps are not what they declare")
    return 1 if untrue else 0


def _lint(given: argparse.Namespace, console: Console) -> int:
    found = lint(*(model.cls for model in _load_models(given, required=True))) if given.only else _lint_all(given)
    if given.json:
        _print_json([dataclasses.asdict(one) for one in found])
    else:
        _say(console, "\n".join(map(str, found)) or "nothing to say")
    return 1 if found else 0


def _lint_all(given: argparse.Namespace) -> list[Found]:
    """All that the modules define: also events that nobody evolves, and commands that nobody decides."""
    modules = {model.cls.__module__ for model in _load_models(given, required=True, by_hand=True)}
    modules |= {reference.partition(":")[0] for reference in _references(given)}
    return [one for one in lint() if one.place.partition(":")[0] in modules]


def _snapshots(given: argparse.Namespace, console: Console) -> int:
    _load_models(given, required=given.verb == "prove")
    with _open(given) as lab:
        if given.verb == "drop":
            count = lab.drop_snapshots()
            _print_json({"dropped": count}) if given.json else _say(console, f"{many(count, 'snapshot')} dropped")
            return 0
        with _working("fold every stream that has a snapshot"):
            found = lab.prove_snapshots()
        _shown(found, given, console, "there are no snapshots")
        return 1 if (found["verdict"] == "differs").any() else 0


def _verify(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store.verify import verify

    with _store(given) as store, _working(f"verifying {given.store}"):
        report = verify(store, full=given.full)
    if given.json:
        _print_json(report.to_dict())
    _say(console, str(report))
    return 0 if report.ok else 1


def _seal(given: argparse.Namespace, console: Console) -> int:
    with _store(given) as store, _maintaining(store):
        head, before = store.heads()
        with _working(f"sealing {many(head - before, 'event')}"):
            sealed = store.seal()
        head, after = store.heads()
    if given.json:
        _print_json({"sealed": sealed, "events": head, "sealed_to": after, "hot": head - after})
    done = f"{many(sealed, 'event')} sealed" if sealed else "there was nothing to seal"
    _say(console, f"{done}; {after:,} of {head:,} events are in segments")
    return 0


def _compact(given: argparse.Namespace, console: Console) -> int:
    with _store(given) as store, _maintaining(store):
        live = store.segments()
        with _working(f"compacting: {sum(s.rows for s in live if not s.by_stream):,} events are not sorted by stream"):
            done = store.compact(all=given.all)
        head, sealed = store.heads()
        left = sum(s.rows for s in store.segments() if not s.by_stream)
    if given.json:
        _print_json({**dataclasses.asdict(done), "not_sorted": left, "hot": head - sealed})
    if done.events:
        _say(
            console,
            f"{many(done.events, 'event')} rewritten into {many(done.eras, 'era')} sorted by stream and "
            f"{many(done.merged, 'longer run')}: {many(done.files_before, 'file')} before, {done.files_after:,} now; "
            "eventlab gc deletes the old ones in time",
        )
    else:
        _say(console, "there was nothing due" if not given.all else "there was nothing to compact")
    if left:
        more = "" if given.all else "; --all closes them into eras at once"
        _say(console, f"sealed and not sorted by stream: {many(left, 'event')}{more}")
    if head > sealed:
        _say(console, f"hot: {many(head - sealed, 'event')}; eventlab seal comes first for them")
    return 0


def _gc(given: argparse.Namespace, console: Console) -> int:
    with _store(given) as store:
        with _working("deleting files that are no part of the log any more"):
            done = store.collect(grace=given.grace)
        with store.inspect() as catalog:
            states = dict(catalog.execute("SELECT state, count(*) FROM segment GROUP BY state").fetchall())
    retired, pending = states.get("retired", 0), states.get("pending", 0)
    if given.json:
        _print_json({**dataclasses.asdict(done), "retired": retired, "pending": pending})
    _say(console, f"{many(done.files, 'file')} deleted, {size_text(done.bytes)}")
    if retired:
        _say(console, f"replaced: {many(retired, 'file')}, kept for {given.grace:g} s (--grace) and while a reader holds them")
    if pending:
        _say(console, f"being written, or left by a writer that died: {many(pending, 'file')}, kept until its lease is over")
    return 0


def _backup(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store.backup import backup

    with _store(given) as store:
        size = sum(segment.bytes for segment in store.segments())
        with _working(f"copying {size_text(size)} of segments, and verifying the copy"):
            done = backup(store, Path(given.to), now=_now)
    if given.json:
        _print_json(dataclasses.asdict(done))
    _say(console, _copied(done))
    _say(console, f"it can be read as it is; eventlab restore --from {given.to} --store DIR makes a store to go on with")
    return 0


def _copied(done: Any) -> str:
    parts = (many(done.events, "event"), many(done.segments, "segment"), size_text(done.bytes))
    return f"{', '.join(parts)} in {done.path}, verified"


def _restore(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store.backup import restore

    with _working(f"verifying {given.source}, copying it, and verifying the copy"):
        done = restore(Path(given.source), Path(given.store), now=_now)
    if given.json:
        _print_json(dataclasses.asdict(done))
    _say(console, _copied(done))
    return 0


def _upgrade(given: argparse.Namespace, console: Console) -> int:
    from eventlab.store.upgrade import upgrade

    with _catalog_errors(given.store), _working(f"upgrading {given.store}"):
        done = upgrade(Path(given.store))
    if given.json:
        _print_json(dataclasses.asdict(done))
    if done.before == done.after:
        _say(console, f"{done.path} has format {done.after} already: nothing was changed")
    else:
        _say(console, f"{done.path} had format {done.before} and has format {done.after} now; eventlab verify looks it over")
    return 0


def _lab(given: argparse.Namespace, console: Console) -> int:
    try:
        importlib.import_module("jupyterlab")
    except ImportError:
        raise Refused("JupyterLab is not installed", hint='pip install -e ".[lab]"') from None
    here = Path(given.notebook) if given.notebook else Path("notebooks/00_start_here.ipynb")
    target = here if here.exists() else Path(eventlab.__file__).parents[1] / here
    if not target.exists():
        raise Refused(f"there is no notebook {here}", hint="run it in the project's folder, or name a notebook")
    command = [sys.executable, "-m", "jupyterlab", str(target), *(["--no-browser"] if given.no_browser else [])]
    console.print(f"opening {target}; Ctrl-C twice ends it")
    sys.stdout.flush()
    os.execv(sys.executable, command)


# -- the command line ------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eventlab", description="A workbench for event sourcing: a log, its folds, and moments in time."
    )
    parser.add_argument("--version", action="version", version=f"eventlab {eventlab.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace, Console], int], about: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        if name != "lab":
            command.add_argument(
                "--store",
                metavar="DIR",
                default=os.environ.get("EVENTLAB_STORE", DEFAULT_STORE),
                # A store that a restore makes has its name from the one who asks.
                required=name == "restore",
                help="the new store's folder" if name == "restore" else "the store's folder (default: %(default)s)",
            )
        return command

    def with_models(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--models",
            metavar="MODULE",
            action="append",
            help="where models are: package.module or package.module:Name; repeatable",
        )
        command.add_argument("--tenant", help="whose events; without it a store with tenants is read whole")

    def with_moment(command: argparse.ArgumentParser) -> None:
        command.add_argument("--at", metavar="TIME", help="as it was known at a time, such as 2013-02-08T18:00Z")
        command.add_argument("--position", type=int, metavar="N", help="as it was at a position")

    add("demo", _demo, "A year of real flights becomes a log, tables, moments and a proof.", "eventlab demo --store data/flights")
    add("info", _info, "A store at a glance: events, types, levels, sizes, read models.", "eventlab info --store data/flights")

    one = add(
        "show",
        _show,
        "One event, stream, segment or catalog table, where it lies and whether it is as it was written.",
        "eventlab show 1234\n  eventlab show --stream flight-2013-02-08-UA-1550-EWR\n  eventlab show --segment 17\n  "
        "eventlab show --catalog\n  eventlab show --catalog segment --where state=retired",
    )
    one.add_argument("position", nargs="?", type=_position, metavar="POSITION", help="the event at this position")
    one.add_argument("--stream", metavar="NAME", help="a stream: its head, where its events lie, its snapshots")
    one.add_argument("--tenant", help="whose stream; without it every tenant's of that name")
    one.add_argument("--segment", metavar="NAME-OR-NUMBER", help="a segment: its place, digest, columns, row groups")
    one.add_argument(
        "--catalog", nargs="?", const="", metavar="TABLE", help="the catalog at a glance; with a table's name, its rows"
    )
    one.add_argument("--where", action="append", metavar="COLUMN=VALUE", help="only these rows of the table; repeatable")
    one.add_argument("--limit", type=_count, default=20, metavar="N", help="at most so many rows of the table (default: 20)")
    one.set_defaults(refuse=one.error)

    one = add("events", _events, "Look at events.", "eventlab events --type FlightCancelled --at 2013-02-08T18:00Z --limit 5")
    with_models(one)
    with_moment(one)
    one.add_argument("--type", action="append", help="events of this type; repeatable")
    one.add_argument("--stream", action="append", help="events of this stream; repeatable")
    one.add_argument("--category", action="append", help="events of every stream of this category; repeatable")
    one.add_argument("--tag", action="append", help="events with this tag, such as tail:N725MQ; repeatable, all must be there")
    one.add_argument("--after", type=int, default=0, metavar="N", help="only after this position")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")

    one = add(
        "rebuild",
        _rebuild,
        "Fold the log into read models and swap them in.",
        "eventlab rebuild --models eventlab.domains.flights",
    )
    with_models(one)
    one.add_argument("--catch-up", action="store_true", help="fold only the events since the checkpoint")
    one.add_argument("--accept", action="store_true", help="let the names stand for this code, where they stood for another")

    one = add(
        "accept",
        _accept,
        "Let the name of a read model stand for the code that is here, or for one that is stored.",
        "eventlab accept Flight --models eventlab.domains.flights\n  eventlab accept flight --fingerprint 3fa9",
    )
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    one.add_argument("--fingerprint", metavar="HEX", help="the one that is stored whose fingerprint begins so; see status")

    one = add(
        "run",
        _run,
        "Keep read models at the head of the log and tell consumers, until Ctrl-C; several processes share the work.",
        "eventlab run --models shop.models\n  eventlab run --models shop.models --once",
    )
    with_models(one)
    one.add_argument("--once", action="store_true", help="do what is to be done now, and end")
    one.add_argument("--lease", type=float, default=LEASE_SECONDS, metavar="SECONDS", help="how long a lease lasts")

    one = add("status", _status, "Read models and consumers: where each stands, how far behind, what failed.", "eventlab status")
    one.add_argument("--tenant", help="whose; without it a store with tenants is read whole")

    one = add("parked", _parked, "Keys and streams that stopped at an event that was not taken.", "eventlab parked")
    one.add_argument("name", nargs="?", metavar="NAME", help="of this read model or consumer")
    one.add_argument("--tenant", help="whose; without it a store with tenants is read whole")

    one = add("table", _table, "A model's table.", "eventlab table Aircraft --models eventlab.domains.flights --limit 5")
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    with_moment(one)
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows (default: 20)")

    one = add(
        "explain",
        _explain,
        "How a model is folded: what lifts to a query, what does not, and which line is the reason.",
        "eventlab explain Flight --models eventlab.domains.flights\n  "
        "eventlab explain Flight --models eventlab.domains.flights --sql",
    )
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    one.add_argument("--sql", action="store_true", help="the query over this store, and nothing else")
    one.add_argument("--loop", action="store_true", help="the generated loop, and nothing else")

    one = add(
        "sql", _sql, "A query over events, types and state.", 'eventlab sql "select _type, count(*) from events.log group by all"'
    )
    one.add_argument("query", help="one SELECT, or - for standard input")
    with_models(one)
    with_moment(one)
    one.add_argument("--param", action="append", metavar="NAME=VALUE", help="a value for $NAME; repeatable")
    one.add_argument("--limit", type=int, default=1_000, metavar="N", help="at most so many rows shown (default: 1000)")

    one = add(
        "check",
        _check,
        "Fold again under other conditions and compare.",
        "eventlab check --models eventlab.domains.flights --sample 16",
    )
    one.add_argument("what", nargs="?", choices=("selftest",), help="selftest: the checker itself, on folds with known faults")
    with_models(one)
    one.add_argument("--sample", type=int, metavar="N", help="one stream in N (default: all)")
    one.add_argument(
        "--level", choices=("quick", "standard", "deep"), default="standard",
        help="quick: folds twice, of a sample above a million events; standard: four variants, and every other way to fold",
    )  # fmt: skip
    one.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="so long one event may take (default: 60)")
    one.add_argument("--memory", type=float, metavar="GIB", help="so much memory a process may take (default: 40 %% of all)")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")

    one = add(
        "schema",
        _schema,
        "Stored schemas against the classes of today; every event upcast before a deploy; released JSON Schemas.",
        "eventlab schema dry-run --models eventlab.domains.flights",
    )
    one.add_argument(
        "verb", choices=("check", "dry-run", "diff", "json", "compat"),
        help="check: what of the stored versions cannot be read; dry-run: upcast every event; diff: two versions of a type; "
        "json: JSON Schemas of the classes; compat: steps of a folder NAME/1.0.0.json whose declared compatibility is untrue",
    )  # fmt: skip
    one.add_argument("type", nargs="?", help="diff, json: an event type; compat: the folder")
    with_models(one)
    one.add_argument("--old", type=int, metavar="N", help="diff: from this version (default: the one before)")
    one.add_argument("--new", type=int, metavar="N", help="diff: to this version (default: the class, or the newest stored)")
    one.add_argument("--ignore", action="append", metavar="PATH", help="compat: a field that differs on purpose; repeatable")

    one = add(
        "replay-diff",
        _replay_diff,
        "Fold the log with the code of today and with that of a revision, a wheel or a folder, and compare.",
        "eventlab replay-diff --base HEAD~1 --models shop.orders",
    )
    with_models(one)
    one.add_argument("--base", required=True, metavar="REV", help="a git revision, a .whl file, or a folder with the old code")
    one.add_argument("--accepted", metavar="FILE", help="TOML: [[accepted]] with model, field, reason, and perhaps until")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")

    one = add(
        "goldens",
        _goldens,
        "Hold what models give against what was kept of them, and say what changed: the code, the engine, or neither.",
        "eventlab goldens goldens/ --models shop.orders",
    )
    with_models(one)
    one.add_argument("folder", help="where they are kept: beside the store, or in the repository")
    one.add_argument("--accept", action="store_true", help="keep what they give now, after showing what is different")
    one.add_argument("--until", type=int, metavar="N", help="with --accept: as of this position (default: the head)")

    one = add(
        "discover",
        _discover,
        "What happens in a log: what follows on what, and the ways that streams took.",
        "eventlab discover --category flight",
    )
    with_models(one)
    one.add_argument("--category", action="append", metavar="NAME", help="only streams of this category (may be repeated)")
    one.add_argument("--step", metavar="FIELD", help="the field whose value is the step (default: the event type)")
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows of each table (default: 20)")
    one.add_argument("--mermaid", action="store_true", help="the process map as a Mermaid flowchart")
    one.add_argument("--nodes", type=int, default=24, metavar="N", help="steps in the drawing, the most frequent (default: 24)")
    one.add_argument("--save", metavar="FILE", help="write the process that is found, to be corrected and held to: conform")

    one = add(
        "conform",
        _conform,
        "Hold a log against a process: what happens that should not, and what never does.",
        "eventlab conform order.toml --fail-under fitness=0.99",
    )
    one.add_argument("process", help="a TOML file, as discover --save writes it")
    one.add_argument("--step", metavar="FIELD", help="the field whose value is the step (default: the event type)")
    one.add_argument(
        "--fail-under", action="append", metavar="NAME=SHARE", help="fitness=0.99, coverage=0.5 (default: any deviation fails)"
    )
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows (default: 20)")

    one = add(
        "docs",
        _docs,
        "A catalogue of events, commands, aggregates and projections: Markdown, one HTML page, and JSON Schema.",
        "eventlab docs -o docs/ --models shop.orders",
    )
    with_models(one)
    one.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where it is written, over files of the same names")
    one.add_argument("--code-only", action="store_true", help="of the code alone: no counts, versions and examples of a store")

    one = add(
        "lint",
        _lint,
        "What a reviewer would say of the models: names, how they fit together, what is not repeatable.",
        "eventlab lint --models eventlab.domains.ordering",
    )
    with_models(one)
    one.add_argument("--only", action="store_true", help="the models themselves, and not whether every event has a reader")

    one = add(
        "snapshots",
        _snapshots,
        "Hold every snapshot against the fold of its stream, or drop them all.",
        "eventlab snapshots prove --models eventlab.domains.flights",
    )
    one.add_argument("verb", choices=("prove", "drop"), help="prove: fold from the first event on, and compare; drop: delete all")
    with_models(one)

    one = add("verify", _verify, "Look for damage: digests, positions, versions, payloads.", "eventlab verify --full")
    one.add_argument("--full", action="store_true", help="read everything, not digests and numbers alone")

    add(
        "seal",
        _seal,
        "Write the hot events as segments of typed columns; readers and writers see no difference.",
        "eventlab seal --store data/shop",
    )

    one = add(
        "compact",
        _compact,
        "Rewrite sealed events sorted by stream, where it is due; a stream is loaded from fewer files then.",
        "eventlab compact --all --store data/shop",
    )
    one.add_argument("--all", action="store_true", help="all that is sealed, at once")

    one = add("gc", _gc, "Delete files that are no part of the log any more.", "eventlab gc --grace 60 --store data/shop")
    one.add_argument(
        "--grace",
        type=_wait,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="how long a replaced file stays for readers that may be about to open it (default: %(default)s)",
    )

    one = add(
        "backup",
        _backup,
        "Copy a store to a new folder, whole as of one commit, while it is in use; the copy is verified.",
        "eventlab backup --store data/shop --to backups/shop-monday",
    )
    one.add_argument("--to", required=True, metavar="DIR", help="a folder that is not there yet, or is empty")

    one = add(
        "restore",
        _restore,
        "Make a store of a backup, which is verified first and stays as it is.",
        "eventlab restore --from backups/shop-monday --store data/shop",
    )
    one.add_argument("--from", dest="source", required=True, metavar="DIR", help="the folder of the backup")

    add(
        "upgrade",
        _upgrade,
        "Bring a store of an older format to today's; it can be interrupted and repeated. Back it up before.",
        "eventlab upgrade --store data/shop",
    )

    one = add("lab", _lab, "Open JupyterLab on the first notebook.", "eventlab lab")
    one.add_argument("notebook", nargs="?", help="another notebook")
    one.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    return parser


def _open(given: argparse.Namespace, *, read_all: bool = False) -> Lab:
    tenant = getattr(given, "tenant", None)
    if tenant is None and read_all:
        try:
            return open_lab(given.store, create=False)
        except Refused:
            return open_lab(given.store, create=False, tenant=eventlab.ALL)
    return open_lab(given.store, create=False, tenant=tenant)


@contextlib.contextmanager
def _store(given: argparse.Namespace) -> Iterator[DiskStore]:
    """The store alone: what looks at files needs no tenant, and no schema that can be read."""
    with _catalog_errors(given.store):
        store = open_store(given.store, now=_now, create=False)
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def _catalog_errors(path: str) -> Iterator[None]:
    """What SQLite says of a damaged catalog quotes the damage, and is no text then."""
    try:
        yield
    except UnicodeDecodeError as why:
        raise Damaged(f"the catalog of {path} cannot be read", hint="restore a backup: eventlab restore") from why


@contextlib.contextmanager
def _maintaining(store: DiskStore) -> Iterator[None]:
    """Keep others from doing the same at the same time: it would be done twice, and once thrown away."""
    if store.read_only:
        raise ReadOnly(f"the store in {store.root} can only be read", hint="run it where the folder can be written")
    with alone(store) as mine:
        if not mine:
            raise Busy(
                f"another process is sealing or compacting {store.root}", hint="it does the same by itself; try again later"
            )
        yield


@contextlib.contextmanager
def _working(what: str) -> Iterator[None]:
    """Say what takes its time, and for how long already, where someone looks."""
    if not sys.stderr.isatty() or os.environ.get("EVENTLAB_PROGRESS", "auto") == "off":
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def _now() -> int:
    return time.time_ns() // 1000


def _say(console: Console, text: str) -> None:
    """Print text as it is: what a log holds is no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _position(text: str) -> int:
    """A position as it is printed, with or without commas."""
    try:
        return int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a position: a whole number, such as 1234") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds: 0 or more")
    return seconds


def _at(lab: Lab, given: argparse.Namespace) -> Reader:
    if given.at is None and given.position is None:
        return lab
    return lab.at(given.at, position=given.position)


def _filter(given: argparse.Namespace) -> Filter:
    picked = EVERYTHING
    for values, make in ((given.type, events), (given.stream, stream), (given.category, category), (given.tag, tag)):
        if values:
            picked = picked & make(*values)
    return picked


def _references(given: argparse.Namespace) -> list[str]:
    return [part for text in given.models or () for part in text.split(",") if part] or _configured()


def _load_models(given: argparse.Namespace, *, required: bool = False, by_hand: bool = False) -> list[Model]:
    """The models of the modules named by --models, or by `[tool.eventlab] models` of pyproject.toml here."""
    references = _references(given)
    if required and not references:
        raise UnknownType(
            "no models are named",
            hint='--models package.module, or models = ["package.module"] under [tool.eventlab] in pyproject.toml',
        )
    return [model for reference in references for model in _import(reference, by_hand=by_hand)]


def _named(name: str, models: Sequence[Model]) -> type[Any]:
    """The model of this name among those that were loaded, or where package.module:Name says it is."""
    named = next((m for m in models if name in (m.cls.__name__, m.name, m.reference)), None)
    if named is not None:
        return named.cls
    if ":" in name:
        return _import(name)[0].cls
    known = ", ".join(sorted({m.cls.__name__ for m in models}))
    hint = f"one of {known}" if known else f"say where it is defined: --models package.module, or package.module:{name}"
    raise UnknownType(f"no model is called {name!r} here", hint=hint)


def _configured() -> list[str]:
    path = Path("pyproject.toml")
    if not path.exists():
        return []
    try:
        found = tomllib.loads(path.read_text()).get("tool", {}).get("eventlab", {}).get("models", [])
    except tomllib.TOMLDecodeError as why:
        raise Refused(f"{path} cannot be read: {why}") from None
    return [found] if isinstance(found, str) else list(found)


def _import(reference: str, *, by_hand: bool = False) -> list[Model]:
    """The models of a module; with `by_hand` it may have none, and projections written by hand."""
    module, _, name = reference.partition(":")
    try:
        imported = importlib.import_module(module)
        if name:
            return [model_of(getattr(imported, name))]
    except (ImportError, AttributeError) as why:
        raise UnknownType(
            f"{reference} cannot be imported: {why}", hint="package.module or package.module:Name, found from this folder"
        ) from None
    found = [model for model in MODELS.all() if model.cls.__module__ == module]
    if not found and not (by_hand and any(made.reference.startswith(f"{module}:") for made in HANDMADE.values())):
        raise UnknownType(
            f"{module} defines no aggregate and no projection", hint="name the module that has @el.aggregate classes"
        )
    return found


def _pair(text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise Refused(f"{text!r} is not NAME=VALUE", hint=example)
    return name, value


def _show_frame(frame: Any, given: argparse.Namespace, console: Console) -> None:
    shown = frame.head(given.limit)
    if given.json:
        _print_json(
            {
                "columns": frame.columns,
                "rows": [dict(zip(frame.columns, row, strict=True)) for row in shown.iter_rows()],
                "total": len(frame),
            }
        )
        return
    table = Table(box=None, header_style="bold")
    for name, kind in frame.schema.items():
        table.add_column(escape(name), justify="right" if kind.is_numeric() else "left")
    for row in shown.iter_rows():
        table.add_row(*(escape(_plain(value)) for value in row))
    console.print(table)
    if len(frame) > given.limit:
        console.print(f"{given.limit:,} of {len(frame):,} rows; --limit shows more")


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _fields(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else dict(vars(data))


def _event_dict(event: Any) -> dict[str, Any]:
    return {**{name: getattr(event, name) for name in _ENVELOPE}, "data": _fields(event.data)}


def _print_json(value: Any) -> None:
    try:
        text = json.dumps(value, default=_json_value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    print(text)


def _finite(value: Any) -> Any:
    """A value without NaN and infinities: JSON has none, so they are null, as in an export."""
    if isinstance(value, dict):
        return {name: _finite(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(of) for of in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return (value if math.isfinite(value) else None) if isinstance(value, float) else _finite(_json_value(value))


def _json_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (Decimal, uuid.UUID, Path)):
        return str(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value, key=repr) if not isinstance(value, tuple) else list(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


if __name__ == "__main__":
    sys.exit(main())

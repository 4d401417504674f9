"""Commands that prove, before a deploy, what code makes of a log."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eventlab.cli.shared import (
    load_models,
    opened,
    print_json,
    references_of,
    say,
    shown,
    working,
)
from eventlab.determinism.lint import Found, lint
from eventlab.determinism.selftest import selftest
from eventlab.errors import (
    UnknownType,
)
from eventlab.lab import open as open_lab
from eventlab.model.changes import json_schema, released
from eventlab.model.events import EVENTS, findings
from eventlab.schemas import SchemaWarning, differences
from eventlab.store.words import many


def _selftest(given: argparse.Namespace, console: Console) -> int:
    from eventlab.domains import suspects

    with working("check the checker"):
        done = selftest(suspects.FAULTY, suspects.SOUND, suspects.streams, lambda path: open_lab(path, maintain=False))
    if given.json:
        print_json(done.to_dict())
        return 0 if done.ok else 1
    table = Table(title="The checker, checked", show_lines=False)
    for heading in ("fold", "faulty", "read", "folded", "touches", ""):
        table.add_column(heading)
    for one in done.tried:
        right, codes, touches = "" if one.found == one.faulty else "[red]wrong[/red]", ", ".join(one.lint), ", ".join(one.touches)
        table.add_row(one.name, "yes" if one.faulty else "", codes, one.divergence or "", touches, right)
    console.print(table)
    told = done.to_dict()
    say(console, f"{told['faulty']['found']} of {told['faulty']['total']} faulty folds found, "
                  f"{told['sound']['accused']} of {told['sound']['total']} sound ones accused")  # fmt: skip
    return 0 if done.ok else 1


def check_command(given: argparse.Namespace, console: Console) -> int:
    """Does replay repeat."""
    if given.what == "selftest":
        return _selftest(given, console)
    models = load_models(given, required=True)
    memory = None if given.memory is None else int(given.memory * 2**30)
    limits: dict[str, Any] = {"sample": given.sample, "until": given.until, "patience": given.patience, "memory": memory}
    with opened(given) as lab:
        reports = lab.check(*(model.cls for model in models), level=given.level, **limits)
    if given.json:
        print_json({"ok": all(r.ok for r in reports), "reports": [r.to_dict() for r in reports]})
    for report in reports:
        console.print(f"[{'green' if report.ok else 'red'}]{escape(str(report))}[/]", soft_wrap=True, highlight=False)
        for line in report.details:
            console.print(f"  [dim]{escape(line)}[/]", soft_wrap=True, highlight=False)
    for finding in findings():
        console.print(f"{finding.code} {escape(finding.message)} ({escape(finding.hint)})", highlight=False)
    return 0 if all(report.ok for report in reports) else 1


def replay_diff_command(given: argparse.Namespace, console: Console) -> int:
    """Old code against new."""
    models = [model.cls for model in load_models(given, required=True)]
    with opened(given) as lab, working("fold the log with both"):
        found = lab.replay_diff(*models, base=given.base, until=given.until, accepted=given.accepted or ())
    if given.json:
        print_json({"ok": all(one.ok for one in found), "models": [one.to_dict() for one in found]})
    else:
        say(console, "\n".join(map(str, found)))
    return 0 if all(one.ok for one in found) else 1


def goldens_command(given: argparse.Namespace, console: Console) -> int:
    """Fingerprints that are kept."""
    models = [model.cls for model in load_models(given, required=True)]
    with opened(given) as lab, working("hold against the goldens"):
        found = lab.keep_goldens(given.folder, *models, until=given.until) if given.accept else lab.goldens(given.folder, *models)
    if given.json:
        print_json({"ok": all(one.ok for one in found), "models": [one.to_dict() for one in found]})
    else:
        for one in found:
            say(console, str(one))
            if len(one.frame):
                say(console, str(one.frame.head(10)))
        if given.accept:
            say(console, f"{many(len(found), 'golden')} kept in {given.folder}")
    return 0 if given.accept or all(one.ok for one in found) else 1


def schema_command(given: argparse.Namespace, console: Console) -> int:
    """Schemas, and what changed in them."""
    if given.verb == "compat":
        return _compat(given, console)
    load_models(given, required=given.verb in ("json", "dry-run", "check"))
    if given.verb == "json":
        kinds = [kind for kind in EVENTS.all() if given.type in (None, kind.name)]
        if not kinds:
            raise UnknownType(f"no event class is stored as {given.type!r}", hint="--models package.module")
        print_json({kind.name: json_schema(kind) for kind in kinds})
        return 0
    with _silent(), opened(given, read_all=True) as lab:
        if given.verb == "diff":
            if given.type is None:
                raise UnknownType("eventlab schema diff takes a type", hint="eventlab schema diff OrderPlaced --old 1")
            found = differences(given.type, lab.store.cut().schemas, given.old, given.new)
            if given.json:
                print_json([dataclasses.asdict(change) for change in found])
            else:
                say(console, "\n".join(map(str, found)) or "nothing is different")
            return 1 if any(change.breaks for change in found) else 0
        if given.verb == "dry-run":
            with working("dry run"):
                frame = lab.dry_run()
            shown(frame, given, console, "no stored type has a class here")
            changed = int(frame["new_nulls"].sum()) + int(frame["lost"].sum())
            if changed and not given.strict:
                say(console, f"{many(changed, 'value')} are newly None or lost; --strict fails on that")
            return 1 if frame["failed"].sum() or (given.strict and changed) else 0
        findings_ = lab.check_schemas()
        if given.json:
            print_json([dataclasses.asdict(finding) for finding in findings_])
        else:
            say(console, "\n".join(map(str, findings_)) or "every stored version can be read")
        failing = ("error", "question", "warning") if given.strict else ("error",)
        return 1 if any(finding.kind in failing for finding in findings_) else 0


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of what is reported here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        yield


def _compat(given: argparse.Namespace, console: Console) -> int:
    """Released versions of JSON Schemas in a folder: the steps whose declared compatibility is untrue."""
    if given.type is None:
        raise UnknownType("eventlab schema compat takes a folder", hint="eventlab schema compat schemas/ --ignore meta.version")
    steps = released(Path(given.type), given.ignore or ())
    untrue = [step for step in steps if step.untrue]
    if given.json:
        print_json({"steps": len(steps), "untrue": [dataclasses.asdict(step) for step in untrue]})
    else:
        for step in untrue:
            said = "; ".join(str(change) for change in dict.fromkeys([*step.breaking, *step.demands]))
            say(console, f"{step.name} {step.before} → {step.after} is declared {step.declared}: {said}")
        say(console, f"{len(untrue)} of {len(steps)} steps are not what they declare")
    return 1 if untrue else 0


def lint_command(given: argparse.Namespace, console: Console) -> int:
    """What a reviewer would say."""
    found = lint(*(model.cls for model in load_models(given, required=True))) if given.only else _lint_all(given)
    if given.json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        say(console, "\n".join(map(str, found)) or "nothing to say")
    return 1 if found else 0


def _lint_all(given: argparse.Namespace) -> list[Found]:
    """All that the modules define: also events that nobody evolves, and commands that nobody decides."""
    modules = {model.cls.__module__ for model in load_models(given, required=True, by_hand=True)}
    modules |= {reference.partition(":")[0] for reference in references_of(given)}
    return [one for one in lint() if one.place.partition(":")[0] in modules]


def snapshots_command(given: argparse.Namespace, console: Console) -> int:
    """Snapshots held against folds, or dropped."""
    load_models(given, required=given.verb == "prove")
    with opened(given) as lab:
        if given.verb == "drop":
            count = lab.drop_snapshots()
            print_json({"dropped": count}) if given.json else say(console, f"{many(count, 'snapshot')} dropped")
            return 0
        with working("fold every stream that has a snapshot"):
            found = lab.prove_snapshots()
        shown(found, given, console, "there are no snapshots")
        return 1 if (found["verdict"] == "differs").any() else 0

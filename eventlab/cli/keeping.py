"""Commands that look after the files of a store."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from eventlab.cli.shared import (
    catalog_errors,
    maintaining,
    now,
    print_json,
    say,
    stored,
    working,
)
from eventlab.store.words import many, size_text


def verify_command(given: argparse.Namespace, console: Console) -> int:
    """Are the bytes intact."""
    from eventlab.store.verify import verify

    with stored(given) as store, working(f"verifying {given.store}"):
        report = verify(store, full=given.full)
    if given.json:
        print_json(report.to_dict())
    say(console, str(report))
    return 0 if report.ok else 1


def seal_command(given: argparse.Namespace, console: Console) -> int:
    """Hot events into segments."""
    with stored(given) as store, maintaining(store):
        head, before = store.heads()
        with working(f"sealing {many(head - before, 'event')}"):
            sealed = store.seal()
        head, after = store.heads()
    if given.json:
        print_json({"sealed": sealed, "events": head, "sealed_to": after, "hot": head - after})
    done = f"{many(sealed, 'event')} sealed" if sealed else "there was nothing to seal"
    say(console, f"{done}; {after:,} of {head:,} events are in segments")
    return 0


def compact_command(given: argparse.Namespace, console: Console) -> int:
    """Runs into eras."""
    with stored(given) as store, maintaining(store):
        live = store.segments()
        with working(f"compacting: {sum(s.rows for s in live if not s.by_stream):,} events are not sorted by stream"):
            done = store.compact(all=given.all)
        head, sealed = store.heads()
        left = sum(s.rows for s in store.segments() if not s.by_stream)
    if given.json:
        print_json({**dataclasses.asdict(done), "not_sorted": left, "hot": head - sealed})
    if done.events:
        say(
            console,
            f"{many(done.events, 'event')} rewritten into {many(done.eras, 'era')} sorted by stream and "
            f"{many(done.merged, 'longer run')}: {many(done.files_before, 'file')} before, {done.files_after:,} now; "
            "eventlab gc deletes the old ones in time",
        )
    else:
        say(console, "there was nothing due" if not given.all else "there was nothing to compact")
    if left:
        more = "" if given.all else "; --all closes them into eras at once"
        say(console, f"sealed and not sorted by stream: {many(left, 'event')}{more}")
    if head > sealed:
        say(console, f"hot: {many(head - sealed, 'event')}; eventlab seal comes first for them")
    return 0


def gc_command(given: argparse.Namespace, console: Console) -> int:
    """Files that nobody needs."""
    with stored(given) as store:
        with working("deleting files that are no part of the log any more"):
            done = store.collect(grace=given.grace)
        with store.inspect() as catalog:
            states = dict(catalog.execute("SELECT state, count(*) FROM segment GROUP BY state").fetchall())
    retired, pending = states.get("retired", 0), states.get("pending", 0)
    if given.json:
        print_json({**dataclasses.asdict(done), "retired": retired, "pending": pending})
    say(console, f"{many(done.files, 'file')} deleted, {size_text(done.bytes)}")
    if retired:
        say(console, f"replaced: {many(retired, 'file')}, kept for {given.grace:g} s (--grace) and while a reader holds them")
    if pending:
        say(console, f"being written, or left by a writer that died: {many(pending, 'file')}, kept until its lease is over")
    return 0


def backup_command(given: argparse.Namespace, console: Console) -> int:
    """A verified copy."""
    from eventlab.store.backup import backup

    with stored(given) as store:
        size = sum(segment.bytes for segment in store.segments())
        with working(f"copying {size_text(size)} of segments, and verifying the copy"):
            done = backup(store, Path(given.to), now=now)
    if given.json:
        print_json(dataclasses.asdict(done))
    say(console, _copied(done))
    say(console, f"it can be read as it is; eventlab restore --from {given.to} --store DIR makes a store to go on with")
    return 0


def _copied(done: Any) -> str:
    parts = (many(done.events, "event"), many(done.segments, "segment"), size_text(done.bytes))
    return f"{', '.join(parts)} in {done.path}, verified"


def restore_command(given: argparse.Namespace, console: Console) -> int:
    """A store from a backup."""
    from eventlab.store.backup import restore

    with working(f"verifying {given.source}, copying it, and verifying the copy"):
        done = restore(Path(given.source), Path(given.store), now=now)
    if given.json:
        print_json(dataclasses.asdict(done))
    say(console, _copied(done))
    return 0


def upgrade_command(given: argparse.Namespace, console: Console) -> int:
    """A store of an older format brought along."""
    from eventlab.store.upgrade import upgrade

    with catalog_errors(given.store), working(f"upgrading {given.store}"):
        done = upgrade(Path(given.store))
    if given.json:
        print_json(dataclasses.asdict(done))
    if done.before == done.after:
        say(console, f"{done.path} has format {done.after} already: nothing was changed")
    else:
        say(console, f"{done.path} had format {done.before} and has format {done.after} now; eventlab verify looks it over")
    return 0

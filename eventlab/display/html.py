"""HTML for Jupyter: tables that survive an untrusted notebook, in light and dark. Every value is escaped."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from html import escape
from typing import Any, Final

from eventlab.determinism.check import Checked
from eventlab.determinism.goldens import Held
from eventlab.determinism.lint import Found, Linted
from eventlab.determinism.revisions import ADDED, REMOVED, ReplayDiff
from eventlab.display.charts import causes, picture
from eventlab.display.mapping import map_svg
from eventlab.integration.ingest import Ingested
from eventlab.lab import Lab
from eventlab.model.events import New
from eventlab.model.types import Leaf
from eventlab.projections.read_models import Rebuilt
from eventlab.projections.runner import Runner
from eventlab.replay.lift import Explanation
from eventlab.store.read_models import ReadModelBase
from eventlab.storming.board import Board, Layout
from eventlab.storming.discovery import Discovery
from eventlab.storming.placing import svg
from eventlab.storming.process import Conformance
from eventlab.storming.review import review
from eventlab.temporal.compare import Comparison
from eventlab.temporal.events import Events
from eventlab.temporal.moment import Moment
from eventlab.temporal.reader import Reader
from eventlab.temporal.trace import Trace

ROWS_SHOWN: Final = 10
PAYLOAD_SHOWN: Final = 160

#: Values that say what they are without their class: 9.50, not Decimal('9.50').
_PLAIN: Final = (Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID)


def register() -> None:
    """Tell IPython, where it runs, how to draw eventlab's values."""
    shell = sys.modules.get("IPython")
    here = shell.get_ipython() if shell is not None else None
    if here is None or getattr(here, "display_formatter", None) is None:
        return
    formatter = here.display_formatter.formatters["text/html"]
    drawings: dict[type[Any], Callable[[Any], str]] = {
        Lab: reader_html,
        Moment: reader_html,
        Events: events_html,
        Checked: checked_html,
        ReplayDiff: replay_diff_html,
        Held: held_html,
        Ingested: ingested_html,
        Rebuilt: rebuilt_html,
        ReadModelBase: base_html,
        Runner: runner_html,
        Linted: found_html,
        Explanation: explanation_html,
        Comparison: comparison_html,
        Discovery: discovery_html,
        Conformance: conformance_html,
        Board: board_html,
        Trace: trace_html,
    }
    for kind, draw in drawings.items():
        formatter.for_type(kind, draw)
    # By name: scenarios are loaded by those who test.
    formatter.for_type_by_name("eventlab.testing.scenario", "Given", given_html)
    formatter.for_type_by_name("eventlab.testing.scenario", "Outcome", outcome_html)
    formatter.for_type_by_name("eventlab.testing.versions", "Read", read_html)
    here.display_formatter.formatters["text/plain"].for_type(Lab, _print_lab)


def _print_lab(lab: Lab, printer: Any, cycle: bool) -> None:
    """A lab's repr with its folder as seen from here, so that a notebook says the same on every machine."""
    text = repr(lab)
    if lab.path is not None:
        text = text.replace(repr(str(lab.path)), repr(os.path.relpath(lab.path)), 1)
    printer.text(text)


def reader_html(reader: Reader) -> str:
    """A store at a glance: its event types with their fields and counts."""
    counts = reader.sql(
        "select _type, count(*) as n, min(_occurred_at) as first, max(_occurred_at) as last from events.log group by all"
    )
    found = {row[0]: row[1:] for row in counts.iter_rows()}
    cut, _ = reader._at()
    rows: list[Sequence[Any]] = []
    for (name, version), schema in sorted(cut.schemas.items()):
        if name in found:
            n, first, last = found[name]
            fields = ", ".join(dict.fromkeys(Leaf.parse(c).path for c in schema.columns))
            rows.append((f"{name} v{version}" if version > 1 else name, f"{n:,}", _day(first), _day(last), fields, schema.doc))
    caption = f"{_events(sum(n for n, *_ in found.values()))} until position {reader.head:,}"
    return table(caption, ("event", "in the log", "from", "until", "fields", "meaning"), rows, right={1}, whole={0, 1, 2, 3})


def events_html(events: Events) -> str:
    """The first few events of a selection."""
    rows: list[Sequence[Any]] = []
    for event in events:
        if len(rows) == ROWS_SHOWN:
            break
        rows.append(
            (
                f"{event.position:,}",
                event.recorded_at.replace(tzinfo=None),
                event.stream,
                event.version,
                event.type,
                payload_text(event.data),
            )
        )
    columns = ("position", "recorded at, UTC", "stream", "version", "type", "what it says")
    n = len(events)
    count = _events(n) if len(rows) == n else f"the first {len(rows)} of {_events(n)}"
    after = f", after position {events.after:,}" if events.after else ""
    return table(f"{events.filter}{after}: {count}", columns, rows, right={0, 3}, whole={0, 1, 4})


def checked_html(report: Checked) -> str:
    """The verdict of a check."""
    of = f" (one stream in {report.sample:,})" if report.sample > 1 else ""
    rows: list[Sequence[Any]] = [
        ("events × variants", f"{report.events:,}{of} × {len(report.variants)}"),
        ("varied", "; ".join(report.variants)),
    ]
    if report.ways:
        rows.append(("other ways to fold", "; ".join(report.ways)))
    if report.skipped:
        rows.append(("not tried", "; ".join(report.skipped)))
    if report.stopped is not None:
        rows.append(("came to no end", str(report.stopped)))
    if report.parted is not None:
        rows.append(("parts from evolve", str(report.parted)))
    if report.never_seen:
        rows.append(("never seen", ", ".join(report.never_seen)))
    rows += [("touches", str(touch)) for touch in report.touches]
    found = report.divergence
    if found is not None:
        rows += [
            ("first divergence", f"position {found.position:,}, {found.event}, {found.key}, field {found.field}"),
            (found.variants[0], found.before),
            (found.variants[1], found.after),
            *([("what parts them", ", ".join(found.alone))] if found.alone else []),
        ]
    if report.command:
        rows.append(("see it again", report.command))
    verdict = "no divergence" if report.ok else "STOPS" if report.stopped is not None else "DIVERGES"
    return table(f"{report.model}: {verdict}", ("", ""), rows)


def replay_diff_html(found: ReplayDiff) -> str:
    """What old code and new code make of the same events."""
    what = {ADDED: "rows only the new code gives", REMOVED: "rows only the old code gives"}
    rows = [
        (
            what.get(change.field, change.field), f"{change.keys:,}", change.key, change.before or "", change.after or "",
            f"{change.position:,}", change.event, change.reason or "",
        )
        for change in found.changes
    ]  # fmt: skip
    columns = ("what changes", "keys", "as", "before", "after", "first at", "event", "accepted")
    heading = f"{found.model}: {'the same' if found.same else 'changes'} since {found.base}, {_events(found.position)}"
    return table(heading, columns, rows, right={1, 5}) if rows else table(heading, ("rows",), [(f"{found.keys[1]:,}",)])


def held_html(held: Held) -> str:
    """A model held against its golden, with the first rows that differ."""
    columns = held.frame.columns or ["about"]
    rows: list[Sequence[Any]] = list(held.frame.head(20).rows()) or [(held.about,)]
    return table(f"{held.model}: {held.verdict}; {held.about}", columns, [["" if v is None else v for v in row] for row in rows])


def discovery_html(found: Discovery) -> str:
    """What happens in a log: its process map as a picture, the moves as a table beside, and its variants."""
    moves = [
        (row["step"], row["then"], f"{row['count']:,}", f"{row['streams']:,}", str(row["median_wait"]))
        for row in found.map.head(ROWS_SHOWN).to_dicts()
    ]
    few = found.variants.head(5).select("way", "streams", "share", "example").rows()
    ways = [(way, f"{streams:,}", f"{share:.1%}", example) for way, streams, share, example in few]
    heading = f"{repr(found)[10:-1]}"
    first = table(f"{heading}; what follows on what", ("step", "then", "times", "streams", "median wait"), moves, right={2, 3})
    drawn = picture(map_svg(found), repr(found))
    return drawn + first + table("the most frequent ways", ("way", "streams", "share", "as"), ways, right={1, 2})


def board_html(board: Board, layout: Layout | None = None) -> str:
    """A board as a picture, with its notes as a table beside, and what there is to say of it."""
    rows = [
        (note.name, note.kind.replace("_", " "), note.context, note.text, "; ".join(map(str, note.fields)),
         ", ".join(board.note(to).name for to in note.to))
        for note in board.notes
    ]  # fmt: skip
    notes = table("", ("note", "what", "context", "says", "fields", "leads to"), rows, whole={0, 1, 2})
    said = [(one.code, one.message, one.hint) for one in review(board)]
    looked = table(f"{len(said)} to look at", ("", "", "instead"), said, whole={0}, one_line=True) if said else ""
    return (
        f"{picture(svg(board, layout), repr(board))}"
        f"<details><summary>{escape(repr(board))}</summary>{notes}</details>{looked}"
    )


#: Characters of the longest line of a waterfall.
_LINE: Final = 32


def trace_html(found: Trace) -> str:
    """A conversation as a waterfall: each event where it lies in time, under what caused it; gaps and strange causes are said."""
    whole = found.lasted / dt.timedelta(microseconds=1) or 1
    rows = []
    for row in found.frame.to_dicts():
        share = row["after"] / dt.timedelta(microseconds=1) / whole
        line = "·" * round(_LINE * share) + ("■" if row["command"] else "●")
        said = [*(["a wait before it"] if row["gap"] else []), *(["caused from outside"] if row["command"] else [])]
        event = "\u2003" * row["depth"] + ("↳ " if row["depth"] else "") + row["type"]
        rows.append((f"{row['position']:,}", line, f"+{row['after']}", event, row["stream"], row["actor"] or "", "; ".join(said)))
    columns = ("position", "when", "after", "event", "stream", "actor", "")
    fall = table(repr(found), columns, rows, right={0, 2}, whole=range(5), one_line=True)
    return fall + picture(causes(found), f"who caused whom in {found!r}")


def conformance_html(found: Conformance) -> str:
    """A log held against a process."""
    columns = found.deviations.columns
    few = found.deviations.head(ROWS_SHOWN).rows()
    rows = [["" if v is None else f"{v:,}" if isinstance(v, int) else v for v in row] for row in few]
    unseen = [(said,) for said in found.not_observable]
    more = table("not observable", ("",), unseen, one_line=True) if unseen else ""
    return table(str(found), columns, rows, right={3, 4, 5, 6}) + more


def ingested_html(done: Ingested) -> str:
    """What an ingest did."""
    rows = [(name, f"{count:,}") for name, count in done.by_type.items()]
    return table(
        f"{done.source}: {done.events:,} events added, {done.already:,} there before", ("event", "rows"), rows, right={1}
    )


def rebuilt_html(done: Rebuilt) -> str:
    """What a rebuild or a catch-up did."""
    row = [f"{done.rows:,}", f"{done.events:,}", f"{done.position:,}", f"{done.events_per_second:,.0f}"]
    columns = ["rows", "events folded", "checkpoint", "events/s"]
    if done.parked:
        columns.append("keys that stopped, see lab.parked()")
        row.append(f"{done.parked:,}")
    waits = ": a candidate, until lab.accept" if done.state == "candidate" else ""
    return table(f"state.{done.model}{waits}", columns, [row], right=range(len(row)), one_line=True)


def base_html(base: ReadModelBase) -> str:
    """Where a read model stands."""
    row = (base.state, f"{base.rows:,}", f"{base.position:,}", base.fingerprint[:8], f"{len(base.parked):,}")
    return table(f"state.{base.name}", ("", "rows", "checkpoint", "code", "parked"), [row], right={1, 2, 4}, one_line=True)


def runner_html(runner: Runner) -> str:
    """What a loop does: each piece of work, whether it is held here, and what failed last."""
    rows = [(of.name, of.kind, "here" if of.held else "by another process", f"{of.events:,}", of.error) for of in runner.work]
    said = "running" if runner.running else "stopped"
    return table(f"the loop: {said}", ("name", "", "done", "events", "last error"), rows, right={3}, one_line=True)


_SCENARIO: Final = ("", "stream", "what", "what it says")


def given_html(done: Any) -> str:
    """The past of a scenario."""
    return table(done.named, _SCENARIO, _past(done), whole={0, 1, 2}, one_line=True)


def _past(given: Any) -> list[Sequence[Any]]:
    rows = [("", stream, type(_bare(event)).__name__, payload_text(_bare(event))) for stream, event in given.past]
    return [("given", *row[1:]) if at == 0 else row for at, row in enumerate(rows or [("", "", "nothing", "")])]


def outcome_html(done: Any) -> str:
    """A scenario: what was, what was asked, what came of it, and what that changed."""
    rows = _past(done.given)
    named = type(done.command).__name__ if vars(type(done.command)).get("__eventlab_type__") else "a function"
    rows.append(("when", "", named, payload_text(done.command) if named != "a function" else ""))
    if done.rejection is not None:
        rows.append(("then", "", "rejected", done.rejection.message))
    for at, (stream, event) in enumerate(done.appended):
        rows.append(("then" if at == 0 else "", stream, type(event).__name__, payload_text(event)))
    if done.rejection is None and not done.appended:
        rows.append(("then", "", "nothing", ""))
    rows += [("", "", name, f"{old!r} → {new!r}") for name, old, new in done.changed]
    return table(done.given.named, _SCENARIO, rows, whole={0, 1, 2}, one_line=True)


def read_html(done: Any) -> str:
    """An event read as another version of its type: each field as it was stored and as it is read, or why it cannot be read."""
    before, after = done.stored, done.fields
    steps = f", by {', '.join(done.steps)}" if done.steps else ""
    columns = ["field", f"version {done.schema.version}"]
    rows: list[Sequence[Any]] = [(name, _value(before, name)) for name in before]
    if done.failure is None:
        columns += [f"version {done.version}"]
        rows = [(name, _value(before, name), _value(after, name)) for name in dict.fromkeys((*before, *after))]
    read = table(f"{done.kind.name}{steps}", columns, rows, whole={0}, one_line=True)
    return read + (table("it cannot be read", ("",), [(done.failure.message,)], one_line=True) if done.failure else "")


def _value(fields: dict[str, Any], name: str) -> str:
    return "" if name not in fields else str(fields[name]) if isinstance(fields[name], _PLAIN) else repr(fields[name])


def found_html(found: Sequence[Found]) -> str:
    """What a reviewer would say."""
    rows = [(one.code, one.name, one.said, one.why, one.hint, f"{one.file}:{one.line}" if one.line else "") for one in found]
    caption = f"{len(rows)} finding{'s' if len(rows) != 1 else ''}" if rows else "nothing to say"
    return table(caption, ("", "of", "what", "why it matters", "instead", "where"), rows, whole={0, 1}, one_line=True)


def _bare(event: Any) -> Any:
    return event.event if isinstance(event, New) else event


def explanation_html(plan: Explanation) -> str:
    """The plan of a fold: each field, each refusal with its line, each guard; the query and the loop to be opened."""
    columns = ["field", "kind", "stratum", "engine", "reads"]
    rows = [
        [field.field, field.kind, "" if field.stratum is None else field.stratum, field.engine, ", ".join(field.reads)]
        for field in plan.fields
    ]
    if plan.refusals:
        columns += ["line", "", "why it does not lift", "what would lift it"]
        for row, field in zip(rows, plan.fields, strict=True):
            row += [field.where, field.text, field.reason, field.hint]
    if not any(field.reads for field in plan.fields):
        del columns[4]
        for row in rows:
            del row[4]
    parts = [table(plan.verdict, columns, rows, right={2}, whole={0, 1, 3}, one_line=True)]
    if plan.reason:
        said = (("line", plan.where), ("", plan.text), ("why it does not lift", plan.reason), ("what would lift it", plan.hint))
        parts.append(table("", ("", ""), [(name, text) for name, text in said if text], whole={0}))
    if plan.source:
        parts.append(f"<p>{escape(plan.keyed_by)}</p>")
    if plan.guards:
        caption = "guards: a key that meets one is folded by the loop or by your own evolve"
        guards = [(guard.event, guard.where, guard.why) for guard in plan.guards]
        parts.append(table(caption, ("event", "line", "what is guarded"), guards, one_line=True))
    for name, text in (("the query", _FILES.sub(_how_many, plan.sql)), ("the loop", plan.loop)):
        if text:
            parts.append(f'<details><summary>{name}</summary><pre style="text-align: left">{escape(text)}</pre></details>')
    return "".join(parts)


#: The files of a query are the machine's business; a person wants to read what is done with them.
_FILES: Final = re.compile(r"read_parquet\(\[([^\]]*)\]")


def _how_many(found: re.Match[str]) -> str:
    count = found[1].count("', '") + 1
    return f"read_parquet([{count} file{'s' if count > 1 else ''}]"


def comparison_html(found: Comparison) -> str:
    """Where two definitions part: a line for each field, and the first few keys."""
    parts = [table(found.verdict, ("", ""), found.lines, whole={0}, one_line=True)]
    if found.first is not None:
        rows = found.frame.head(ROWS_SHOWN).rows()
        keys = len(found.frame.columns) - 6
        total = sum(of.parting for of in found.fields)
        what = f"the first {len(rows)} of {total:,} partings" if len(rows) < total else "all partings"
        columns = (*found.frame.columns[: keys + 3], "position", "version", "event")
        shown = [[*row[: keys + 3], f"{row[-3]:,}", *row[-2:]] for row in rows]
        parts.append(table(what, columns, shown, right={keys + 3, keys + 4}, whole={keys + 3}))
    return "".join(parts)


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Collection[int] = (),
    whole: Collection[int] = (),
    *,
    one_line: bool = False,
) -> str:
    """A table without colours of its own, so that it reads in light and dark; `whole` columns are not broken into lines.

    A caption is as wide as its table, unless it is `one_line`.
    """

    def cell(kind: str, i: int, value: Any) -> str:
        style = f"text-align: {'right' if i in right else 'left'}; vertical-align: top"
        style += "; white-space: nowrap" if i in whole else ""
        return f'<{kind} style="{style}">{escape(str(value))}</{kind}>'

    head = "".join(cell("th", i, name) for i, name in enumerate(columns)) if any(columns) else ""
    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    style = "text-align: left; font-weight: bold" + "; white-space: nowrap" * one_line
    return (
        f'<table><caption style="{style}">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _events(n: int) -> str:
    return f"{n:,} event{'s' if n != 1 else ''}"


def payload_text(data: Any) -> str:
    """What an event says, in a line that is cut where it is long."""
    fields = data.items() if isinstance(data, dict) else vars(data).items()
    text = ", ".join(f"{name}={value if isinstance(value, _PLAIN) else repr(value)}" for name, value in fields)
    return text if len(text) <= PAYLOAD_SHOWN else text[: PAYLOAD_SHOWN - 1] + "…"


def _day(moment: Any) -> str:
    return "" if moment is None else str(moment.date().isoformat())

"""A log held against a board: what happened that nobody designed, and what was designed and did not happen.

Flows are held as `process.conform` holds them. Beside them: events that the board does not know or that never came, events of
another category, stored fields that are not those of the board, policies that did not act or acted unasked, and examples that a
stream contradicts. What the log's metadata does not tell is said to be not observable.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl

from eventlab.errors import InvalidValue
from eventlab.model.schema import Schema
from eventlab.storming.board import Board, Example, Fact, Note
from eventlab.storming.discovery import span_of, walked
from eventlab.storming.information import stored_as
from eventlab.storming.process import Conformance, conform, deviations_of, told
from eventlab.storming.simulation import category_of
from eventlab.temporal.events import Events

_ENVELOPE: Final = ("_position", "_stream", "_category", "_version", "_type", "_occurred_at", "_event_id", "_causation_id",
                    "_correlation_id")  # fmt: skip

#: Whether an event says what it belongs to: its cause, or a conversation that another event began.
_TELLS: Final = pl.col("causation_id").is_not_null() | (pl.col("correlation_id") != pl.col("event_id")).fill_null(value=False)


def hold(events: Events, board: Board, schemas: Mapping[tuple[str, int], Schema], step: str | None = None) -> Conformance:
    """Hold a log against a board; with `step`, its flows alone, for their steps are no types of events then."""
    rows = walked(events, step)
    bad: set[str] = set()
    found: list[dict[str, Any]] = []
    designed = happened = 0
    for flow in board.flows:
        mine = rows.filter(pl.col("category") == flow.category)
        one = conform(mine, flow)
        found += [row for row in one.deviations.to_dicts() if step is not None or row["kind"] != "unknown step"]
        bad |= set(one.strays)
        designed += len(flow.moves)
        happened += round(one.coverage * len(flow.moves))
    unseen: list[str] = []
    drift = 0.0
    if step is None:
        wide = events.lazy().select(*_ENVELOPE, "_schema_version").collect()
        wide = wide.rename({name: name[1:] for name in wide.columns})
        found += _types(rows, board)
        strays = rows.filter(_stray(board))
        bad |= set(strays["stream"].unique())
        notes = board.find("event")
        designed += len(notes)
        happened += len({note.name for note in notes} & set(rows["type"].unique()))
        drifted, drift = _drift(wide, board, schemas)
        found += drifted
        for part in (_causes(wide, board), _policies(wide, board)):
            for one_found in part:
                if isinstance(one_found, str):
                    unseen.append(one_found)
                else:
                    found.append(one_found)
        found += list(_examples(events, board))
    count = rows["stream"].n_unique() if len(rows) else 0
    return Conformance(
        board.name, count, (count - len(bad)) / count if count else 1.0, happened / designed if designed else 1.0,
        *span_of(rows), deviations_of(found), drift, tuple(unseen), tuple(sorted(bad)),
    )  # fmt: skip


def _known(board: Board) -> dict[str, Note]:
    return {note.name: note for note in board.find("event")}


def _home(board: Board, note: Note) -> str | None:
    """The category that the events of a note belong to, where the board says it."""
    owner = board.aggregate_of(note.id)
    return None if owner is None else category_of(owner)


def _stray(board: Board) -> pl.Expr:
    """Whether an event is unknown to the board, or stands in another category."""
    known = _known(board)
    stray = ~pl.col("type").is_in(list(known))
    for name, note in known.items():
        home = _home(board, note)
        if home is not None:
            stray |= (pl.col("type") == name) & (pl.col("category") != home)
    return stray


def _types(rows: pl.DataFrame, board: Board) -> Iterator[dict[str, Any]]:
    known, there = _known(board), set(rows["type"].unique())
    for name in sorted(there - set(known)):
        yield told("unknown event", name, "", rows.filter(pl.col("type") == name))
    for name, note in known.items():
        if name not in there:
            yield told("never seen", name, "", rows.clear())
        home = _home(board, note)
        others = rows.filter(pl.col("type") == name, pl.col("category") != home) if home is not None else rows.clear()
        for (category,), part in sorted(others.partition_by("category", as_dict=True).items()):
            yield told("wrong category", name, str(category), part)


def _drift(
    wide: pl.DataFrame, board: Board, schemas: Mapping[tuple[str, int], Schema]
) -> tuple[list[dict[str, Any]], float]:
    """Fields that the stored schemas of a type have otherwise than its note, and the share of events they are in."""
    found, drifted = [], 0
    for name, note in _known(board).items():
        if not note.fields:
            continue  # nobody has said yet what it holds
        wanted = {
            leaf.column for of in note.fields if (kind := _stored(of.type)) is not None for leaf in kind.leaves(of.name)
        }
        unknown = {of.name for of in note.fields if _stored(of.type) is None}
        for (type_, version), schema in sorted(schemas.items()):
            part = wide.filter(pl.col("type") == name, pl.col("schema_version") == version) if type_ == name else wide.clear()
            if not len(part):
                continue
            stored = {column for column in schema.columns if _root(column) not in unknown}
            fields = sorted({_root(column) for column in wanted ^ stored})
            drifted += len(part) if fields else 0
            for field in fields:
                a = ", ".join(sorted(c for c in wanted if _root(c) == field)) or "nothing"
                b = ", ".join(sorted(c for c in stored if _root(c) == field)) or "nothing"
                found.append(told("field drift", name, f"{field}: {a} on the board, {b} in version {version}", part))
    return found, drifted / len(wide) if len(wide) else 0.0


def _stored(text: str) -> Any:
    try:
        return stored_as(text)
    except InvalidValue:
        return None  # the review of the board says so


def _root(column: str) -> str:
    return column.partition(":")[0].split(".")[0]


def _causes(wide: pl.DataFrame, board: Board) -> Iterator[dict[str, Any] | str]:
    """Events without a cause, of types whose other events have one."""
    for name, note in _known(board).items():
        if not board.before(note.id, "command"):
            continue
        part = wide.filter(pl.col("type") == name)
        bare = part.filter(pl.col("causation_id").is_null())
        if len(part) and len(bare) == len(part):
            yield f"what causes {name}: none of its {len(part):,} events says it"
        elif len(bare):
            yield told("event without cause", name, "", bare)


def _policies(wide: pl.DataFrame, board: Board) -> Iterator[dict[str, Any] | str]:
    conversed = wide.with_columns(pl.coalesce("correlation_id", "event_id").alias("conversation"))
    for policy in board.find("policy"):
        triggers = {note.name for note in board.before(policy.id, "event")}
        orders = board.after(policy.id, "command")
        effects = {note.name for order in orders for note in board.events_of(order.id)}
        if not triggers or not effects:
            continue
        asked = conversed.filter(pl.col("type").is_in(list(triggers)))
        given = conversed.filter(pl.col("type").is_in(list(effects)))
        tells = given.filter(_TELLS)
        if len(given) and not len(tells):
            yield f"policy {policy.name}: none of the {len(given):,} events it leads to says what caused it"
            continue
        if not len(given) and not len(wide.filter(_TELLS)):
            yield f"policy {policy.name}: no event says what caused it"
            continue
        yield from _acted(policy, asked, tells, wide, effects)
        only = all(board.before(order.id) == (policy,) for order in orders)
        if only:
            by_cause = tells.filter(pl.col("causation_id").is_in(asked["event_id"].to_list()))
            by_talk = tells.join(
                asked.group_by("conversation").agg(pl.col("position").min().alias("asked")), on="conversation"
            ).filter(pl.col("position") > pl.col("asked"))
            fired = set(by_cause["position"]) | set(by_talk["position"])
            unasked = given.filter(~pl.col("position").is_in(list(fired)))
            for (name,), part in sorted(unasked.partition_by("type", as_dict=True).items()):
                yield told("policy without trigger", policy.name, str(name), part)


def _acted(
    policy: Note, asked: pl.DataFrame, tells: pl.DataFrame, wide: pl.DataFrame, effects: set[str]
) -> Iterator[dict[str, Any]]:
    """Events that set the policy off and that nothing came of, or too late; the log's last moment is when they are looked at."""
    after = pl.col("position") > pl.col("asked")
    caused = tells.select(pl.col("causation_id").alias("event_id"), pl.col("occurred_at").alias("done"), "position")
    talked = tells.select("conversation", pl.col("occurred_at").alias("done"), "position")
    mine = asked.select("event_id", "conversation", pl.col("position").alias("asked"))
    answers = pl.concat([
        mine.join(caused, on="event_id").select("asked", "done"),
        mine.join(talked, on="conversation").filter(after).select("asked", "done"),
    ]).group_by("asked").agg(pl.col("done").min())  # fmt: skip
    judged = asked.join(answers, left_on="position", right_on="asked", how="left")
    names = ", ".join(sorted(effects))
    within = dt.timedelta(seconds=policy.within) if policy.within is not None else None
    owed = judged.filter(pl.col("done").is_null())
    if within is not None:
        owed = owed.filter(pl.col("occurred_at") + within <= wide["occurred_at"].max())
        late = judged.filter(pl.col("done") - pl.col("occurred_at") > within)
        if len(late):
            yield told("policy late", policy.name, names, late)
    if len(owed):
        yield told("policy owed", policy.name, names, owed)


def _examples(events: Events, board: Board) -> Iterator[dict[str, Any]]:
    """Examples that a stream contradicts: it begins as they say, with the values they name, and goes on otherwise."""
    if not board.examples:
        return
    lazy = events.lazy()
    names = set(lazy.collect_schema().names())
    for example in board.examples:
        order = board.note(example.when.note)
        gives = [note.name for note in board.events_of(order.id)]
        owner = board.aggregate_of(order.id)
        if owner is None or not gives:
            continue
        mine = lazy.filter(pl.col("_category") == category_of(owner))
        next_ = len(example.given) + 1
        goes_on = mine.filter(pl.col("_version") == next_, pl.col("_type").is_in(gives), _says(example.when, names))
        if not example.rejected:
            wanted = board.note(example.then[0].note).name if example.then else ""
            goes_on = goes_on.filter(pl.col("_type") != wanted)
        for at, fact in enumerate(example.given, 1):
            like = mine.filter(pl.col("_version") == at, pl.col("_type") == board.note(fact.note).name, _says(fact, names))
            goes_on = goes_on.join(like.select("_stream"), on="_stream", how="semi")
        rows = goes_on.select(pl.col("_position").alias("position"), pl.col("_stream").alias("stream")).collect()
        if len(rows):
            yield told("scenario contradicted", example.name, _as(example), rows)


def _as(example: Example) -> str:
    return f"rejected: {example.rejected}" if example.rejected else ", ".join(fact.note for fact in example.then) or "nothing"


def _says(fact: Fact, names: set[str]) -> pl.Expr:
    """Whether an event says what a fact says, in the fields that both have."""
    holds = pl.lit(value=True)
    for name, value in fact.values.items():
        if name in names:
            holds &= pl.col(name).cast(pl.String) == pl.lit(value).cast(pl.String)
    return holds

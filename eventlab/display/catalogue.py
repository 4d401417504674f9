"""The catalogue: events, commands, aggregates and projections of a program, written down for those who work with it.

What the code says (docstrings, fields, who decides and who reads) beside what a store says (versions, counts, first and last,
an example). The same from the same code and store, byte for byte: as Markdown, as one HTML page, and as JSON Schema files.
"""

from __future__ import annotations

import contextlib
import json
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

import polars as pl

from eventlab.display import charts
from eventlab.display.html import payload_text
from eventlab.errors import UnknownType
from eventlab.lab import Lab
from eventlab.model.changes import json_schema
from eventlab.model.events import COMMANDS, EVENTS, CommandType, EventType, description
from eventlab.model.filters import EVERYTHING
from eventlab.model.meta import Recorded
from eventlab.model.models import Model
from eventlab.projections.consumers import CONSUMERS
from eventlab.schemas import differences
from eventlab.store.words import many
from eventlab.temporal.events import Events

#: A value of an example is cut after so many characters.
SHOWN: Final = 80
_STYLE: Final = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
th { border-bottom: 1px solid color-mix(in srgb, currentColor 40%, transparent); font-weight: 600; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; } pre { overflow-x: auto; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
nav ul { padding: 0; } nav li { display: inline; margin-right: 1rem; }
"""


@dataclass
class Page:
    """A thing and what is to be said of it: paragraphs, tables, and pages below."""

    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = field(default_factory=list)
    below: list[Page] = field(default_factory=list)
    drawing: Map | None = None


def catalogue(models: Sequence[Model], lab: Lab | None = None) -> Page:
    """What there is to say of models, their events and commands; with counts and examples where a lab is given."""
    if not models:
        raise UnknownType("there are no models to write of", hint="--models package.module")
    events = _events(models)
    commands = _commands(models)
    seen = _seen(lab, events)
    whole = Page("Catalogue of events", [_counted(events, commands, models)], drawing=_map(models))
    whole.below = [
        Page("Events", below=[_event(kind, models, seen.get(kind.name), lab) for kind in events]),
        Page("Commands", below=[_command(kind, models) for kind in commands]),
        Page("Aggregates", below=[_model(model) for model in models if model.kind == "aggregate"]),
        Page("Projections", below=[_model(model) for model in models if model.kind == "projection"]),
    ]
    whole.below = [page for page in whole.below if page.below]
    return whole


def write(models: Sequence[Model], folder: Path, lab: Lab | None = None) -> list[Path]:
    """Write `catalogue.md`, `catalogue.html` and `schemas/<event>.json`; the files that were written."""
    page = catalogue(models, lab)
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    files = {folder / "catalogue.md": markdown(page), folder / "catalogue.html": html(page)}
    for kind in _events(models):
        files[folder / "schemas" / f"{kind.name}.json"] = json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


# -- what there is to say --------------------------------------------------------------------------------------------------


def _events(models: Sequence[Model]) -> list[EventType]:
    found = {kind.name: kind for model in models for kind in (*(model.handled or ()), *_decided(model))}
    return [found[name] for name in sorted(found)]


def _commands(models: Sequence[Model]) -> list[CommandType]:
    listed = {cls for model in models for cls in model._resolve_decides() or ()}
    return sorted((kind for kind in COMMANDS.all() if kind.cls in listed), key=lambda kind: kind.name)


def _decided(model: Model) -> list[EventType]:
    """The events that an aggregate's `decide` says it gives: those of its return annotation."""
    if model.decide is None:
        return []
    known = {kind.cls: kind for kind in EVENTS.all()}
    with contextlib.suppress(NameError, TypeError, AttributeError):
        hint = typing.get_type_hints(model.decide).get("return")
        return [known[cls] for cls in _classes(hint) if cls in known]
    return []


def _classes(hint: Any) -> Iterator[Any]:
    parts = typing.get_args(hint)
    for part in parts:
        yield from _classes(part)
    if not parts:
        yield hint


def _counted(events: Sequence[EventType], commands: Sequence[CommandType], models: Sequence[Model]) -> str:
    kinds = [many(sum(model.kind == kind for model in models), kind) for kind in ("aggregate", "projection")]
    return f"{many(len(events), 'event')}, {many(len(commands), 'command')}, {', '.join(kinds)}."


def _seen(lab: Lab | None, events: Sequence[EventType]) -> dict[str, dict[int, dict[str, Any]]]:
    """Of each type in the log, by version: how many, first and last, and the first as an example."""
    if lab is None:
        return {}
    names = [kind.name for kind in events]
    frame = lab.read().lazy().filter(pl.col("_type").is_in(names)).group_by("_type", "_schema_version").agg(
        pl.len().alias("count"), pl.col("_occurred_at").min().alias("first"), pl.col("_occurred_at").max().alias("last"),
        pl.col("_position").min().alias("position"),
    ).collect()  # fmt: skip
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in frame.sort("_schema_version").to_dicts():
        found.setdefault(row["_type"], {})[row["_schema_version"]] = row
    return found


def _event(kind: EventType, models: Sequence[Model], seen: dict[int, dict[str, Any]] | None, lab: Lab | None) -> Page:
    page = Page(kind.name, [description(kind.cls) or "Nobody has said what it means."])
    page.tables.append((("field", "declared"), [(name, of.declared) for name, of in kind.fields] or [("", "it has no fields")]))
    givers = sorted(model.cls.__name__ for model in models if kind in _decided(model))
    readers = sorted(model.cls.__name__ for model in models if kind in (model.handled or ()))
    told = sorted(
        of.name for of in CONSUMERS.values() if any(kind.name in (clause.types or ()) for clause in of.filter.clauses)
    )
    about = [("version", f"{kind.version}"), ("decided by", ", ".join(givers)), ("read by", ", ".join(readers))]
    about += [("told to", ", ".join(told))] if told else []
    if seen is not None and lab is not None:
        counted = list(seen.values())
        count, position = sum(row["count"] for row in counted), min(row["position"] for row in counted)
        first, last = min(row["first"] for row in counted), max(row["last"] for row in counted)
        about += [
            ("in the log", f"{count:,}, versions {', '.join(map(str, seen))}"), ("first", f"{first:%Y-%m-%d %H:%M:%S} UTC"),
            ("last", f"{last:%Y-%m-%d %H:%M:%S} UTC"), ("example", _example(lab, position)),
        ]  # fmt: skip
    elif lab is not None:
        about.append(("in the log", "never yet"))
    page.tables.append((("", ""), [(name, text) for name, text in about if text]))
    older = [_older(kind, version, lab, (seen or {}).get(version)) for version in _versions(kind, lab) if version < kind.version]
    if older:
        # Without a store there is nothing to say of what is stored.
        shown = [at for at in range(len(OLDER)) if lab is not None or any(row[at] for row in older)]
        rows = [tuple(row[at] for at in shown) for row in older]
        page.below.append(Page(f"From older versions of {kind.name}", tables=[(tuple(OLDER[at] for at in shown), rows)]))
    return page


#: What is said of an older version: what changed since, what brings its events to today, and one of them before and after.
OLDER: Final = ("version", "what is different today", "how its events are read", "in the log", "stored as", "read as")


def _versions(kind: EventType, lab: Lab | None) -> list[int]:
    """The versions that are stored, and those that an upcaster begins at."""
    stored = {version for name, version in lab.store.cut().schemas if name == kind.name} if lab is not None else set()
    return sorted(stored | set(kind.upcasters))


def _older(kind: EventType, version: int, lab: Lab | None, seen: dict[str, Any] | None) -> tuple[str, ...]:
    """The line of the guide for those who meet events of an older version, of which so many were seen."""
    steps = [at for at in sorted(kind.upcasters) if at >= version]
    told = [description(kind.upcasters[at].function) or "it is upcast" for at in steps]  # type: ignore[arg-type]
    read = "; ".join(f"{at} to {at + 1}: {text}" for at, text in zip(steps, told, strict=True))
    read = read or "as it is; a field that it has not takes its default"
    if lab is None or (kind.name, version) not in lab.store.cut().schemas:
        return (str(version), "", read, "", "", "")
    said = "; ".join(map(str, differences(kind.name, lab.store.cut().schemas, version, None))) or "nothing that a reader sees"
    if seen is None:
        return (str(version), said, read, "0", "", "")
    stored, today = (_cut(payload_text(data)) for data in (_stored(lab, seen["position"]), _read(lab, seen["position"]).data))
    return str(version), said, read, f"{seen['count']:,}", stored, today


def _stored(lab: Lab, position: int) -> Any:
    """What an event says as it was stored: no class, no upcaster."""
    (event,) = Events(lab.store.cut(), lab._tenant, lambda name: None, EVERYTHING, (position - 1, position), None)
    return event.data


def _read(lab: Lab, position: int) -> Recorded:
    (event,) = lab.read(after=position - 1, until=position)
    return event


def _example(lab: Lab, position: int) -> str:
    event = _read(lab, position)
    return f"{event.stream}: {_cut(repr(event.data))}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _command(kind: CommandType, models: Sequence[Model]) -> Page:
    page = Page(kind.name, [description(kind.cls) or "Nobody has said what it means."])
    page.tables.append((("field", "declared"), [(name, of.declared) for name, of in kind.fields] or [("", "it has no fields")]))
    deciders = sorted(model.cls.__name__ for model in models if kind.cls in (model._resolve_decides() or ()))
    page.tables.append((("", ""), [("decided by", ", ".join(deciders))]))
    return page


def _model(model: Model) -> Page:
    page = Page(model.cls.__name__, [description(model.cls) or "Nobody has said what it is."])
    of = "streams" if model.category is not None else "key"
    place = f"{model.category}-<id>" if model.category is not None else ", ".join(name for name, _ in model.key_fields)
    page.tables.append((("field", "declared"), [(name, kind.declared) for name, kind in model.fields]))
    handled = ", ".join(sorted(kind.name for kind in model.handled or ())) or "every event"
    page.tables.append((("", ""), [(of, place), ("reads", handled)]))
    return page


@dataclass(frozen=True)
class Map:
    """What decides and reads what: names in four columns, and links between them, dashed where something is read."""

    columns: tuple[tuple[str, ...], ...]
    links: tuple[tuple[tuple[int, int], tuple[int, int], bool], ...]

    def mermaid(self) -> str:
        """As a Mermaid flowchart."""
        shapes = ((">", "]"), ("[[", "]]"), ("(", ")"), ("[(", ")]"))
        names = {(at, row): f"{'caep'[at]}{row}" for at, column in enumerate(self.columns) for row in range(len(column))}
        nodes = [f'    {id}{shapes[at][0]}"{self.columns[at][row]}"{shapes[at][1]}' for (at, row), id in names.items()]
        lines = [f"    {names[a]} {'-.->' if dashed else '-->'} {names[b]}" for a, b, dashed in self.links]
        return "\n".join(["flowchart LR", *nodes, *lines])

    def svg(self) -> str:
        """As a picture for the page that it is part of: a click leads to what is written of a name."""
        return charts.layers(self.columns, self.links).replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)


def _map(models: Sequence[Model]) -> Map:
    """Commands, aggregates, events and projections: each event beside those that decide it."""
    aggregates = sorted((model for model in models if model.kind == "aggregate"), key=lambda model: model.cls.__name__)
    folds = sorted((model for model in models if model.kind != "aggregate"), key=lambda model: model.cls.__name__)
    decides = [sorted(cls.__name__ for cls in model._resolve_decides() or ()) for model in aggregates]
    gives = [sorted(kind.name for kind in _decided(model)) for model in aggregates]
    reads = [sorted(kind.name for kind in model.handled or ()) for model in (*aggregates, *folds)]
    columns = (
        tuple(dict.fromkeys(name for names in decides for name in names)), tuple(model.cls.__name__ for model in aggregates),
        tuple(dict.fromkeys(name for names in (*gives, *reads) for name in names)), tuple(model.cls.__name__ for model in folds),
    )  # fmt: skip
    row = [{name: at for at, name in enumerate(column)} for column in columns]
    links = [((0, row[0][name]), (1, at), False) for at, names in enumerate(decides) for name in names]
    links += [((1, at), (2, row[2][name]), False) for at, names in enumerate(gives) for name in names]
    for at, names in enumerate(reads):
        me = (1, at) if at < len(aggregates) else (3, at - len(aggregates))
        given = gives[at] if at < len(aggregates) else []
        links += [((2, row[2][name]), me, True) for name in names if name not in given]
    return Map(columns, tuple(links))


# -- how it is written -----------------------------------------------------------------------------------------------------


def markdown(page: Page, level: int = 1) -> str:
    """A page and those below as Markdown, with the drawing as Mermaid."""
    parts = [f"{'#' * level} {_plain(page.title)}", *map(_plain, page.texts)]
    if page.drawing is not None:
        parts.append(f"```mermaid\n{page.drawing.mermaid()}\n```")
    for heads, rows in page.tables:
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
        parts.append("\n".join(lines))
    text = "\n\n".join(parts) + "\n"
    return "\n".join([text, *(markdown(one, level + 1) for one in page.below)])


def _plain(text: str) -> str:
    """Text that Markdown takes for text."""
    return "".join(f"\\{c}" if c in "\\`*_<>[]#|" else c for c in text)


def _cell(text: str) -> str:
    return _plain(" ".join(text.split()))


def html(page: Page) -> str:
    """The same as one page: no script, nothing fetched, light and dark as the reader has it."""
    links = "".join(f'<li><a href="#{charts.anchor(one.title)}">{escape(one.title)}</a></li>' for one in page.below)
    body = "".join(_html(page, 1))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(page.title)}</title>'
    top = f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>'
    return f"{top}\n<body><nav><ul>{links}</ul></nav>{body}</body></html>\n"


def _html(page: Page, level: int) -> Iterable[str]:
    yield f'<h{level} id="{charts.anchor(page.title)}">{escape(page.title)}</h{level}>\n'
    yield from (f"<p>{escape(text)}</p>\n" for text in page.texts)
    for heads, rows in page.tables:
        top = "".join(f"<th>{escape(head)}</th>" for head in heads) if any(heads) else ""
        lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        yield f"<table>{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{lines}</tbody></table>\n"
    if page.drawing is not None:
        yield f"<figure>{page.drawing.svg()}</figure>\n"
    for one in page.below:
        yield from _html(one, level + 1)


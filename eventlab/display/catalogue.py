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

from eventlab.errors import UnknownType
from eventlab.lab import Lab
from eventlab.model.changes import json_schema
from eventlab.model.events import COMMANDS, EVENTS, CommandType, EventType, description
from eventlab.model.models import Model
from eventlab.projections.consumers import CONSUMERS
from eventlab.schemas import differences
from eventlab.store.words import many

#: A value of an example is cut after so many characters.
SHOWN: Final = 80
_STYLE: Final = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
th { border-bottom: 1px solid color-mix(in srgb, currentColor 40%, transparent); font-weight: 600; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; } pre { overflow-x: auto; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
nav ul { padding: 0; } nav li { display: inline; margin-right: 1rem; }
"""


@dataclass
class Page:
    """A thing and what is to be said of it: paragraphs, tables, and pages below."""

    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = field(default_factory=list)
    below: list[Page] = field(default_factory=list)
    drawing: str = ""


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


def _seen(lab: Lab | None, events: Sequence[EventType]) -> dict[str, dict[str, Any]]:
    """Of each type in the log: how many, in which versions, first and last, and the first as an example."""
    if lab is None:
        return {}
    names = [kind.name for kind in events]
    frame = lab.read().lazy().filter(pl.col("_type").is_in(names)).group_by("_type").agg(
        pl.len().alias("count"), pl.col("_occurred_at").min().alias("first"), pl.col("_occurred_at").max().alias("last"),
        pl.col("_position").min().alias("position"), pl.col("_schema_version").unique().sort().alias("versions"),
    ).collect()  # fmt: skip
    return {row["_type"]: row for row in frame.to_dicts()}


def _event(kind: EventType, models: Sequence[Model], seen: dict[str, Any] | None, lab: Lab | None) -> Page:
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
        versions = ", ".join(map(str, seen["versions"]))
        about += [
            ("in the log", f"{seen['count']:,}, versions {versions}"), ("first", f"{seen['first']:%Y-%m-%d %H:%M:%S} UTC"),
            ("last", f"{seen['last']:%Y-%m-%d %H:%M:%S} UTC"), ("example", _example(lab, seen["position"])),
        ]  # fmt: skip
        for old in seen["versions"]:
            if old != kind.version:
                said = [str(change) for change in differences(kind.name, lab.store.cut().schemas, old, None)]
                about.append((f"since version {old}", "; ".join(said) or "nothing that a reader sees"))
    elif lab is not None:
        about.append(("in the log", "never yet"))
    for begin in sorted(kind.upcasters):
        about.append((f"from version {begin}", description(kind.upcasters[begin].function) or "it is upcast"))  # type: ignore[arg-type]
    page.tables.append((("", ""), [(name, text) for name, text in about if text]))
    return page


def _example(lab: Lab, position: int) -> str:
    (event,) = lab.read(after=position - 1, until=position)
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


def _map(models: Sequence[Model]) -> str:
    """What decides and reads what, as Mermaid: command, aggregate, event, projection."""
    names: dict[tuple[str, str], str] = {}

    def node(kind: str, name: str) -> str:
        return names.setdefault((kind, name), f"{kind}{len(names)}")

    lines = []
    for model in models:
        me = node("a" if model.kind == "aggregate" else "p", model.cls.__name__)
        lines += [f"    {node('c', cls.__name__)} --> {me}" for cls in model._resolve_decides() or ()]
        decided = {kind.name for kind in _decided(model)}
        lines += [f"    {me} --> {node('e', name)}" for name in sorted(decided)]
        lines += [f"    {node('e', kind.name)} -.-> {me}" for kind in model.handled or () if kind.name not in decided]
    shapes = {"a": ("[[", "]]"), "p": ("[(", ")]"), "c": (">", "]"), "e": ("(", ")")}
    nodes = [f'    {id}{shapes[kind][0]}"{name}"{shapes[kind][1]}' for (kind, name), id in names.items()]
    return "\n".join(["flowchart LR", *nodes, *lines])


# -- how it is written -----------------------------------------------------------------------------------------------------


def markdown(page: Page, level: int = 1) -> str:
    """A page and those below as Markdown, with the drawing as Mermaid."""
    parts = [f"{'#' * level} {_plain(page.title)}", *map(_plain, page.texts)]
    if page.drawing:
        parts.append(f"```mermaid\n{page.drawing}\n```")
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
    links = "".join(f'<li><a href="#{_anchor(one.title)}">{escape(one.title)}</a></li>' for one in page.below)
    body = "".join(_html(page, 1))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(page.title)}</title>'
    top = f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>'
    return f"{top}\n<body><nav><ul>{links}</ul></nav>{body}</body></html>\n"


def _html(page: Page, level: int) -> Iterable[str]:
    yield f'<h{level} id="{_anchor(page.title)}">{escape(page.title)}</h{level}>\n'
    yield from (f"<p>{escape(text)}</p>\n" for text in page.texts)
    for heads, rows in page.tables:
        top = "".join(f"<th>{escape(head)}</th>" for head in heads) if any(heads) else ""
        lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        yield f"<table>{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{lines}</tbody></table>\n"
    if page.drawing:
        yield f"<details><summary>The map, as Mermaid</summary><pre>{escape(page.drawing)}</pre></details>\n"
    for one in page.below:
        yield from _html(one, level + 1)


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title)



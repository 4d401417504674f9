"""What the commands share: stores, models and arguments found, values printed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import importlib
import json
import math
import os
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import eventlab
from eventlab.errors import (
    Busy,
    Damaged,
    EventlabError,
    ModelError,
    ReadOnly,
    Refused,
    StoreError,
    TryAgain,
    UnknownType,
)
from eventlab.lab import Lab
from eventlab.lab import open as open_lab
from eventlab.model.filters import EVERYTHING, Filter, category, events, stream, tag
from eventlab.model.models import MODELS, Model, model_of
from eventlab.projections.handmade import HANDMADE
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.maintain import alone
from eventlab.temporal.reader import Reader

DEFAULT_STORE: Final = "data/flights"

_ENVELOPE: Final = (
    "position", "stream", "version", "type", "schema_version", "event_id", "recorded_at", "occurred_at", "correlation_id",
    "causation_id", "actor", "tenant", "tags",
)  # fmt: skip
_CODES: Final[tuple[tuple[type[EventlabError], int], ...]] = ((Refused, 3), (ModelError, 3), (StoreError, 4), (TryAgain, 5))




def shown(frame: Any, given: argparse.Namespace, console: Console, none: str) -> int:
    """Print a frame, or that there is nothing."""
    if given.json or len(frame):
        given.limit = len(frame)
        show_frame(frame, given, console)
    else:
        say(console, none)
    return 0


def opened(given: argparse.Namespace, *, read_all: bool = False) -> Lab:
    """The lab that the arguments name."""
    tenant = getattr(given, "tenant", None)
    if tenant is None and read_all:
        try:
            return open_lab(given.store, create=False)
        except Refused:
            return open_lab(given.store, create=False, tenant=eventlab.ALL)
    return open_lab(given.store, create=False, tenant=tenant)


@contextlib.contextmanager
def stored(given: argparse.Namespace) -> Iterator[DiskStore]:
    """The store alone: what looks at files needs no tenant, and no schema that can be read."""
    with catalog_errors(given.store):
        store = open_store(given.store, now=now, create=False)
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def catalog_errors(path: str) -> Iterator[None]:
    """What SQLite says of a damaged catalog quotes the damage, and is no text then."""
    try:
        yield
    except UnicodeDecodeError as why:
        raise Damaged(f"the catalog of {path} cannot be read", hint="restore a backup: eventlab restore") from why


@contextlib.contextmanager
def maintaining(store: DiskStore) -> Iterator[None]:
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
def working(what: str) -> Iterator[None]:
    """Say what takes its time, and for how long already, where someone looks."""
    if not sys.stderr.isatty() or os.environ.get("EVENTLAB_PROGRESS", "auto") == "off":
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def say(console: Console, text: str) -> None:
    """Print text as it is: what a log holds is no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def position_of(text: str) -> int:
    """A position as it is printed, with or without commas."""
    try:
        return int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a position: a whole number, such as 1234") from None


def count_of(text: str) -> int:
    """A number, of an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def wait_of(text: str) -> float:
    """A time to wait, of an argument."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds: 0 or more")
    return seconds


def moment_of(lab: Lab, given: argparse.Namespace) -> Reader:
    """The lab at the moment that the arguments name."""
    if given.at is None and given.position is None:
        return lab
    return lab.at(given.at, position=given.position)


def filter_of(given: argparse.Namespace) -> Filter:
    """The filter that the arguments name."""
    picked = EVERYTHING
    for values, make in ((given.type, events), (given.stream, stream), (given.category, category), (given.tag, tag)):
        if values:
            picked = picked & make(*values)
    return picked


def references_of(given: argparse.Namespace) -> list[str]:
    """Where the models are that the arguments name, or this folder."""
    return [part for text in given.models or () for part in text.split(",") if part] or configured()


def load_models(given: argparse.Namespace, *, required: bool = False, by_hand: bool = False) -> list[Model]:
    """The models of the modules named by --models, or by `[tool.eventlab] models` of pyproject.toml here."""
    references = references_of(given)
    if required and not references:
        raise UnknownType(
            "no models are named",
            hint='--models package.module, or models = ["package.module"] under [tool.eventlab] in pyproject.toml',
        )
    return [model for reference in references for model in import_models(reference, by_hand=by_hand)]


def named(name: str, models: Sequence[Model]) -> type[Any]:
    """The model of this name among those that were loaded, or where package.module:Name says it is."""
    named = next((m for m in models if name in (m.cls.__name__, m.name, m.reference)), None)
    if named is not None:
        return named.cls
    if ":" in name:
        return import_models(name)[0].cls
    known = ", ".join(sorted({m.cls.__name__ for m in models}))
    hint = f"one of {known}" if known else f"say where it is defined: --models package.module, or package.module:{name}"
    raise UnknownType(f"no model is called {name!r} here", hint=hint)


def configured() -> list[str]:
    """The models that pyproject.toml here names."""
    path = Path("pyproject.toml")
    if not path.exists():
        return []
    try:
        found = tomllib.loads(path.read_text()).get("tool", {}).get("eventlab", {}).get("models", [])
    except tomllib.TOMLDecodeError as why:
        raise Refused(f"{path} cannot be read: {why}") from None
    return [found] if isinstance(found, str) else list(found)


def import_models(reference: str, *, by_hand: bool = False) -> list[Model]:
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


def pair(text: str, example: str) -> tuple[str, str]:
    """Two parts of an argument."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise Refused(f"{text!r} is not NAME=VALUE", hint=example)
    return name, value


def show_frame(frame: Any, given: argparse.Namespace, console: Console) -> None:
    """Print a frame as a table, or as JSON."""
    shown = frame.head(given.limit)
    if given.json:
        print_json(
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
        table.add_row(*(escape(plain(value)) for value in row))
    console.print(table)
    if len(frame) > given.limit:
        console.print(f"{given.limit:,} of {len(frame):,} rows; --limit shows more")


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def fields_of(data: Any) -> dict[str, Any]:
    """The fields of an event."""
    return data if isinstance(data, dict) else dict(vars(data))


def event_dict(event: Any) -> dict[str, Any]:
    """An event as plain values."""
    return {**{name: getattr(event, name) for name in _ENVELOPE}, "data": fields_of(event.data)}


def print_json(value: Any) -> None:
    """Print one JSON document."""
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

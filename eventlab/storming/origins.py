"""Where a board can come from, beside a person: the code of a program, or what a log shows."""

from __future__ import annotations

import ast
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from eventlab.model.events import COMMANDS, CommandType, EventType, description
from eventlab.model.models import Model, model_description
from eventlab.model.schema import Schema
from eventlab.model.source import capture
from eventlab.model.types import FieldType
from eventlab.projections.consumers import Consumer
from eventlab.storming.board import Board, Field
from eventlab.storming.discovery import Discovery
from eventlab.storming.information import from_declared
from eventlab.storming.process import Process


def of_code(name: str, models: Sequence[Model], consumers: Iterable[Consumer] = ()) -> Board:
    """The board that a program's classes draw: its commands, aggregates, events, projections and consumers.

    What a command gives is read from the `case` of it in `decide`; what a consumer orders is not read.
    """
    board = Board(name)
    aggregates = [model for model in models if model.kind == "aggregate"]
    projections = [model for model in models if model.kind == "projection"]
    named: dict[Any, str] = {}

    def put(kind: str, of: Any, called: str, fields: Iterable[tuple[str, FieldType]], text: str, context: str = "") -> str:
        nonlocal board
        known = {note.id for note in board.notes}
        board = board.add(kind, called, fields=tuple(_fields(fields)), text=text, context=context)
        named[of] = next(note.id for note in board.notes if note.id not in known)
        return named[of]

    for model in aggregates:
        gives = _given_by(model)
        for command in _commands(model):
            put("command", command, command.name, command.fields, description(command.cls), model.name)
        put("aggregate", model, model.cls.__name__, model.fields, model_description(model), model.name)
        for event in dict.fromkeys((*(model.handled or ()), *(of for found in gives.values() for of in found))):
            if event not in named:
                put("event", event, event.name, event.fields, event.schema.doc, model.name)
            board = board.link(named[model], named[event])
        for command in _commands(model):
            board = board.link(named[command], named[model])
            for event in gives.get(command, ()):
                board = board.link(named[command], named[event])
    for model in projections:
        keys = [(of, kind) for of, kind in model.key_fields if of != "_id"]
        view = put("read_model", model, model.cls.__name__, (*keys, *model.fields), model_description(model))
        for event in model.handled or ():
            if event not in named:
                put("event", event, event.name, event.fields, event.schema.doc)
            board = board.link(named[event], view)
    for consumer in consumers:
        policy = put("policy", consumer, consumer.name.title().replace("_", ""), (), description_of(consumer))
        types = {of for clause in consumer.filter.clauses for of in clause.types or ()}
        for event in (of for of in list(named) if isinstance(of, EventType) and of.name in types):
            board = board.link(named[event], policy)
    return board


def of_log(found: Discovery, name: str, schemas: Mapping[tuple[str, int], Schema]) -> Board:
    """The board that a log shows: its events with their fields, a flow for each category, and the policies its causes speak of.

    An aggregate stands for each category. Commands are those that were handled under an id. Where an event of one category
    caused one of another, a policy stands between them; a command that it must have given and that has no name in the log
    stands there without one.
    """
    board = Board(name)
    named: dict[tuple[str, str], str] = {}
    newest = {schema.name: schema for _, schema in sorted(schemas.items())}
    for (category,), rows in found.types.sort("first").group_by("category", maintain_order=True):
        owner = _camel(str(category))
        board = board.add("aggregate", owner, context=str(category))
        aggregate = board.notes[-1].id
        for kind in rows["type"].to_list():
            schema = newest.get(kind)
            board = board.add(
                "event", kind, fields=tuple(_stored(schema)) if schema else (), context=str(category),
                text=schema.doc if schema else "",
            )  # fmt: skip
            named[str(category), kind] = board.notes[-1].id
            board = board.link(aggregate, board.notes[-1].id)
        mine = found._rows.filter(pl.col("category") == category)
        board = board.with_flow(Process.of_rows(str(category), mine))
    given = {}
    for row in found.commands.sort("command", "category", "type").to_dicts() if found.step is None else ():
        if row["command"] not in given:
            board = board.add("command", row["command"], context=row["category"])
            given[row["command"]] = board.notes[-1].id
        board = board.link(given[row["command"]], named[row["category"], row["type"]])
    if found.step is None:
        across = found.causes.filter(pl.col("cause").is_not_null(), pl.col("of") != pl.col("category"))
        for row in across.sort("of", "cause", "category", "type").to_dicts():
            board = board.add("policy", f"After{_camel(row['cause'])}{_camel(row['type'])}", text=_because(row))
            policy = board.notes[-1].id
            board = board.link(named[row["of"], row["cause"]], policy)
            event = named[row["category"], row["type"]]
            orders = [note.id for note in board.before(event, "command")]
            if not orders:
                said = "Its name is not in the log."
                board = board.add("command", f"Do{_camel(row['type'])}", text=said, context=row["category"])
                orders = [board.notes[-1].id]
                board = board.link(orders[0], event)
            for order in orders:
                board = board.link(policy, order)
    return board


def description_of(consumer: Consumer) -> str:
    """What a consumer's function says of itself."""
    return " ".join((consumer.function.__doc__ or "").split())


def _because(row: Mapping[str, Any]) -> str:
    return f"{row['count']:,} events {row['type']} were caused by {row['cause']}."


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace(".", "_").split("_"))


def _fields(fields: Iterable[tuple[str, FieldType]]) -> Iterable[Field]:
    for name, kind in fields:
        yield Field(name, from_declared(kind.declared, tag=kind.is_tag))


def _stored(schema: Schema) -> Iterable[Field]:
    """The fields of a stored schema, as its class declared them."""
    for text in schema.declared:
        name, _, declared = text.partition(": ")
        if name.isidentifier():
            yield Field(name, from_declared(declared))


def _commands(model: Model) -> list[CommandType]:
    classes = model._resolve_decides() or ()
    return [kind for kind in COMMANDS.all() if kind.cls in classes]


def _given_by(model: Model) -> dict[CommandType, list[EventType]]:
    """Of each command, the events that its `case` in `decide` makes, or the methods of the class it calls there."""
    if model.decide is None or (text := capture(model.decide).text) is None:
        return {}
    known = {of.cls.__name__: of for of in (*(model.handled or ()),)}
    commands = {of.name: of for of in _commands(model)}
    tree = ast.parse(textwrap.dedent(text))
    found: dict[CommandType, list[EventType]] = {}
    cases = [case for node in ast.walk(tree) if isinstance(node, ast.Match) for case in node.cases]
    for case in cases:
        classes = (node.cls for node in ast.walk(case.pattern) if isinstance(node, ast.MatchClass))
        made = list(dict.fromkeys(_made_in(case.body, known, model.cls, depth=3)))
        for name in (cls.id for cls in classes if isinstance(cls, ast.Name)):
            if name in commands:
                found.setdefault(commands[name], []).extend(made)
    if not cases and len(commands) == 1:
        found = {of: list(dict.fromkeys(_made_in(tree.body, known, model.cls, depth=3))) for of in commands.values()}
    return found


def _made_in(body: Sequence[ast.AST], known: Mapping[str, EventType], cls: type[Any], depth: int) -> Iterable[EventType]:
    for node in (node for part in body for node in ast.walk(part) if isinstance(node, ast.Call)):
        if isinstance(node.func, ast.Name) and node.func.id in known:
            yield known[node.func.id]
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
            method = getattr(cls, node.func.attr, None)
            text = capture(method).text if isinstance(method, types.FunctionType) and depth else None
            if text is not None:
                yield from _made_in(ast.parse(textwrap.dedent(text)).body, known, cls, depth - 1)

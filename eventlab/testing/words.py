"""What scenarios have in common: events as a test gives them, reasons as it expects them, and the lines that tell of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from eventlab.errors import EventlabError, InvalidValue, ModelError
from eventlab.model.events import New, event_type
from eventlab.model.models import model_of

# -- what is given ---------------------------------------------------------------------------------------------------------


def bare(event: Any) -> Any:
    """An event without what `el.new` said of it."""
    return event.event if isinstance(event, New) else event


def normal(event: Any, where: str) -> Any:
    """An event as the log will give it back; `where` a test gave it."""
    check_event(event, where)
    return event_type(type(bare(event))).normal(bare(event))


def each(events: Any) -> Iterator[Any]:
    """The events of a list, of a list of lists, or the one that was given."""
    if isinstance(events, Iterable) and not isinstance(events, (str, bytes, Mapping)):
        for part in events:
            yield from each(part)
    else:
        yield events


def check_event(event: Any, where: str) -> None:
    """Refuse what is no event: a class where one of its instances is meant, a state, anything else."""
    plain = bare(event)
    if isinstance(plain, type):
        raise InvalidValue(f"{where} takes events, and {plain.__name__} is a class", hint=f"{plain.__name__}(…)")
    if isinstance(plain, Mapping):
        raise InvalidValue(f"{where} takes events or one mapping of streams to events, and not both", hint='{"order-1": […]}')
    if is_model(type(plain)):
        name = type(plain).__name__
        raise InvalidValue(f"{where} takes events, and {plain!r} is a state", hint=f"given({name}, …) with what led to it")
    event_type(type(plain))


def is_model(what: Any) -> bool:
    """Whether this is the class of an aggregate or a projection."""
    if not isinstance(what, type):
        return False
    try:
        model_of(what)
    except ModelError:
        return False
    return True


def agrees(reason: Any, error: EventlabError, verb: str) -> bool:
    """Whether an error is the one that was expected: by words that are found in it, by its class, or one that says the same."""
    if reason is None:
        return True
    if isinstance(reason, type) and issubclass(reason, Exception):
        return isinstance(error, reason)
    if isinstance(reason, EventlabError):
        return type(reason) is type(error) and reason.message == error.message
    if not isinstance(reason, (str, re.Pattern)):
        raise InvalidValue(f"{verb}({reason!r}) takes words of the reason", hint=f'{verb}("already paid")')
    try:
        return re.search(reason, error.message) is not None
    except re.error as why:
        raise InvalidValue(
            f"{verb}({reason!r}) is no regular expression: {why}", hint=f"{verb}(re.escape(…)) takes it letter by letter"
        ) from None


# -- telling ---------------------------------------------------------------------------------------------------------------


def told(word: str, first: str, lines: Sequence[str]) -> list[str]:
    """Lines under a word: given, when, then."""
    listed = [*([first] if first else []), *lines] or [""]
    return [f"  {word if i == 0 else '':<6}{line}".rstrip() for i, line in enumerate(listed)]


def text_of(event: Any) -> str:
    """An event, a command or a function, in a line."""
    plain = bare(event)
    if callable(plain):
        name = getattr(plain, "__name__", "<lambda>")
        return "what the function does" if name == "<lambda>" else f"{name}(lab)"
    return repr(plain)


def named_values(row: Mapping[str, Any]) -> str:
    """Fields in a line: `sku='hat', quantity=2`."""
    return ", ".join(f"{name}={value!r}" for name, value in row.items())


def reason_text(reason: Any) -> str:
    """An expected reason in a line."""
    if isinstance(reason, type):
        return reason.__name__
    return str(reason.message if isinstance(reason, EventlabError) else getattr(reason, "pattern", reason))


def differences(before: Any, after: Any) -> Iterable[tuple[str, Any, Any]]:
    """The fields in which two of one class differ: name, before, after."""
    for of in fields(after):
        old, new = getattr(before, of.name), getattr(after, of.name)
        if old != new:
            yield of.name, old, new


def unlike(expected: Sequence[Any], found: Sequence[Any]) -> list[str]:
    """Lines of what was expected and what came, event by event; of the same type also field by field."""
    lines: list[str] = []
    for at in range(max(len(expected), len(found))):
        wanted = expected[at] if at < len(expected) else None
        came = found[at] if at < len(found) else None
        if wanted == came and type(wanted) is type(came):
            lines.append(f"  {text_of(wanted)}")
            continue
        lines += [f"- {text_of(wanted)}"] if at < len(expected) else []
        lines += [f"+ {text_of(came)}"] if at < len(found) else []
        if type(wanted) is type(came) and is_dataclass(wanted):
            lines += [f"    {name}: expected {old!r}, got {new!r}" for name, old, new in differences(wanted, came)]
    return lines or ["  nothing"]

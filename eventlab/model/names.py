"""Names: how streams, types and tags are spelled, and what their grammar says about the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from eventlab.errors import InvalidName

MAX_NAME_BYTES = 512

_CATEGORY = re.compile(r"[a-z][a-z0-9_]*\Z")
_TYPE = re.compile(r"[^\W\d_][\w.]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_IRREGULAR_PAST = frozenset(
    "begun bent bet bid bought bound broken brought built burnt cast caught chosen come cut dealt done drawn driven eaten "
    "fallen fed felt found forgotten frozen given gone grown hung held hit hurt kept known laid led left lent let lit lost "
    "made meant met outgrown overdrawn overridden paid put quit read rebuilt redone reset rewritten ridden risen run said "
    "seen sent set shown shut sold sought spent split spoken spun stolen stood stuck struck swept sworn taken taught thrown "
    "told torn undone understood unset upset withdrawn withheld won worn written".split()
)


@dataclass(frozen=True)
class Finding:
    """Something about a model that a reviewer would raise; never a failure."""

    code: str
    subject: str
    message: str
    hint: str


def snake(name: str) -> str:
    """`CarrierDay` as `carrier_day`: the category of an aggregate, the view of an event type.

    >>> snake("ItemAdded"), snake("HTTPRequestSeen"), snake("v2.Paid")
    ('item_added', 'http_request_seen', 'v2_paid')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", spaced).lower()


def split_stream(stream: str) -> tuple[str, str]:
    """Category and id of a stream: the id is everything after the first dash.

    >>> split_stream("flight-2013-02-08-UA-1545-EWR")
    ('flight', '2013-02-08-UA-1545-EWR')
    """
    if not isinstance(stream, str):
        raise InvalidName(f"a stream is named by text, not by {type(stream).__name__}", hint="for example 'order-7'")
    category, dash, rest = stream.partition("-")
    if not dash or not rest or not _CATEGORY.match(category):
        raise InvalidName(
            f"{stream!r} is not the name of a stream",
            hint="a stream is category-id, the category in snake case: 'order-7', 'carrier_day-UA'",
        )
    check_plain(stream, "stream")
    return category, rest


def check_category(name: str) -> str:
    """A category in snake case: it begins every stream of an aggregate."""
    if not isinstance(name, str) or not _CATEGORY.match(name):
        raise InvalidName(f"{name!r} cannot name a category", hint="a-z, 0-9 and '_', beginning with a letter: 'carrier_day'")
    return name


def check_plain(text: str, what: str) -> str:
    """Text that can stand in a name: not empty, no control characters, valid Unicode, at most 512 bytes."""
    try:
        size = len(text.encode())
    except (UnicodeEncodeError, AttributeError):
        raise InvalidName(f"{text!r} cannot name a {what}: it is not valid text") from None
    if not text or size > MAX_NAME_BYTES or _CONTROL.search(text):
        raise InvalidName(
            f"{text[:60]!r} cannot name a {what}: {size} bytes",
            hint=f"1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters",
        )
    return text


def check_type_name(name: str) -> str:
    """The stored name of a type: letters, digits, dots and underscores, beginning with a letter."""
    if not isinstance(name, str) or not _TYPE.match(name):
        shown = repr(name)[:60] if isinstance(name, str) else f"a {type(name).__name__}"
        raise InvalidName(f"{shown} cannot name a type", hint="letters, digits, '_' and '.', beginning with a letter")
    return check_plain(name, "type")


def check_distinct(names: Iterable[str], where: str) -> None:
    """Two names equal but for case would be one name in SQL."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name and other != name:
            raise InvalidName(f"{where} has both {other!r} and {name!r}, which SQL cannot tell apart", hint="rename one")


def past_tense(name: str) -> bool:
    """Whether some word of an event's name is a past participle: `ItemAdded`, `FlightDeparted`, `InvoiceSentAgain`."""
    words = [w.lower() for w in _WORDS.findall(name)]
    return any(w in _IRREGULAR_PAST or (w.endswith("ed") and len(w) > 3 and not w.endswith("eed")) for w in words)


def event_findings(name: str, doc: str) -> list[Finding]:
    """What a reviewer would say of an event's name and description."""
    found = []
    if not past_tense(name):
        found.append(Finding("N1", name, f"{name} does not read as a fact in the past", "for example OrderPlaced, ItemAdded"))
    if not doc:
        found.append(Finding("N3", name, f"{name} has no description", "say what happened in the business in a docstring"))
    return found


def command_findings(name: str, doc: str) -> list[Finding]:
    """What a reviewer would say of a command's name and description."""
    found = []
    words = _WORDS.findall(name)
    # Bring, Ping: the verb itself ends so; what is left of a gerund without its ending has a vowel.
    gerund = bool(words) and re.fullmatch(r".*[aeiouy].*ing", words[0].lower()) is not None
    if past_tense(name) or gerund:
        found.append(Finding("N2", name, f"{name} does not read as an order", "for example PlaceOrder, AddItem"))
    if not doc:
        found.append(Finding("N3", name, f"{name} has no description", "say what the business is asked to do in a docstring"))
    return found


def query_findings(name: str, doc: str) -> list[Finding]:
    """What a reviewer would say of a query's description."""
    return [] if doc else [Finding("N3", name, f"{name} has no description", "say what it answers in a docstring")]

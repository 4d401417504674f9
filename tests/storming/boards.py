"""Boards for the tests: one that is written by hand, and any that there may be."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import strategies as st

from eventlab.storming.board import LEADS, Board, Example, Fact, Note
from eventlab.storming.process import Move, Process

#: A shelf of books that are lent: a command with a rule, one that works as it stands, a policy across aggregates.
LENDING = Board(
    "lending",
    (
        Note("actor", "Member", to=("LendBook", "ReturnBook")),
        Note("command", "LendBook", ("reader: str", "days: int"), ("Book", "BookLent")),
        Note("aggregate", "Book", ("reader: str | None", "due: date", "fines: Money", "state: Literal['in', 'out']"),
             ("BookLent", "BookReturned"), "One copy of a book."),
        Note("event", "BookLent", ("reader: Tag[str]", "due: date = today and so many days"), ("Loans", "RemindInTime"),
             "A member took a book home."),
        Note("policy", "RemindInTime", to=("RemindReader",), within=86_400.0),
        Note("command", "ReturnBook", ("reader: str",), ("Book", "BookReturned")),
        Note("event", "BookReturned", ("reader: str",), ("Loans",), "It stands on the shelf again."),
        Note("command", "RemindReader", ("reader: str", "fee: Money"), ("Reader", "ReaderReminded")),
        Note("aggregate", "Reader"),
        Note("event", "ReaderReminded", ("reader: str", "fee: Money"), ("Loans",)),
        Note("read_model", "Loans", ("reader: str", "due: date", "open: int = lent and not returned"), ("Member",)),
    ),
    (
        Example("a book that is out cannot be lent", Fact("LendBook", {"reader": "Bea"}), [Fact("BookLent", {"reader": "Ann"})],
                rejected="it is lent (to Ann)"),
        Example("a book comes back", Fact("ReturnBook", {"reader": "Ann"}), [Fact("BookLent", {"reader": "Ann"})],
                [Fact("BookReturned", {"reader": "Ann"})]),
        Example("nobody returns what is in", Fact("ReturnBook", {"reader": "Ann"}), rejected="nobody has it"),
        Example("a reminder costs", Fact("RemindReader", {"fee": "2.50"}), then=[Fact("ReaderReminded", {"fee": "2.50"})]),
    ),
    (
        Process("book", (Move("", "BookLent"), Move("BookLent", "BookReturned", 0.9, 86_400.0), Move("BookLent", "", 0.1),
                         Move("BookReturned", "BookLent", 0.5), Move("BookReturned", "", 0.5))),
        Process("reader", (Move("", "ReaderReminded"), Move("ReaderReminded", ""))),
    ),
)  # fmt: skip

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
_PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=" "), min_size=1, max_size=20).filter(
    lambda text: bool(text.split())
)
_WORD = st.text(st.characters(categories=("Lu", "Ll")), min_size=1, max_size=8).filter(lambda text: text.isidentifier())
_TYPES = ("str", "int", "Money", "date | None", "list[str]", "dict[str, int]", "Tag[str]", "Literal['a', 'b']", "nonsense")
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        _TEXT, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.dates(),
        st.datetimes(timezones=st.just(dt.UTC)), st.times(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=5,
)  # fmt: skip


@st.composite
def boards(draw: st.DrawFn) -> Board:
    """Any board: notes of every kind, links that make sense, examples with any values, flows."""
    kinds = draw(st.lists(st.sampled_from(sorted(LEADS)), max_size=12))
    fields = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(_TYPES), st.sampled_from(["", "made = up"])),
                      max_size=4, unique_by=lambda of: of[0])  # fmt: skip
    board = Board(draw(_PLAIN))
    for kind in kinds:
        written = [f"{name}: {of}" + (f" = {origin}" if origin else "") for name, of, origin in draw(fields)]
        within = draw(st.none() | st.floats(1, 1e6)) if kind == "policy" else None
        more = {"text": draw(_TEXT), "context": draw(st.just("") | _PLAIN), "lane": draw(st.just("") | _PLAIN)}
        board = board.add(kind, draw(_WORD), fields=written, within=within, **more)
    ids = [note.id for note in board.notes]
    for a, b in draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=15)) if ids else ():
        if a != b and board.note(b).kind in LEADS[board.note(a).kind]:
            board = board.link(a, b)
    commands = [note.id for note in board.find("command")]
    events = [note.id for note in board.find("event")]
    for name in draw(st.lists(_PLAIN, max_size=3, unique=True)) if commands else ():
        values = st.dictionaries(st.sampled_from("abcde"), _VALUES, max_size=3)
        facts = st.lists(st.builds(Fact, st.sampled_from(events), values), max_size=3) if events else st.just([])
        then = draw(facts)
        when = Fact(draw(st.sampled_from(commands)), draw(values))
        board = board.with_example(Example(name, when, draw(facts), then, "" if then else draw(_TEXT)))
    if events and draw(st.booleans()):
        board = board.with_flow(Process("thing", (Move("", "Begun", draw(st.floats(0.1, 9))), Move("Begun", ""))))
    return board

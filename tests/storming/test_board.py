"""The board as a value: edits and their laws, files that hold everything, and errors that a stranger understands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storming.boards import LENDING, boards

import eventlab as el
from eventlab.errors import EventlabError, InvalidValue, UnknownType
from eventlab.storming import Board, Example, Fact, Layout, Note, markdown, mermaid, review


@given(boards())
@settings(max_examples=150, deadline=None)
def test_a_file_holds_all_of_a_board(board: Board) -> None:
    again = Board.read(board.text())
    assert again == board
    assert again.text() == board.text()
    assert again.changes(board) == []


@given(boards(), st.data())
@settings(max_examples=150, deadline=None)
def test_edits_change_what_they_say_and_nothing_else(board: Board, data: st.DataObject) -> None:
    if not board.notes:
        return
    notes = st.sampled_from(board.notes)
    note, other = data.draw(notes), data.draw(notes)
    kept = {of.id for of in board.notes}
    renamed = board.change(note.id, name="OtherName")
    assert renamed.note(note.id).name == "OtherName"
    assert [of.id for of in renamed.notes] == [of.id for of in board.notes], "a name is no id"
    assert [c.field for c in renamed.changes(board)] == (["name"] if note.name != "OtherName" else [])

    gone = board.remove(note.id)
    assert {of.id for of in gone.notes} == kept - {note.id}
    assert all(note.id not in of.to for of in gone.notes)
    assert all(fact.note != note.id for example in gone.examples for fact in example.facts)
    assert Board.read(gone.text()) == gone

    moved = board.place(note.id, other.id)
    assert {of.id for of in moved.notes} == kept
    order = [of.id for of in moved.notes]
    assert note is other or order.index(note.id) == order.index(other.id) - 1
    assert all(c.what == "moved" for c in moved.changes(board)), "to move a note along the timeline is nothing else"
    assert len(moved.changes(board)) <= 1, "and one note moved"

    more = board.add("event", note.name, before=other.id)
    (new,) = {of.id for of in more.notes} - kept
    assert [c.note for c in more.changes(board)] == [new]
    assert more.remove(new) == board

    for target in note.to:
        assert board.unlink(note.id, target).link(note.id, target).note(note.id).to[-1] == target


def test_a_note_is_named_as_its_kind_wants_it_and_keeps_its_id() -> None:
    board = Board("shop").add("event", "  order   placed ").add("actor", "the clerk").add("event", "OrderPlaced")
    assert [(note.id, note.name) for note in board.notes] == [
        ("order-placed", "OrderPlaced"), ("the-clerk", "the clerk"), ("order-placed-2", "OrderPlaced"),
    ]  # fmt: skip
    assert board.note("order-placed-2").kind == "event"
    with pytest.raises(UnknownType, match="2 notes are called 'OrderPlaced'"):
        board.note("OrderPlaced")
    with pytest.raises(UnknownType, match="there is no note 'Nothing'"):
        board.change("Nothing", text="x")


def test_who_leads_to_whom() -> None:
    assert [note.name for note in LENDING.after("LendBook", "event")] == ["BookLent"]
    assert [note.name for note in LENDING.before("BookLent")] == ["LendBook", "Book"]
    owners = {note.name: owner.name for note in LENDING.find("event") if (owner := LENDING.aggregate_of(note.id))}
    assert owners == {"BookLent": "Book", "BookReturned": "Book", "ReaderReminded": "Reader"}
    loose = Board("x").add("command", "DoIt").add("aggregate", "Thing").add("event", "Done")
    loose = loose.link("do-it", "thing").link("thing", "done")
    assert [note.name for note in loose.events_of("do-it")] == ["Done"], "of its aggregate, where it names none"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Board("x").add("smell", "Bad"), "there is no kind of note 'smell'"),
        (lambda: Board("x").add("event", "???"), "cannot name a note of kind event"),
        (lambda: Board("x").add("event", "Done", fields=["1a: str"]), "'1a' cannot name a field"),
        (lambda: Board("x").add("event", "Done", fields=["a: str", "a: int"]), "has a field twice"),
        (lambda: Board("x").add("event", "Done", fields="a: str"), "fields='a: str' is text"),
        (lambda: Board("x").add("event", "Done", within=3), "within=3"),
        (lambda: LENDING.link("BookLent", "LendBook"), r"BookLent \(event\) cannot lead to LendBook \(command\)"),
        (lambda: LENDING.link("BookLent", "BookLent"), "cannot lead to"),
        (lambda: LENDING.change("BookLent", id="other"), "a note has no id"),
        (lambda: Board("x", (Note("event", "A", id="a"), Note("event", "B", id="a"))), "two notes have the id 'a'"),
        (lambda: Board("x", (Note("event", "A", to=("B",)),)), "there is no note 'B'"),
        (lambda: LENDING.with_example(Example("e", Fact("BookLent"))), "command is what belongs there"),
        (lambda: LENDING.with_example(Example("e", Fact("LendBook", {"days": None}))), "is no value of an example"),
        (lambda: Example("e", Fact("LendBook"), then=[Fact("BookLent")], rejected="no"), "what is rejected gives no events"),
        (lambda: Board.read("board = "), "this is no TOML"),
        (lambda: Board.read("name = 'x'"), "a board has no name"),
        (lambda: Board.read("[[note]]\nevent = 'A'"), "it has no 'board'"),
        (lambda: Board.read("board = 'x'\n[[note]]\nevent = 'A'\nactor = 'B'"), "a note says one kind"),
        (lambda: Board.read("board = 'x'\n[[note]]\nevent = 'A'\nsmell = 'B'"), "smell"),
        (lambda: Board.read("board = 'x'\nnote = 3"), "this is no board"),
        (lambda: Board.read("board = 'x'\n[[example]]\nname = 'e'"), "it has no 'when'"),
        (lambda: Board.load("nowhere.toml"), "nowhere.toml cannot be read"),
        (lambda: Layout.read("[places]\na = 3"), "this is no layout"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_words(wrong: object, said: str) -> None:
    with pytest.raises(EventlabError, match=said):
        wrong()  # type: ignore[operator]


def test_to_move_a_note_on_the_screen_is_no_change_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "lending.toml"
    LENDING.save(path)
    before = path.read_bytes()
    layout = Layout().at("book-lent", 10.4, 20).at("book", 3, 4)
    Layout.beside(path).write_text(layout.text(), encoding="utf-8")
    assert Layout.read(Layout.beside(path).read_text(encoding="utf-8")) == layout
    assert layout.text() == "[places]\nbook = [3, 4]\nbook-lent = [10, 20]\n"
    assert path.read_bytes() == before
    assert Board.load(path) == LENDING
    assert sorted(of.name for of in tmp_path.iterdir()) == ["lending.layout.toml", "lending.toml"]


def test_a_change_of_one_note_is_a_few_lines_of_a_diff() -> None:
    changed = LENDING.change("BookLent", name="BookTaken", fields=[*LENDING.note("BookLent").fields, "copy: int"])
    old, new = LENDING.text().splitlines(), changed.text().splitlines()
    assert [line for line in old if line not in new] == ['event = "BookLent"']
    assert [line for line in new if line not in old] == ['event = "BookTaken"', '    "copy: int",']

    def said(board: Board) -> str:
        return ", ".join(map(str, board.note("book-lent").fields))

    assert [str(one) for one in changed.changes(LENDING)] == [
        "book-lent changed: name 'BookLent' → 'BookTaken'",
        f"book-lent changed: fields {said(LENDING)!r} → {said(changed)!r}",
    ]


def test_a_review_says_what_leads_nowhere_and_what_comes_from_nowhere() -> None:
    assert review(LENDING) == []
    board = (
        Board("sketch")
        .add("command", "PlacedOrder")
        .add("command", "Ship", fields=["to: str"], context="post")
        .add("aggregate", "Order", context="shop")
        .add("event", "Shipment", fields=["to: str", "weight: float", "at: instant"])
        .add("event", "OrderPlaced")
        .add("policy", "Tell")
        .add("read_model", "Shelf", fields=["weight: float", "colour: str", "age: int = counted"])
        .add("read_model", "Empty")
        .add("event", "Empty")
        .add("hotspot", "Who pays?")
        .add("question", "In which currency?")
        .link("ship", "order").link("ship", "shipment").link("shipment", "shelf").link("order-placed", "shelf")
    )  # fmt: skip
    board = board.with_example(Example("e", Fact("ship", {"colour": 3})))
    found = [(one.code, one.message) for one in review(board)]
    assert found == [
        ("B1", "PlacedOrder leads to no event"), ("B2", "nobody reads Empty"), ("B3", "OrderPlaced comes from nowhere"),
        ("B3", "Empty comes from nowhere"), ("B4", "nothing sets off Tell"), ("B5", "Tell gives no command"),
        ("B6", "PlacedOrder does not read as an order"), ("B6", "Shipment does not read as a fact in the past"),
        ("B6", "Empty does not read as a fact in the past"), ("B7", "no event brings Shelf.colour"),
        ("B8", "Ship does not bring Shipment.weight"), ("B8", "Ship does not bring Shipment.at"),
        ("B9", "Order is shared by the contexts post, shop"), ("B10", "nobody gives PlacedOrder"),
        ("B10", "nobody gives Ship"), ("B11", "hotspot: Who pays?"), ("B12", "question: In which currency?"),
        ("B13", "Shipment.at: 'instant' is no type of a field"), ("B14", "e: Ship has no field colour"),
        ("B15", "2 notes are called Empty: empty (read_model), empty-2 (event)"), ("B16", "no event feeds Empty"),
        ("B17", "no aggregate decides PlacedOrder"),
    ]  # fmt: skip
    assert all(one.hint for one in review(board))


@given(boards())
@settings(max_examples=50, deadline=None)
def test_a_drawing_has_every_note_and_text_stays_text(board: Board) -> None:
    drawn = mermaid(board)
    lines = drawn.splitlines()
    assert lines[0] == "flowchart LR"
    assert sum(":::" in line for line in lines) == len(board.notes)
    assert sum(" --> " in line or " -.-> " in line for line in lines) == sum(len(note.to) for note in board.notes)
    assert "<script" not in mermaid(board.add("actor", "<script>alert(1)</script>"))
    assert markdown(board).count("```mermaid") == 1
    few = mermaid(board, notes=1)
    assert ("more notes, not drawn" in few) == (len(board.notes) > 1)


def test_code_draws_its_board() -> None:
    from eventlab.domains import ordering

    with el.scratch() as lab:
        board = lab.board("ordering", ordering.Order, ordering.ProductDemand)
    assert [note.name for note in board.find("command")] == [
        "AddProduct", "DispatchOrder", "DropProduct", "PayOrder", "SubmitOrder", "WithdrawOrder",
    ]  # fmt: skip
    assert {note.name: [of.name for of in board.after(note.id, "event")] for note in board.find("command")} == {
        "AddProduct": ["ProductAdded"], "DropProduct": ["ProductDropped"], "SubmitOrder": ["OrderSubmitted"],
        "PayOrder": ["OrderPaid"], "DispatchOrder": ["OrderDispatched"], "WithdrawOrder": ["OrderWithdrawn"],
    }  # fmt: skip
    added = board.note("ProductAdded")
    assert [str(of) for of in added.fields] == ["sku: str", "quantity: int", "unit_price: Money", "currency: str"]
    assert [str(of) for of in board.note("OrderSubmitted").fields] == ["customer: Tag[str]"]
    assert added.text == "The customer put a product in the order."
    assert [of.name for of in board.before("ProductDemand")] == ["ProductAdded", "ProductDropped"]
    assert {of.code for of in review(board)} <= {"B2", "B7", "B10"}, "it is code that works"
    assert Board.read(board.text()) == board


def test_methods_of_the_aggregate_that_make_events_are_looked_into() -> None:
    from eventlab.domains import banking

    with el.scratch() as lab:
        board = lab.board("bank", banking.Account)
    assert [of.name for of in board.after("Withdraw", "event")] == ["MoneyWithdrawn"]
    assert [of.name for of in board.after("CloseAccount", "event")] == ["AccountClosed"]


def test_a_board_that_is_too_much_is_refused() -> None:
    with pytest.raises(InvalidValue, match="20,001 characters"):
        Board("x").add("event", "Done", text="x" * 20_001)

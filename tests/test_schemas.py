"""Schemas held against each other: what changed, what breaks, what a dry run of the upcasters finds; and real ones."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.cli import main
from eventlab.errors import InvalidValue, UnknownType, UpcastFailed
from eventlab.model.changes import changes, json_schema, released, stored_schema
from eventlab.model.events import event_type
from eventlab.model.schema import Schema
from eventlab.schemas import SchemaWarning, check_schemas, differences

NAME = "schemas.RoomBooked"


def room(version: int) -> type[Any]:
    """The class as it was at a version, in the place of the one before."""
    if version == 1:

        @el.event(name=NAME)
        class RoomBooked:
            """A room was booked."""

            guest: str
            nights: int
            price: el.Money

        return RoomBooked
    if version == 2:

        @el.event(name=NAME, version=2)
        class RoomBooked:  # type: ignore[no-redef]
            """A room was booked."""

            guest: str
            nights: int
            rate: el.Money = el.money(0)
            floor: int | None = None

        return RoomBooked

    @el.event(name=NAME, version=3)
    class RoomBooked:  # type: ignore[no-redef]
        """A room was booked."""

        guest: str | None
        nights: int
        rate: el.Money
        floor: int | None = None

    return RoomBooked


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False)
    of = room(1)
    lab.append("room-1", [of(f"guest {i}" if i else "", i, el.money(i)) for i in range(6)])
    yield lab
    lab.close()


# -- classes and stored versions


def test_a_rename_that_looks_like_an_added_field_is_asked_about(lab: el.Lab) -> None:
    room(2)
    (finding,) = lab.check_schemas()
    assert (finding.kind, finding.version) == ("question", 1)
    assert "was price renamed to rate? price is gone, and rate of the same form came with a default" in finding.said
    assert finding.hint == "if so, @el.upcast(RoomBooked, from_version=1) gives rate=old.price; if not, leave it"
    el.upcast(room(2), from_version=1)(lambda old: {"guest": old.guest, "nights": old.nights, "rate": old.price})
    assert lab.check_schemas() == []


def test_what_cannot_be_read_is_an_error_with_what_to_write(lab: el.Lab) -> None:
    room(3)
    (finding,) = lab.check_schemas()
    assert finding.kind == "error"
    assert "rate is not in version 1" in finding.said
    assert "@el.upcast(RoomBooked, from_version=1)" in finding.hint


def test_a_gap_in_the_chain_is_an_error_where_an_event_shows_it(lab: el.Lab) -> None:
    lab.append("room-2", [room(2)("ann", 1)])
    el.upcast(room(3), from_version=2)(lambda old: {**old, "rate": old.rate})
    (finding,) = lab.check_schemas()
    assert (finding.kind, finding.version) == ("error", 1)
    assert "the event at position 1 fails in the step from version 2: AttributeError" in finding.said
    assert finding.hint == "there is no step from version 1: @el.upcast(RoomBooked, from_version=1)"
    # Their schemas alone show no more than that it may fail.
    (warned,) = check_schemas(lab.store.cut().schemas.values(), [event_type(room(3))])
    assert warned.kind == "warning"
    assert "has no floor, rate, which the step from version 2 may look for" in warned.said


def crate(version: int, *steps: int, weak: bool = False) -> type[Any]:
    """A crate's class of a version, whose fields were weight, weight and insured, kilos, grams; with these steps to it."""
    fields: dict[int, dict[str, Any]] = {
        1: {"weight": int}, 2: {"weight": int, "insured": bool}, 3: {"kilos": int, "insured": bool}, 4: {"grams": int},
    }  # fmt: skip
    if weak:
        fields[3] = {**fields[2], "note": str | None}
    space = {"__annotations__": fields[version], "__doc__": "A crate left.", "__module__": __name__, "__qualname__": "CrateSent"}
    space |= {"insured": False} if version in (2, 3) else {}
    space |= {"note": None} if weak and version == 3 else {}
    made = el.event(name="schemas.CrateSent", version=version)(type("CrateSent", (), space))
    event_type(made).upcasters.clear()
    functions: dict[int, Any] = {
        1: lambda old: {**old, "insured": False},
        2: lambda old: {"kilos": old.weight // 1000, "insured": old["insured"]},
        3: lambda old: {"grams": old.kilos * 1000},
    }
    for step in steps:
        el.upcast(made, from_version=step)(functions[step])
    return made


@pytest.mark.parametrize(
    ("version", "steps", "stored", "missing"),
    [
        (4, (1, 3), (1, 2), {1: 2, 2: 2}),
        (3, (2,), (1,), {1: 1}),
        (3, (1,), (1,), {1: 2}),
        (4, (1, 2, 3), (1, 2, 3), {}),
        (4, (1, 2), (1, 2), {1: 3, 2: 3}),
    ],
)
def test_the_step_that_is_missing_is_named(
    version: int, steps: tuple[int, ...], stored: tuple[int, ...], missing: dict[int, int]
) -> None:
    with el.scratch() as lab:
        for old in stored:
            lab.append("crate-1", [crate(old)(2000)])
        crate(version, *steps)
        found = [finding for finding in lab.check_schemas() if finding.kind != "note"]
        wanted = {
            old: f"there is no step from version {step}: @el.upcast(CrateSent, from_version={step})"
            for old, step in missing.items()
        }
        assert {finding.version: finding.hint for finding in found} == wanted
        assert all(finding.kind == "error" for finding in found)
        assert lab.dry_run()["failed"].sum() == len(missing)
        if missing:
            with pytest.raises(UpcastFailed, match="stored as version 1, failed") as caught:
                lab.read().list()
            assert caught.value.hint.startswith(wanted[1])


def test_a_version_that_only_gained_fields_needs_no_step() -> None:
    with el.scratch() as lab:
        lab.append("crate-1", [crate(1)(5)])
        lab.append("crate-1", [crate(2)(6, True)])
        crate(3, 1, weak=True)
        assert [str(finding) for finding in lab.check_schemas()] == []
        assert [(event.data.weight, event.data.note) for event in lab.read()] == [(5, None), (6, None)]


def test_a_value_that_a_step_does_not_take_is_not_blamed_on_a_gap() -> None:
    with el.scratch() as lab:
        lab.append("crate-1", [crate(1)(0)])
        of = crate(3, weak=True)

        @el.upcast(of, from_version=1)
        def heavy(old: Any) -> Any:
            return {"weight": 10 // old.weight, "insured": False}

        (finding,) = lab.check_schemas()
        assert "ZeroDivisionError" in finding.said
        assert "mend the step from version 1" in finding.hint


def test_older_code_another_shape_and_types_without_a_class_are_said(lab: el.Lab) -> None:
    lab.append("room-2", [room(2)("ann", 1)])
    kinds = [event_type(room(1))]
    stored = lab.store.cut().schemas.values()
    assert [(f.kind, f.version) for f in check_schemas(stored, kinds)] == [("error", 2)]
    assert [(f.kind, f.said) for f in check_schemas(stored, [])] == [("note", "no class here has that name")]

    @el.event(name=NAME, version=2)
    class Other:
        """Something else."""

        guest: int

    found = check_schemas(stored, [event_type(Other)])
    assert [f.kind for f in found] == ["error", "error"]
    assert "differs from Other" in found[1].said
    both = check_schemas(stored, [event_type(room(2)), event_type(Other)])
    assert [(f.kind, f.said) for f in both] == [("error", "2 classes are stored under that name")]


def test_a_dry_run_counts_what_fails_and_what_is_newly_null(lab: el.Lab) -> None:
    of = room(3)

    @el.upcast(of, from_version=1)
    def step(old: Any) -> Any:
        if old.nights == 4:
            raise ValueError("four nights are too many")
        return {"guest": old.guest or None if old.nights != 2 else None, "nights": old.nights, "rate": old.price}

    lab.append("room-2", [of("ann", 1, el.money(1))])
    found = lab.dry_run()
    assert found.filter(pl.col("rows").is_not_null()).select("version", "rows", "failed", "new_nulls").rows() == [
        (1, 6, 1, 2),
        (3, 1, 0, 0),
    ]
    example, null = found.filter(pl.col("example").is_not_null()).rows(named=True)
    assert example["position"] == 5
    assert "four nights are too many" in example["example"]
    assert (null["position"], null["example"]) == (1, "guest is newly None in 2 events: here it was ''")
    assert found["lost"].sum() == 0
    assert lab.dry_run(of).equals(found)
    assert lab.head == 7


def letter(version: int) -> type[Any]:
    if version == 1:

        @el.event(name="schemas.LetterSent")
        class LetterSent:
            """A letter left."""

            to: str
            weight: int | None

        return LetterSent

    @el.event(name="schemas.LetterSent", version=2)
    class LetterSent:  # type: ignore[no-redef]
        """A letter left."""

        town: str | None = None
        grams: int = 0

    return LetterSent


@pytest.mark.parametrize("sealed", [False, True])
def test_a_dry_run_tells_what_is_lost(tmp_path: Path, sealed: bool) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        of = letter(1)
        lab.append("letter-1", [of("Bern", 5), of("Rome", None), of("Bonn", 0)])
        if sealed:
            lab.seal()
        of = letter(2)
        found = lab.dry_run()
        assert found.select("version", "rows", "failed", "new_nulls", "lost").row(0) == (1, 3, 0, 0, 5)
        assert found["example"].to_list() == [
            None,
            "to is lost in 3 events: here it was 'Bern', and LetterSent has no such field today",
            "weight is lost in 2 events: here it was 5, and LetterSent has no such field today",
        ]

        # What a step looks at may be anything afterwards; what it does not look at is gone.
        @el.upcast(of, from_version=1)
        def forgetful(old: Any) -> Any:
            return {"town": old.to.upper()}

        found = lab.dry_run()
        assert found["lost"].to_list() == [2, None]
        assert found["example"][1] == "weight is lost in 2 events: here it was 5, and the step from version 1 does not look at it"
        of = letter(2)

        @el.upcast(of, from_version=1)
        def careful(old: Any) -> Any:
            return {"town": old["to"], "grams": old.weight or 0}

        assert lab.dry_run()["lost"].to_list() == [0]


def test_what_a_step_passes_on_and_the_next_forgets_is_lost() -> None:
    with el.scratch() as lab:
        of = crate(2)
        lab.append("crate-1", [of(2000, True), of(3000)])
        crate(4, 2, 3)
        found = lab.dry_run()
        assert found["lost"].drop_nulls().to_list() == [2]
        assert "insured is lost in 2 events: here it was True, and the step from version 3 does not" in found["example"][1]


def test_opening_a_lab_says_what_the_classes_here_cannot_read(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.append("room-1", [room(1)("ann", 1, el.money(1))])
        room(3)
        # A class was defined since: it is said on first use, once, and the append is one of today's.
        with pytest.warns(SchemaWarning, match="rate is not in version 1") as warned:
            lab.append("room-1", [room(3)("bob", 1, el.money(1))])
        assert warned[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lab.append("room-1", [room(3)("bob", 1, el.money(1))])
    with pytest.warns(SchemaWarning) as warned, el.open(tmp_path / "log", maintain=False) as lab:
        assert lab.sql("select count(*) from types.schemas_room_booked_v1").item() == 1
    (one,) = warned
    said = str(one.message)
    assert said.startswith("schemas.RoomBooked version 1 does not fit the code here: schemas.RoomBooked.rate is not in version 1")
    assert "@el.upcast(RoomBooked, from_version=1)" in said
    assert warned[0].filename == __file__
    el.upcast(room(3), from_version=1)(lambda old: {"guest": old.guest, "nights": old.nights, "rate": old.price})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        el.open(tmp_path / "log", maintain=False).close()


def test_the_store_remembers_which_fields_may_be_left_out(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.append("crate-1", [crate(1)(5)])
        lab.append("crate-1", [crate(2)(6)])
        schemas = lab.store.cut().schemas
    assert [schemas["schemas.CrateSent", v].defaults for v in (1, 2)] == [(), ("insured",)]
    (change,) = differences("schemas.CrateSent", schemas, 1, 2)
    assert str(change) == "insured: is new, and may be left out"
    # A store that was written before that was kept, without its class, with a later one, and with its own.
    old = {key: replace(schema, defaults=None) for key, schema in schemas.items()}
    assert all(Schema.from_json(schema.to_json()) == schema for schema in (*schemas.values(), *old.values()))
    of = old["schemas.CrateSent", 1]
    assert Schema.from_json(json.dumps({k: v for k, v in json.loads(of.to_json()).items() if k != "defaults"})) == of
    assert of.fingerprint == schemas["schemas.CrateSent", 1].fingerprint
    for made in (crate(2), crate(3, 2)):
        assert [change.breaks for change in differences("schemas.CrateSent", old, 1, 2)] == [False], made
    crate(4)
    assert [change.breaks for change in differences("schemas.CrateSent", old, 1, 2)] == [True]


def test_nothing_is_wrong_with_nothing() -> None:
    with el.scratch() as lab:
        assert lab.check_schemas() == []
        assert lab.dry_run().is_empty()


def test_the_command_line_says_so_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.append("room-1", [room(1)("ann", 1, el.money(1))])
        lab.append("room-1", [room(2)("ann", 1, el.money(1))])
    store = ["--store", str(tmp_path / "log")]
    room(3)
    assert main(["schema", "diff", NAME, "--old", "1", "--new", "2", *store]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "price: is gone (breaks)", "rate: is new, and may be left out", "floor: is new, and may be left out",
    ]  # fmt: skip
    assert main(["schema", "diff", NAME, *store, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(change["path"], change["what"]) for change in said] == [("guest", "type"), ("rate", "required")]
    assert main(["schema", "diff", "schemas.RoomBoked", *store]) == 3
    assert main(["schema", "diff", NAME, "--old", "7", *store]) == 3


# -- JSON Schema


@el.event(name="schemas.EveryShape")
class EveryShape:
    """Of every form."""

    text: str
    whole: int
    price: el.Money
    kind: Literal["a", "b"]
    many: tuple[int, ...] = ()
    named: dict[str, float] | None = None


def test_a_class_gives_a_json_schema() -> None:
    found = json_schema(event_type(EveryShape))
    assert found["required"] == ["text", "whole", "price", "kind"]
    assert found["properties"]["kind"] == {"type": "string", "enum": ["a", "b"]}
    assert found["properties"]["many"]["type"] == "array"
    assert found["properties"]["named"]["type"] == ["object", "null"]
    assert found["description"] == "Of every form."
    stored = stored_schema(event_type(EveryShape).schema)
    assert set(stored["properties"]) == {"text", "whole", "price", "kind", "many", "named"}


@given(st.integers(-(10**16), 10**16), st.integers(0, 2))
def test_the_pattern_of_a_decimal_takes_its_values(n: int, places: int) -> None:
    import re

    pattern = json_schema(event_type(EveryShape))["properties"]["price"]["pattern"]
    assert re.search(pattern, str(Decimal(n).scaleb(-places))) is not None or places > 2
    assert re.search(pattern, "1.234") is None


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": ["string", "null"]}, {"type": "string", "enum": ["a"]}]),
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.just("object"),
            "properties": st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
            "required": st.lists(st.sampled_from("xyz"), unique=True, max_size=3),
            "additionalProperties": st.booleans(),
        }
    ),
    max_leaves=5,
)
DATA = st.recursive(
    st.sampled_from(["a", "b", 1, None]), lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=5
)


def valid(data: Any, of: dict[str, Any]) -> bool:
    """What JSON Schema says, of the few words that are used here."""
    kinds = of["type"] if isinstance(of["type"], list) else [of["type"]]
    names = {str: "string", int: "integer", type(None): "null", dict: "object"}
    if names[type(data)] not in kinds or ("enum" in of and data not in of["enum"]):
        return False
    if not isinstance(data, dict):
        return True
    inside = of["properties"]
    if not of["additionalProperties"] and set(data) - set(inside):
        return False
    return set(of["required"]) <= set(data) and all(valid(v, inside[k]) for k, v in data.items() if k in inside)


@given(SCHEMAS, SCHEMAS, DATA)
@settings(max_examples=400, deadline=None)
def test_where_nothing_breaks_no_data_that_was_right_is_wrong(old: Any, new: Any, data: Any) -> None:
    found = changes(old, new)
    assert changes(old, old) == []
    # A field that was taken in any form before may be given in another than the new one has.
    if not any(change.breaks or change.what == "added" for change in found) and valid(data, old):
        assert valid(data, new)


def test_changes_are_told_with_their_paths() -> None:
    nested = {"type": "object", "properties": {}}
    old = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x", "y"]}, "b": nested}}
    new = {
        "type": "object",
        "required": ["c"],
        "properties": {
            "a": {"type": "string", "enum": ["y", "z"]},
            "b": {"type": "object", "properties": {}, "additionalProperties": False},
            "c": {"type": "array", "items": {"type": "object", "required": ["d"], "properties": {"d": {"type": "integer"}}}},
        },
    }
    assert [(change.path, change.what, change.breaks) for change in changes(old, new)] == [
        ("a", "values", True),
        ("c", "required", True),
        ("c[].d", "required", True),
    ]
    assert changes(old, new, ignore=["a", "c", "c[].d"]) == []


# -- released versions


def test_released_versions_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Thing").mkdir()
    plain = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    for version, more in (("1.0.0", {}), ("1.1.0", {"b": {"type": "string"}}), ("1.10.0", {}), ("2.0.0", {"c": {}})):
        document = {**plain, "properties": {**plain["properties"], **more}}  # type: ignore[dict-item]
        (tmp_path / "Thing" / f"{version}.json").write_text(json.dumps(document))
    steps = released(tmp_path)
    assert [(step.before, step.after, step.declared, step.untrue) for step in steps] == [
        ("1.0.0", "1.1.0", "minor", False),
        ("1.1.0", "1.10.0", "minor", True),
        ("1.10.0", "2.0.0", "major", False),
    ]
    assert main(["schema", "compat", str(tmp_path)]) == 1
    assert "Thing 1.1.0 → 1.10.0 is declared minor: b: is gone (breaks)" in capsys.readouterr().out
    (tmp_path / "Thing" / "3.0.0.json").write_text("[")
    with pytest.raises(InvalidValue, match=r"3\.0\.0\.json cannot be read as JSON"):
        released(tmp_path)
    with pytest.raises(InvalidValue, match="holds no versions"):
        released(tmp_path / "nothing")


def test_the_eiffel_schemas(real_data: Path) -> None:
    steps = released(real_data / "schemas" / "eiffel" / "schemas", ignore=["meta.version"])
    assert (len({step.name for step in steps}), len(steps)) == (24, 198)
    demanding = [step for step in steps if step.demands and step.untrue]
    assert Counter(step.declared for step in demanding) == {"minor": 4, "patch": 1}
    (patch,) = (step for step in demanding if step.declared == "patch")
    assert (patch.name, patch.before, patch.after) == ("EiffelTestCaseFinishedEvent", "1.0.0", "1.0.1")
    assert {change.path for change in patch.demands} == {"data.outcome.metrics[].name", "data.outcome.metrics[].value"}
    # What else is untrue of a patch: a text that was free has to match a pattern.
    others = [step for step in steps if step.untrue and step not in demanding]
    assert {change.what for step in others for change in step.breaking} == {"pattern"}
    assert len(others) == 25


def test_differences_need_something_to_compare(lab: el.Lab) -> None:
    assert differences(NAME, lab.store.cut().schemas, 1, 1) == []
    with pytest.raises(UnknownType, match="version 9 of"):
        differences(NAME, lab.store.cut().schemas, 1, 9)
    with pytest.raises(UnknownType, match="no event type is called"):
        differences("schemas.Nothing", lab.store.cut().schemas, None, None)

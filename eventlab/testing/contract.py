"""The contract of a store: what every log does, told as tests that any adapter runs on itself.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            store = MyStore(tmp_path)
            yield store
            store.close()

`store` is empty and can be written. The tests know a store by its verbs alone (`eventlab.store.base.Store`), so what they
hold is what the rest of eventlab relies on, and no more. The helpers make drafts and chunks, and read rows back.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eventlab.errors import Conflict, DuplicateEvent, EventlabError, IngestRefused, InvalidName, Outrun, SchemaConflict
from eventlab.model.filters import EVERYTHING, Clause, Filter
from eventlab.model.schema import Schema
from eventlab.model.types import MOMENT_MIN
from eventlab.store.base import ALL, Appended, Chunk, Condition, Cut, Draft, Row, Store, Tenant, pack
from eventlab.store.columns import ENVELOPE, payload_array
from eventlab.store.read_models import Parked
from eventlab.store.work import Checkpoint
from eventlab.testing.strategies import EDGES

COUNTED: Final = Schema("Counted", 1, ("n:i64",))
NAMED: Final = Schema("Named", 1, ("name:s", "n:i64"))
OPENED: Final = Schema("Opened", 1, ())


# -- helpers ---------------------------------------------------------------------------------------------------------------


def draft(
    stream: str,
    *payload: Any,
    schema: Schema = COUNTED,
    event_id: bytes | None = None,
    occurred_at: int | None = None,
    correlation_id: bytes | None = None,
    causation_id: bytes | None = None,
    actor: str | None = None,
    tags: Sequence[str] = (),
) -> Draft:
    """An event ready to append; its payload is in stored form, one value a column of the schema."""
    return Draft(
        stream,
        schema,
        payload,
        event_id=event_id or uuid.uuid4().bytes,
        occurred_at=occurred_at,
        correlation_id=correlation_id,
        causation_id=causation_id,
        actor=actor,
        tags=tuple(tags),
    )


def chunk(drafts: Sequence[Draft], source: str = "files", number: int = 0, recorded_at: Sequence[int] | None = None) -> Chunk:
    """The same events as a chunk of an ingest; `recorded_at` makes it imported history."""
    columns = sorted({(d.stream.partition("-")[0], column) for d in drafts for column in d.schema.columns})
    tables: dict[str, pa.Table] = {}
    for category in sorted({d.stream.partition("-")[0] for d in drafts}):
        mine = [(offset, d) for offset, d in enumerate(drafts) if d.stream.partition("-")[0] == category]
        envelope: dict[str, list[Any]] = {
            "stream": [d.stream for _, d in mine],
            "type": [d.schema.name for _, d in mine],
            "schema_version": [d.schema.version for _, d in mine],
            "event_id": [d.event_id for _, d in mine],
            "occurred_at": [d.occurred_at or 0 for _, d in mine],
            "correlation_id": [d.correlation_id for _, d in mine],
            "causation_id": [d.causation_id for _, d in mine],
            "actor": [d.actor for _, d in mine],
            "tags": [list(d.tags) for _, d in mine],
        }
        if recorded_at is not None:
            envelope["recorded_at"] = [recorded_at[offset] for offset, _ in mine]
        arrays = {name: pa.array(listed, ENVELOPE.field(name).type) for name, listed in envelope.items()}
        for column in (column for of, column in columns if of == category):
            given = [dict(zip(d.schema.columns, d.payload, strict=True)).get(column) for _, d in mine]
            arrays[column] = payload_array(column, given)
        tables[category] = pa.table({"offset": pa.array([offset for offset, _ in mine], pa.int64()), **arrays})
    schemas = tuple(dict.fromkeys(d.schema for d in drafts))
    said = hashlib.blake2b(pack([(d.stream, d.content) for d in drafts]), digest_size=16).digest()
    return Chunk(source, number, said, len(drafts), tables, schemas, recorded_at is not None)


def rows(cut: Cut, filter: Filter = EVERYTHING, *, tenant: Tenant = ALL, after: int = 0, until: int | None = None) -> list[Row]:
    """The events of a cut, comparable with `==`: payloads as canonical bytes, so that NaN equals NaN and 0.0 is not -0.0."""
    found = [row for batch in cut.batches(filter, tenant=tenant, after=after, until=until) for row in batch.rows()]
    assert [row.position for row in found] == sorted({row.position for row in found}), "positions are in order and differ"
    return [comparable(row) for row in found]


def stream_rows(cut: Cut, stream: str, *, tenant: str = "a", after_version: int = 0, until: int | None = None) -> list[Row]:
    """One stream's events, comparable with `==`."""
    found = [row for batch in cut.stream(stream, tenant=tenant, after_version=after_version, until=until) for row in batch.rows()]
    return [comparable(row) for row in found]


def comparable(row: Row) -> Row:
    """A row whose payload is its canonical bytes."""
    return row._replace(payload=(pack(row.payload),))


def append(
    store: Store,
    *drafts: Draft,
    tenant: str = "a",
    expected: Mapping[str, int] | None = None,
    repeats: bool = False,
    condition: Condition | None = None,
    now: int | None = None,
) -> Appended:
    """`Store.append` with defaults."""
    return store.append(drafts, tenant=tenant, expected=expected or {}, repeats=repeats, condition=condition, now=now)


def refused(kind: type[EventlabError], store: Store, call: Callable[[], object]) -> EventlabError:
    """The error of a call that must raise it and change nothing that can be read."""
    before, schemas = rows(store.cut()), dict(store.cut().schemas)
    with pytest.raises(kind) as caught:
        call()
    after = store.cut()
    assert (rows(after), dict(after.schemas)) == (before, schemas)
    return caught.value


class StoreContract:
    """Subclass it with a `store` fixture; see the module."""

    # -- append and read

    def test_an_empty_store_has_head_zero_and_no_events(self, store: Store) -> None:
        cut = store.cut()
        assert cut.head == 0
        assert rows(cut) == []
        assert stream_rows(cut, "order-7") == []
        assert cut.position_at(2**62) == 0
        assert (store.version("a", "order-7"), store.last_recorded()) == (0, MOMENT_MIN)
        assert (dict(cut.schemas), dict(cut.types_of), cut.sources(ALL)) == ({}, {}, [])

    def test_positions_are_dense_over_the_log_and_versions_over_each_stream(self, store: Store) -> None:
        one = append(store, draft("order-1", 1), draft("order-2", 2), draft("order-1", 3))
        two = append(store, draft("order-2", 4))
        assert (one.positions, one.versions, one.repeated) == ((1, 2, 3), (1, 1, 2), False)
        assert (two.positions, two.versions) == ((4,), (2,))
        assert (store.cut().head, store.version("a", "order-1"), store.version("a", "order-2")) == (4, 2, 2)

    def test_an_event_is_read_as_it_was_appended(self, store: Store) -> None:
        ids = [uuid.uuid4().bytes for _ in range(3)]
        append(store, draft("order-0", 0), now=90)
        given = draft(
            "order-1-é-1", "it's", 2**63 - 1, schema=NAMED, event_id=ids[0], occurred_at=-5, correlation_id=ids[1],
            causation_id=ids[2], actor="ann", tags=("vip", "customer:c9"),
        )  # fmt: skip
        done = append(store, draft("order-9", 9), given, now=100)
        expected = Row(
            3, "a", "order-1-é-1", 1, "Named", 1, ids[0], 100, -5, ids[1], ids[2], "ann", ("vip", "customer:c9"), 2,
            ("it's", 2**63 - 1),
        )  # fmt: skip
        assert rows(store.cut())[2] == comparable(expected)
        assert done.ids[1] == uuid.UUID(bytes=ids[0])

    def test_one_append_shares_the_time_of_its_recording_and_its_commit(self, store: Store) -> None:
        append(store, draft("order-1", 1), now=10)
        append(store, draft("order-1", 2), draft("item-1", 3), now=20)
        assert [(r.recorded_at, r.commit) for r in rows(store.cut())] == [(10, 1), (20, 2), (20, 2)]

    def test_the_time_of_recording_never_goes_back_even_when_the_clock_does(self, store: Store) -> None:
        for now in (50, 40, 60, 10):
            append(store, draft("order-1", now), now=now)
        assert [r.recorded_at for r in rows(store.cut())] == [50, 50, 60, 60]
        assert store.last_recorded() == 60

    def test_an_event_without_business_time_occurred_when_it_was_recorded(self, store: Store) -> None:
        append(store, draft("order-1", 1), now=50)
        append(store, draft("order-1", 2), now=40)
        append(store, draft("order-1", 3, occurred_at=0), now=60)
        assert [r.occurred_at for r in rows(store.cut())] == [50, 50, 0]

    def test_the_store_has_a_clock_of_its_own(self, store: Store) -> None:
        append(store, draft("order-1", 1))
        assert rows(store.cut())[0].recorded_at == store.last_recorded() > 0

    @pytest.mark.parametrize("tag", sorted(EDGES))
    def test_every_kind_of_value_comes_back_as_it_was(self, store: Store, tag: str) -> None:
        edges: list[Any] = [None, *EDGES[tag]]
        kinds: dict[str, list[Any]] = {
            tag: edges,
            f"l_{tag}": [None, [], edges],
            f"m_{tag}": [None, {}, dict(zip("abcdefghijklmnopqrstuvwxyz", edges, strict=False))],
            f"l_r(x={tag},größe=l_{tag})": [[], [{"x": v, "größe": [v, v]} for v in edges], [None, {"x": None, "größe": None}]],
        }
        for i, (of, listed) in enumerate(kinds.items()):
            schema = Schema(f"Kept{i}", 1, (f"addr.value:{of}",))
            append(store, *(draft("order-1", v, schema=schema) for v in listed))
        told = [pack((v,)) for listed in kinds.values() for v in listed]
        assert [row.payload for row in rows(store.cut())] == [(text,) for text in told]

    def test_events_without_fields_are_events(self, store: Store) -> None:
        append(store, draft("order-1", schema=OPENED), draft("order-1", 1), draft("order-2", schema=OPENED))
        assert [(r.type, r.payload) for r in rows(store.cut())] == [
            ("Opened", (pack(()),)), ("Counted", (pack((1,)),)), ("Opened", (pack(()),)),
        ]  # fmt: skip
        (batch,) = store.cut().batches(Filter((Clause(types=frozenset({"Opened"})),)), tenant="a")
        assert batch.events(lambda name: None) == [{}, {}]

    def test_payloads_are_given_as_plain_values_where_the_type_has_no_class(self, store: Store) -> None:
        schema = Schema("Moved", 1, ("addr:p", "addr.city:s", "price:d18_2"))
        append(store, draft("order-1", True, "Bern", 950, schema=schema))
        (batch,) = store.cut().batches(tenant="a")
        (event,) = batch.events(lambda name: None)
        assert (event["addr"], str(event["price"])) == ({"city": "Bern"}, "9.50")

    def test_a_type_has_its_columns_even_beside_types_that_share_some_of_them(self, store: Store) -> None:
        other = Schema("Sized", 1, ("n:s", "size:f64"))
        append(store, draft("order-1", 1), draft("order-1", "x", None, schema=other), draft("order-1", "y", 2, schema=NAMED))
        assert [r.payload[0] for r in rows(store.cut())] == [pack((1,)), pack(("x", None)), pack(("y", 2))]

    # -- expected versions

    def test_an_append_at_the_expected_version_is_done(self, store: Store) -> None:
        append(store, draft("order-1", 1), draft("order-1", 2), expected={"order-1": 0})
        done = append(store, draft("order-1", 3), expected={"order-1": 2})
        assert done.versions == (3,)

    @pytest.mark.parametrize("expected", [0, 1, 3])
    def test_an_append_at_another_version_is_a_conflict_with_the_numbers(self, store: Store, expected: int) -> None:
        append(store, draft("order-1", 1), draft("order-1", "x", 2, schema=NAMED))
        stale = refused(Conflict, store, lambda: append(store, draft("order-1", 3), expected={"order-1": expected}))
        assert (stale.stream, stale.expected, stale.actual) == ("order-1", expected, 2)
        assert f"expected version {expected}, but it is at version 2" in str(stale)
        assert ("Named" in str(stale)) == (expected < 2)

    def test_a_stream_that_is_only_expected_is_checked_too(self, store: Store) -> None:
        append(store, draft("rule-1", 1))
        append(store, draft("order-1", 1), expected={"rule-1": 1})
        stale = refused(Conflict, store, lambda: append(store, draft("order-1", 2), expected={"rule-1": 0, "order-1": 1}))
        assert (stale.stream, stale.actual) == ("rule-1", 1)
        refused(Conflict, store, lambda: append(store, draft("order-1", 2), expected={"rule-2": 1}))

    def test_an_append_to_several_streams_is_done_whole_or_not_at_all(self, store: Store) -> None:
        append(store, draft("account-1", 1), draft("account-2", 1))
        both = (draft("account-1", -5), draft("account-2", 5))
        refused(Conflict, store, lambda: append(store, *both, expected={"account-1": 1, "account-2": 0}))
        done = append(store, *both, expected={"account-1": 1, "account-2": 1})
        assert done.versions == (2, 2)

    def test_of_writers_with_one_expected_version_one_wins(self, store: Store) -> None:
        won = _at_once(8, lambda i: append(store, draft("order-1", i), expected={"order-1": 0}))
        assert sum(isinstance(done, Appended) for done in won) == 1
        assert sum(isinstance(done, Conflict) for done in won) == 7
        assert store.cut().head == 1

    def test_nothing_is_lost_when_several_threads_append(self, store: Store) -> None:
        def work(i: int) -> list[int]:
            return [append(store, draft(f"order-{i % 2}", i), draft("item-1", n)).position for n in range(20)]

        positions = [p for done in _at_once(4, work) for p in done]
        found = rows(store.cut())
        assert sorted(positions) == list(range(2, 161, 2))
        assert [r.position for r in found] == list(range(1, 161))
        for stream in ("order-0", "order-1", "item-1"):
            versions = [r.version for r in found if r.stream == stream]
            assert versions == list(range(1, len(versions) + 1))

    # -- conditions

    def test_an_append_is_refused_when_what_its_condition_picks_came_after_what_was_read(self, store: Store) -> None:
        vip = Filter((Clause(types=frozenset({"Counted"}), tags=frozenset({"vip"})),))
        append(store, draft("order-1", 1, tags=("vip",)), draft("order-2", 2))
        append(store, draft("order-3", 3), condition=Condition(vip, 2))
        append(store, draft("order-4", "x", 1, schema=NAMED, tags=("vip",)), condition=Condition(vip, 1))
        append(store, draft("order-5", 1, tags=("vip",)), condition=Condition(vip, 4))
        for after in (0, 1, 4):
            condition = Condition(vip, after)
            stale = refused(Conflict, store, functools.partial(append, store, draft("order-6", 6), condition=condition))
            assert stale.position == (1 if after == 0 else 5)
            assert f"after position {after}" in str(stale)
        assert append(store, draft("order-6", 6), condition=Condition(vip, 5)).positions == (6,)

    def test_a_condition_is_about_the_events_of_the_same_tenant(self, store: Store) -> None:
        every = Filter((Clause(categories=frozenset({"order"})),))
        append(store, draft("order-1", 1), tenant="b")
        assert append(store, draft("order-1", 1), condition=Condition(every, 0)).positions == (2,)
        refused(Conflict, store, lambda: append(store, draft("order-1", 1), tenant="b", condition=Condition(every, 0)))

    def test_a_condition_and_an_expected_version_must_both_hold(self, store: Store) -> None:
        items = Filter((Clause(categories=frozenset({"item"})),))
        append(store, draft("order-1", 1))
        mine = draft("order-1", 2)
        refused(Conflict, store, lambda: append(store, mine, expected={"order-1": 0}, condition=Condition(items, 1)))
        append(store, draft("item-1", 1))
        refused(Conflict, store, lambda: append(store, mine, expected={"order-1": 1}, condition=Condition(items, 1)))
        append(store, mine, expected={"order-1": 1}, condition=Condition(items, 2))

    def test_a_repeat_of_an_append_with_a_condition_is_the_same_success(self, store: Store) -> None:
        every = Filter((Clause(),))
        mine = draft("order-1", 1)
        first = append(store, mine, condition=Condition(every, 0), repeats=True)
        again = append(store, mine, condition=Condition(every, 0), repeats=True)
        assert (again.positions, again.repeated) == (first.positions, True)

    def test_of_writers_with_one_condition_one_wins(self, store: Store) -> None:
        seat = Filter((Clause(tags=frozenset({"seat:1"})),))
        won = _at_once(8, lambda i: append(store, draft(f"booking-{i}", i, tags=("seat:1",)), condition=Condition(seat, 0)))
        assert sum(isinstance(done, Appended) for done in won) == 1
        assert store.cut().head == 1

    def test_a_condition_looks_at_however_many_events_there_are(self, store: Store) -> None:
        vip = Filter((Clause(tags=frozenset({"vip"})),))
        append(store, *(draft("order-1", i) for i in range(400)))
        append(store, draft("order-2", 1), condition=Condition(vip, 0))
        append(store, draft("order-2", 2, tags=("vip",)))
        append(store, *(draft("order-1", i) for i in range(400)))
        stale = refused(Conflict, store, lambda: append(store, draft("order-2", 3), condition=Condition(vip, 0)))
        assert stale.position == 402

    # -- repeats

    def test_an_append_repeated_with_its_own_ids_changes_nothing(self, store: Store) -> None:
        mine = (draft("order-1", 1), draft("order-2", 2))
        first = append(store, *mine, expected={"order-1": 0}, repeats=True)
        append(store, draft("order-1", 3))
        before = rows(store.cut())
        again = append(store, *mine, expected={"order-1": 0}, repeats=True)
        assert again == dataclasses.replace(first, repeated=True)
        assert rows(store.cut()) == before

    def test_an_id_that_returns_with_other_content_is_refused(self, store: Store) -> None:
        mine = draft("order-1", 1)
        append(store, mine, repeats=True)
        for other in (
            draft("order-1", 2, event_id=mine.event_id),
            draft("order-2", 1, event_id=mine.event_id),
            draft("order-1", "x", 1, schema=NAMED, event_id=mine.event_id),
        ):
            refused(DuplicateEvent, store, lambda other=other: append(store, other, repeats=True))  # type: ignore[misc]

    def test_an_append_of_which_only_a_part_is_known_is_refused(self, store: Store) -> None:
        one, two = draft("order-1", 1), draft("order-1", 2)
        append(store, one, two, repeats=True)
        refused(DuplicateEvent, store, lambda: append(store, one, draft("order-1", 3), repeats=True))
        refused(DuplicateEvent, store, lambda: append(store, two, one, repeats=True))

    def test_an_id_belongs_to_its_tenant(self, store: Store) -> None:
        mine = draft("order-1", 1)
        append(store, mine, repeats=True)
        done = append(store, mine, repeats=True, tenant="b")
        assert (done.positions, done.versions, done.repeated) == ((2,), (1,), False)
        assert append(store, mine, repeats=True, tenant="b").positions == (2,)

    def test_events_that_were_ingested_are_known_again_by_their_ids_and_version(self, store: Store) -> None:
        mine = (draft("order-1", 1), draft("order-1", 2))
        store.ingest(chunk(mine), tenant="a")
        again = append(store, *mine, expected={"order-1": 0}, repeats=True)
        assert (again.positions, again.versions, again.repeated) == ((1, 2), (1, 2), True)
        other = draft("order-1", 3, event_id=mine[0].event_id)
        refused(DuplicateEvent, store, lambda: append(store, other, expected={"order-1": 0}, repeats=True))
        refused(Conflict, store, lambda: append(store, mine[1], expected={"order-1": 0}, repeats=True))

    # -- types

    def test_a_type_is_known_from_its_first_event_on(self, store: Store) -> None:
        append(store, draft("order-1", 1), draft("item-1", "x", 1, schema=NAMED))
        append(store, draft("order-1", schema=OPENED), tenant="b")
        cut = store.cut()
        assert dict(cut.schemas) == {s.key: s for s in (COUNTED, NAMED, OPENED)}
        assert dict(cut.types_of) == {
            ("a", "order"): {("Counted", 1)}, ("a", "item"): {("Named", 1)}, ("b", "order"): {("Opened", 1)},
        }  # fmt: skip

    def test_versions_of_a_type_live_side_by_side(self, store: Store) -> None:
        newer = Schema("Counted", 2, ("n:i64", "by:s"))
        append(store, draft("order-1", 1), draft("order-1", 2, "ann", schema=newer), draft("order-1", 3))
        assert [(r.schema_version, r.payload[0]) for r in rows(store.cut())] == [
            (1, pack((1,))), (2, pack((2, "ann"))), (1, pack((3,))),
        ]  # fmt: skip

    def test_another_shape_under_a_stored_name_is_refused(self, store: Store) -> None:
        append(store, draft("order-1", 1))
        other = draft("order-1", "x", schema=Schema("Counted", 1, ("n:s",)))
        refused(SchemaConflict, store, lambda: append(store, other))
        refused(SchemaConflict, store, lambda: store.ingest(chunk([other]), tenant="a"))

    def test_type_names_that_differ_only_by_case_are_refused(self, store: Store) -> None:
        append(store, draft("order-1", 1))
        for name in ("counted", "COUNTED"):
            refused(InvalidName, store, lambda name=name: append(store, draft("order-1", 1, schema=Schema(name, 1, ("n:i64",)))))  # type: ignore[misc]

    def test_a_refused_append_leaves_no_type_behind(self, store: Store) -> None:
        append(store, draft("order-1", 1))
        bad = draft("order-1", "x", schema=Schema("Counted", 1, ("n:s",)))
        refused(SchemaConflict, store, lambda: append(store, draft("order-1", "x", 1, schema=NAMED), bad))
        append(store, draft("order-1", "y", 2, schema=NAMED))
        assert [r.type for r in rows(store.cut())] == ["Counted", "Named"]
        assert NAMED.key in store.cut().schemas

    # -- filters and ranges

    def test_a_filter_picks_what_it_says(self, store: Store) -> None:
        _mixed(store)
        everything = rows(store.cut())
        parts: list[Clause] = [
            Clause(**dict(chosen))
            for size in range(4)
            for chosen in itertools.combinations(
                [
                    ("types", frozenset({"Counted"})), ("streams", frozenset({"order-1", "item-2"})),
                    ("categories", frozenset({"order"})), ("tags", frozenset({"vip"})),
                ],
                size,
            )
        ]  # fmt: skip
        several = [
            Clause(types=frozenset({"Named", "Opened"})),
            Clause(tags=frozenset({"vip", "customer:c9"})),
            Clause(types=frozenset()),
        ]
        filters = [Filter((one,)) for one in (*parts, *several)]
        filters += [Filter((one, two)) for one, two in itertools.combinations(several, 2)] + [Filter(())]
        for filter in filters:
            picked = [r for r in everything if filter.matches(r.type, r.stream, r.tags)]
            assert rows(store.cut(), filter) == picked, str(filter)
            assert rows(store.cut(), filter, tenant="b") == [r for r in picked if r.tenant == "b"], str(filter)

    def test_a_range_of_positions_begins_after_and_ends_with(self, store: Store) -> None:
        _mixed(store)
        cut, everything = store.cut(), rows(store.cut())
        for after, until in itertools.product(range(cut.head + 2), range(cut.head + 2)):
            assert rows(cut, after=after, until=until) == everything[after:until]
        assert rows(cut, after=3) == everything[3:]

    def test_a_stream_is_read_from_any_version_to_any_position(self, store: Store) -> None:
        _mixed(store)
        cut, everything = store.cut(), rows(store.cut())
        for tenant, stream in {(r.tenant, r.stream) for r in everything} | {("a", "order-none"), ("none", "order-1")}:
            mine = [r for r in everything if (r.tenant, r.stream) == (tenant, stream)]
            for after, until in itertools.product(range(len(mine) + 2), [None, *range(cut.head + 2)]):
                expected = [r for r in mine if r.version > after and (until is None or r.position <= until)]
                assert stream_rows(cut, stream, tenant=tenant, after_version=after, until=until) == expected

    def test_a_read_gives_the_columns_that_are_asked_for(self, store: Store) -> None:
        append(store, draft("order-1", "x", 1, schema=NAMED, tags=["vip"]), draft("order-1", 7))
        (batch,) = store.cut().batches(tenant="a", envelope=("position", "version"), types=("Counted",))
        assert list(batch.envelope.position) == [1, 2]
        assert list(batch.envelope.version) == [1, 2]
        assert batch.events(lambda name: "ignored" if name == "Named" else None) == [None, {"n": 7}]
        vip = Filter((Clause(tags=frozenset({"vip"})),))
        (batch,) = store.cut().batches(vip, tenant="a", envelope=("position",), types=())
        assert list(batch.envelope.position) == [1]

    # -- time

    def test_a_moment_is_the_end_of_the_last_commit_at_or_before_it(self, store: Store) -> None:
        append(store, draft("order-1", 1), draft("item-1", 1), now=10)
        append(store, draft("order-1", 2), now=10)
        store.ingest(chunk([draft("item-1", 2), draft("order-2", 1)]), tenant="b", now=20)
        append(store, draft("order-1", 3), draft("item-2", 1), tenant="b", now=20)
        append(store, draft("order-1", 4), now=30)
        expected = {9: 0, 10: 3, 11: 3, 19: 3, 20: 7, 29: 7, 30: 8, 31: 8}
        assert {at: store.cut().position_at(at) for at in expected} == expected

    # -- cuts

    def test_a_cut_never_changes(self, store: Store) -> None:
        pinned: list[tuple[Cut, list[Row], dict[str, list[Row]], list[int]]] = []

        def pin() -> None:
            cut = store.cut()
            streams = {stream: stream_rows(cut, stream) for stream in ("order-1", "order-2", "item-1")}
            pinned.append((cut, rows(cut), streams, [cut.position_at(at) for at in range(0, 100, 10)]))

        changes: list[Callable[[], object]] = [
            lambda: append(store, draft("order-1", 1), draft("item-1", 1), now=10),
            lambda: store.ingest(chunk([draft("order-1", 2), draft("order-2", 1)], "one"), tenant="a", now=20),
            lambda: append(store, draft("order-1", 3), draft("order-2", 2), now=30),
            store.seal,
            lambda: append(store, draft("order-1", 4), now=40),
            lambda: append(store, draft("order-2", 3, schema=Schema("Later", 1, ("n:i64",))), now=50),
            lambda: store.ingest(chunk([draft("item-1", 2)], "two"), tenant="b", now=60),
            store.seal,
        ]
        pin()
        for i, change in enumerate(changes):
            change()
            pin()
            for cut, everything, streams, moments in pinned:
                assert rows(cut) == everything, i
                assert {stream: stream_rows(cut, stream) for stream in streams} == streams, i
                assert [cut.position_at(at) for at in range(0, 100, 10)] == moments, i
                assert cut.head == len(everything)

    def test_every_event_is_in_exactly_one_source_for_sql(self, store: Store) -> None:
        _mixed(store)
        for tenant in (ALL, "a", "b", "none"):
            positions: list[int] = []
            for group in store.cut().sources(tenant):
                tables = [group.table] if group.table is not None else [pq.ParquetFile(path).read() for path in group.paths]
                for table in tables:
                    assert set(table.column("tenant").to_pylist()) == {group.tenant}
                    assert {s.partition("-")[0] for s in table.column("stream").to_pylist()} == {group.category}
                    assert {c for c in table.column_names if ":" in c} == set(group.columns)
                    positions += table.column("position").to_pylist()
            assert sorted(positions) == [r.position for r in rows(store.cut(), tenant=tenant)]

    # -- tenants

    def test_what_is_done_for_one_tenant_changes_nothing_that_another_reads(self, store: Store) -> None:
        append(store, draft("order-1", 1, tags=["vip"]), draft("order-1", 2), tenant="b", now=10)

        def seen() -> tuple[Any, ...]:
            cut = store.cut()
            vip = Filter((Clause(tags=frozenset({"vip"})),))
            of_b = {key: types for key, types in cut.types_of.items() if key[0] == "b"}
            return (
                rows(cut, tenant="b"), rows(cut, vip, tenant="b"), stream_rows(cut, "order-1", tenant="b"), of_b,
                store.version("b", "order-1"), store.chunks("b", "files"), sorted(store.read_models.accepted("b")),
            )  # fmt: skip

        before = seen()
        append(store, draft("order-1", "x", 1, schema=NAMED, tags=["vip"]), tenant="a", now=20)
        assert seen() == before
        store.ingest(chunk([draft("order-1", 9), draft("item-1", 9)]), tenant="a", now=30)
        assert seen() == before
        store.read_models.save("order", "a", "f", 5, pa.table({"_id": ["1"]}))
        store.seal()
        assert seen() == before
        refused(Conflict, store, lambda: append(store, draft("order-1", 1), tenant="a", expected={"order-1": 3}))
        append(store, draft("order-1", 3), tenant="b", expected={"order-1": 2})

    # -- ingest

    def test_an_ingested_row_is_an_event_and_its_own_commit(self, store: Store) -> None:
        append(store, draft("order-1", 1), now=10)
        given = [
            draft("order-1", 2),
            draft("item-1", "x", 3, schema=NAMED, tags=["vip"], actor="ann"),
            draft("order-2", 4),
            draft("order-1", 5),
        ]
        state = store.ingest(chunk(given), tenant="a", now=20)
        assert (state.rows, state.first, state.last) == (4, 2, 5)
        found = rows(store.cut())[1:]
        assert [(r.position, r.stream, r.version, r.commit, r.recorded_at) for r in found] == [
            (2, "order-1", 2, 2, 20), (3, "item-1", 1, 3, 20), (4, "order-2", 1, 4, 20), (5, "order-1", 3, 5, 20),
        ]  # fmt: skip
        assert [(r.event_id, r.tags, r.actor) for r in found] == [(d.event_id, d.tags, d.actor) for d in given]
        assert [r.payload[0] for r in found] == [pack(d.payload) for d in given]
        assert append(store, draft("order-1", 6), expected={"order-1": 3}).positions == (6,)

    def test_a_chunk_is_ingested_once(self, store: Store) -> None:
        given = chunk([draft("order-1", 1), draft("order-2", 2)])
        first = store.ingest(given, tenant="a", now=10)
        append(store, draft("order-1", 3))
        before = rows(store.cut())
        assert store.ingest(given, tenant="a", now=20) == first
        assert rows(store.cut()) == before
        assert store.chunks("a", "files") == {0: first}
        assert first.digest == given.digest

    def test_chunks_are_counted_for_each_source_and_tenant(self, store: Store) -> None:
        one = store.ingest(chunk([draft("order-1", 1)], "one", 0), tenant="a")
        two = store.ingest(chunk([draft("order-1", 2)], "one", 1), tenant="a")
        store.ingest(chunk([draft("order-1", 3)], "two", 0), tenant="a")
        other = store.ingest(chunk([draft("order-1", 4)], "one", 0), tenant="b")
        assert store.chunks("a", "one") == {0: one, 1: two}
        assert store.chunks("b", "one") == {0: other}
        assert store.chunks("c", "one") == store.chunks("a", "three") == {}

    def test_imported_history_keeps_its_times(self, store: Store) -> None:
        store.ingest(chunk([draft("order-1", 1), draft("item-1", 2), draft("order-1", 3)], recorded_at=[-5, 0, 7]), tenant="a")
        assert [r.recorded_at for r in rows(store.cut())] == [-5, 0, 7]
        assert [store.cut().position_at(at) for at in (-6, -5, -1, 0, 6, 7)] == [0, 1, 1, 2, 2, 3]
        assert store.last_recorded() == 7

    def test_imported_history_may_not_begin_before_the_last_record(self, store: Store) -> None:
        append(store, draft("order-1", 1), now=100)
        early = chunk([draft("item-1", 1), draft("order-2", 1)], recorded_at=[99, 200])
        refused(IngestRefused, store, lambda: store.ingest(early, tenant="a"))
        late = chunk([draft("item-1", 1), draft("order-2", 1)], recorded_at=[100, 200])
        state = store.ingest(late, tenant="a")
        append(store, draft("order-1", 2), now=150)
        assert [r.recorded_at for r in rows(store.cut())] == [100, 100, 200, 200]
        assert store.ingest(late, tenant="a") == state

    def test_a_chunk_makes_known_the_types_that_occur_in_it(self, store: Store) -> None:
        whole = chunk([draft("order-1", 1), draft("item-1", "x", 1, schema=NAMED)])
        first = chunk([draft("order-1", 1)])
        store.ingest(dataclasses.replace(first, schemas=whole.schemas), tenant="a")
        assert set(store.cut().schemas) == {COUNTED.key}
        assert dict(store.cut().types_of) == {("a", "order"): {COUNTED.key}}

    # -- seal

    def test_sealing_changes_nothing_that_is_read(self, store: Store) -> None:
        _mixed(store)
        before, streams = rows(store.cut()), stream_rows(store.cut(), "order-1")
        for _ in range(2):
            store.seal()
            assert rows(store.cut()) == before
            assert stream_rows(store.cut(), "order-1") == streams
        again = before[0]
        done = append(store, draft("order-1", 99), expected={"order-1": store.version("a", "order-1")})
        assert (done.position, rows(store.cut())[0]) == (len(before) + 1, again)

    def test_a_repeat_is_known_after_sealing_too(self, store: Store) -> None:
        mine = (draft("order-1", 1), draft("order-1", 2))
        first = append(store, *mine, repeats=True)
        store.seal()
        append(store, draft("order-1", 3))
        assert append(store, *mine, repeats=True).positions == first.positions

    # -- read models

    def test_the_base_of_a_read_model_is_kept_until_it_is_swapped(self, store: Store) -> None:
        one, two = pa.table({"_id": ["1"], "n": [1]}), pa.table({"_id": ["1", "2"], "n": [3, 4]})
        assert store.read_models.accepted("a") == {}
        made = store.read_models.save("order", "a", "print1", 5, one)
        assert (made.name, made.tenant, made.fingerprint, made.position, made.rows) == ("order", "a", "print1", 5, 1)
        old = store.read_models.accepted("a")["order"]
        store.read_models.save("order", "a", "print1", 6, two)
        new = store.read_models.accepted("a")["order"]
        assert (new.fingerprint, new.position, new.rows, new.table()) == ("print1", 6, 2, two)
        assert old.table() == made.table() == one, "a base that was taken can be read to the end"

    def test_a_base_moves_on_by_the_rows_that_changed(self, store: Store) -> None:
        models = store.read_models
        meant = {f"k{i:03d}": i for i in range(0, 200, 2)}
        base = models.save("order", "a", "print", 1, _numbers(meant))
        for step in range(1, 40):
            changed = {f"k{(step * 7 + j) % 200:03d}": step * 1000 + j for j in range(1 + step % 5)}
            meant |= changed
            base = models.save("order", "a", "print", 1 + step, _numbers(changed), onto=base)
            assert (base.position, base.rows) == (1 + step, len(meant))
            stored = models.accepted("a")["order"]
            assert stored.table() == _numbers(meant)
            wanted = pa.table({"_id": ["k001", "k007", "k198", "nobody"]})
            found = stored.rows_of(wanted).to_pylist()
            assert {row["_id"]: row["n"] for row in found} == {k: meant[k] for k in ("k001", "k007", "k198") if k in meant}
        moved = models.save("order", "a", "print", 99, _numbers({}), onto=base)
        assert (moved.position, moved.table()) == (99, _numbers(meant)), "a checkpoint can move where no row changed"

    def test_a_base_that_moved_meanwhile_is_not_moved_from_where_it_was(self, store: Store) -> None:
        models = store.read_models
        first = models.save("order", "a", "print", 1, _numbers({"x": 1}))
        second = models.save("order", "a", "print", 5, _numbers({"x": 5}), onto=first)
        refused(Outrun, store, lambda: models.save("order", "a", "print", 6, _numbers({"y": 1}), onto=first))
        refused(Outrun, store, lambda: models.save("order", "a", "print", 4, _numbers({"y": 1})))
        assert models.accepted("a")["order"].table() == second.table() == _numbers({"x": 5})

    def test_a_name_stands_for_the_code_that_was_accepted(self, store: Store) -> None:
        models = store.read_models
        models.save("order", "a", "one", 1, _numbers({"x": 1}))
        beside = models.save("order", "a", "two", 2, _numbers({"x": 2}))
        assert (beside.state, models.accepted("a")["order"].fingerprint) == ("candidate", "one")
        models.accept("order", "a", "two")
        assert {b.fingerprint: b.state for b in models.of("a", "order")} == {"one": "previous", "two": "accepted"}
        models.save("order", "a", "three", 3, _numbers({"x": 3}))
        models.accept("order", "a", "three")
        assert {b.fingerprint: b.state for b in models.of("a")} == {"two": "previous", "three": "accepted"}
        models.accept("order", "a", "two")
        assert models.accepted("a")["order"].table() == _numbers({"x": 2}), "the one before can be brought back"
        refused(Outrun, store, lambda: models.accept("order", "a", "never"))
        models.drop("order", "a", "three")
        assert [b.fingerprint for b in models.of("a", "order")] == ["two"]

    def test_what_was_parked_moves_with_the_rows(self, store: Store) -> None:
        models = store.read_models
        parked = (Parked(("x", 7), 3, "order-1", 2, "Paid", "ValueError: no", 4), Parked(None, 5, "order-2", 1, "Paid", "no key"))
        base = models.save("order", "a", "one", 9, _numbers({"x": 1}), parked=parked)
        assert models.of("a", "order")[0].parked == base.parked == parked
        assert models.save("order", "a", "one", 10, _numbers({}), onto=base).parked == ()

    # -- work

    def test_a_lease_is_held_by_one_until_it_is_over(self, store: Store) -> None:
        work = store.work
        assert work.take(["x", "y"], "me", 30, {"x": "busy"}) == {"x", "y"}
        assert work.take(["y", "z"], "you", 30) == {"z"}
        assert [(of.name, of.owner, of.held, of.said) for of in work.leases()] == [
            ("x", "me", True, "busy"), ("y", "me", True, ""), ("z", "you", True, ""),
        ]  # fmt: skip
        work.leave(["x", "z"], "me")
        assert [of.name for of in work.leases()] == ["y", "z"], "nobody gives back what another holds"
        assert work.take(["y"], "me", -1) == {"y"}, "one's own is renewed, or let go of"
        assert work.take(["y"], "you", 30) == {"y"}

    def test_a_checkpoint_moves_forward_and_only_for_whoever_holds_the_lease(self, store: Store) -> None:
        work = store.work
        assert work.checkpoints("a", "mail") == []
        begun = work.checkpoints("a", "mail", 2, 5)
        assert [(of.part, of.parts, of.position) for of in begun] == [(0, 2, 5), (1, 2, 5)]
        assert work.checkpoints("a", "mail", 9, 0) == begun, "it is begun once"
        leases = {0: "mail/0", 1: "mail/1"}
        work.take(["mail/0"], "me", 30)
        parked = (Parked(("order-1",), 7, "order-1", 2, "Paid", "ValueError: no", 4),)
        moved = [Checkpoint(0, 2, 8, parked), Checkpoint(1, 2, 8)]
        assert work.advance("a", "mail", moved, leases, "me") == {0}
        assert work.advance("a", "mail", moved, leases, "you") == set()
        assert [(of.position, of.parked) for of in work.checkpoints("a", "mail")] == [(8, parked), (5, ())]
        assert work.checkpoints("b", "mail") == []
        work.forget("a", "mail")
        assert work.checkpoints("a", "mail") == []

    def test_whoever_waits_is_told_of_the_next_event(self, store: Store) -> None:
        assert store.wait(0, 0) == 0
        append(store, draft("order-1", 1))
        assert store.wait(0, 30) == 1
        assert store.wait(1, 0.02) == 1
        heard: list[int] = []
        waiting = threading.Thread(target=lambda: heard.append(store.wait(1, 0.5)))
        waiting.start()
        waiting.join()
        assert heard == [1], "and not of one that was there before"

    def test_each_tenant_and_name_has_a_base_of_its_own(self, store: Store) -> None:
        for tenant, name in itertools.product(("a", "b", ""), ("order", "item")):
            store.read_models.save(name, tenant, "f", 1, pa.table({"said": [f"{tenant}/{name}"]}))
        for tenant in ("a", "b", ""):
            found = store.read_models.accepted(tenant)
            assert {n: base.table()["said"][0].as_py() for n, base in found.items()} == {
                n: f"{tenant}/{n}" for n in ("order", "item")
            }


def _numbers(of: dict[str, int]) -> pa.Table:
    """Rows by key."""
    return pa.table({"_id": pa.array(sorted(of), pa.string()), "n": pa.array([of[k] for k in sorted(of)], pa.int64())})


def _mixed(store: Store) -> None:
    """A small log with everything in it: tenants, categories, several appends, ingests between them, and a seal."""
    append(store, draft("order-1", 1, tags=["vip", "customer:c9"]), draft("item-1", "x", 1, schema=NAMED), now=10)
    append(store, draft("order-1", 1, tags=["vip"]), draft("order-2", schema=OPENED), tenant="b", now=20)
    store.ingest(chunk([draft("order-1", 2, tags=["vip"]), draft("item-2", 5), draft("order-1", 3)], "one"), tenant="a", now=30)
    append(store, draft("order-1", "y", 4, schema=NAMED), draft("order-2", 1), now=40)
    store.seal()
    append(store, draft("order-1", 5), draft("item-2", schema=OPENED, tags=["customer:c9"]), now=50)
    store.ingest(chunk([draft("order-2", 2), draft("order-1", 9)], "two"), tenant="b", now=60)
    append(store, draft("order-1", 6), draft("order-1", 7, tags=["vip", "customer:c9"]), now=70)


def _at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What each of several threads gave that began together: a result, or the eventlab error."""
    begin, done = threading.Barrier(count), [None] * count

    def run(i: int) -> None:
        begin.wait()
        try:
            done[i] = work(i)
        except EventlabError as why:
            done[i] = why  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def payload_of(events: Iterable[Row]) -> list[bytes]:
    """The canonical payloads of comparable rows."""
    return [row.payload[0] for row in events]

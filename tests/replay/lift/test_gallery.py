"""The gallery: every fold by every engine, on hostile logs, at any position, equal to the row fold or the same error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift import gallery
from replay.lift.hostile import agree, answer, logs, shown, written

from eventlab.model.models import model_of
from eventlab.replay.lift import fold_versions, plan_of
from eventlab.store.base import ALL

OTHERS = (gallery.LineAdded, gallery.PointsEarned)


@pytest.mark.parametrize("model", gallery.MODELS, ids=lambda cls: cls.__name__)
def test_every_fold_of_the_gallery_is_understood(model: type[Any]) -> None:
    refusal = plan_of(model_of(model)).refusal
    assert refusal is None, f"{refusal.file}:{refusal.line}: {refusal.why}"


@pytest.mark.parametrize("model", gallery.MODELS, ids=lambda cls: cls.__name__)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_the_engines_agree_with_the_row_fold_at_any_position(model: type[Any], data: st.DataObject) -> None:
    facts = data.draw(logs(model, OTHERS))
    of = model_of(model)
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head)
        agree(of, cut, ALL, data.draw(st.integers(0, cut.head), label="until"))


@pytest.mark.parametrize("model", gallery.MODELS, ids=lambda cls: cls.__name__)
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_the_engines_agree_on_the_state_after_every_event(model: type[Any], data: st.DataObject) -> None:
    facts = data.draw(logs(model, OTHERS))
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        found = agree(model_of(model), cut, "default", cut.head, fold=fold_versions)
        if not isinstance(found, tuple) and model_of(model).category is not None:
            ends = answer(model_of(model), cut, "default", cut.head, "rows")
            last = {row["_id"]: row for row in shown(found)}
            assert [last[key] for key in sorted(last)] == shown(ends)
        few_fields_and_their_events(model, cut, data)


def few_fields_and_their_events(model: type[Any], cut: Any, data: st.DataObject) -> None:
    """Some fields alone are those columns of all, or the same error; when and by what are the event's own."""
    of = model_of(model)
    some = data.draw(st.sets(st.sampled_from([name for name, _ in of.fields])), label="fields")
    events = {event.position: event for batch in cut.batches(tenant="default") for event in batch.recorded(lambda _: None)}
    for engine in ("rows", "loop", "auto", "lifted"):
        found = answer(of, cut, "default", cut.head, engine, fold_versions, fields=some, told=True)
        if isinstance(found, tuple) and found[0] == "NotLiftable":
            continue
        whole = answer(of, cut, "default", cut.head, "rows", fold_versions)
        if isinstance(whole, tuple):
            assert found == whole
            continue
        beside = [name for name in ("_recorded_at", "_type") if name in found.column_names]
        unwanted = {name for name, _ in of.fields} - some
        assert shown(found.drop_columns(beside)) == shown(whole.drop_columns([n for n in whole.column_names if n in unwanted]))
        for row in shown(found) if beside else ():
            event = events[row["_position"]]
            assert (row["_recorded_at"], row["_type"]) == (event.recorded_at, event.type)

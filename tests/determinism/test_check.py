"""A check folds in fresh processes; it finds the first event at which two folds part, and says nothing it did not see."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventlab as el
from eventlab.determinism.check import Checked
from eventlab.determinism.variants import BASELINE, VARIANTS
from eventlab.errors import EvolveFailed, ModelError, Unsupported

sys.path.insert(0, str(Path(__file__).parent))
import models as planted

EVENTS = 60


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Lab]:
    """Sixty events over five streams of one category; the first half is sealed."""
    chance = random.Random(7)
    with el.open(tmp_path_factory.mktemp("check") / "store") as lab:
        for number in range(1, EVENTS + 1):
            event = (
                planted.Counted(number)
                if number % 3 == 0
                else planted.Tagged(chance.choice("red green blue white black".split()))
            )
            category = "sound" if number % 2 else "sound_set_order"
            lab.append(f"{category}-{number % 5}", [event])
            if number == EVENTS // 2:
                lab.seal()
        yield lab


def checked(lab: el.Lab, model: type[Any]) -> Checked:
    return lab.check(model)[0]


def first_position(lab: el.Lab, kind: type[Any], nth: int) -> int:
    """The position of the nth event of a type, found without any fold."""
    return [e.position for e in lab.read(el.events(kind))][nth - 1]


def test_a_sound_fold_shows_no_divergence_and_the_report_says_what_was_exercised(lab: el.Lab) -> None:
    for report in lab.check(planted.Sound, planted.ByLabel):
        assert report.ok
        assert report.divergence is None
        assert report.events == sum(report.types.values()) > 0
        assert len(report.variants) == len(VARIANTS)
        assert "deterministic" not in str(report)
        assert f"no divergence in {report.events:,} events × {len(VARIANTS)} variants" in str(report)
    assert checked(lab, planted.Sound).never_seen == ("NeverHappened",)


def test_the_order_of_a_set_is_found_at_the_first_event_where_it_shows(lab: el.Lab) -> None:
    found = checked(lab, planted.SetOrder).divergence
    assert found is not None
    assert found.field == "first"
    assert found.event == "Tagged"
    # Before it every stream holds at most one label, whose order cannot vary; brute force over the log says where that ends.
    labels: dict[str, set[str]] = {}
    earliest = 0
    for event in lab.read(el.category("sound_set_order")):
        if isinstance(event.data, planted.Tagged):
            labels.setdefault(event.stream, set()).add(event.data.label)
            if len(labels[event.stream]) > 1:
                earliest = event.position
                break
    assert found.position >= earliest > 0
    assert {found.before.strip("'"), found.after.strip("'")} <= set().union(
        *labels.values(), {"red", "green", "blue", "white", "black"}
    )
    assert found.before != found.after


def test_a_look_at_the_clock_is_found_at_its_first_event(lab: el.Lab) -> None:
    found = checked(lab, planted.ClockReader).divergence
    assert found is not None
    assert (found.field, found.position) == ("at", first_position(lab, planted.Counted, 10))


def test_the_time_zone_of_the_process_is_found_at_its_first_event(lab: el.Lab) -> None:
    found = checked(lab, planted.ZoneReader).divergence
    assert found is not None
    assert (found.field, found.position) == ("hour", first_position(lab, planted.Counted, 1))


def test_chance_is_found_where_it_is_used_and_not_before(lab: el.Lab) -> None:
    found = checked(lab, planted.Dice).divergence
    assert found is not None
    assert (found.field, found.position) == ("eyes", first_position(lab, planted.Counted, 11))


def test_a_fold_that_raises_in_every_variant_but_one_is_a_divergence(lab: el.Lab) -> None:
    found = checked(lab, planted.AssertionOnly).divergence
    assert found is not None
    assert (found.position, found.event) == (first_position(lab, planted.Counted, 20), "Counted")
    assert "never more than twenty" in found.before
    assert found.after == "no error"
    assert "python -O" in found.variants[1]
    with pytest.raises(EvolveFailed, match="never more than twenty"):
        lab.table(planted.AssertionOnly)


def test_the_command_of_a_divergence_finds_it_again(lab: el.Lab, capfd: pytest.CaptureFixture[str]) -> None:
    from eventlab.cli import main

    found = checked(lab, planted.ClockReader).divergence
    assert found is not None
    arguments = found.command.split()[1:]
    assert main(arguments) == 1
    said = capfd.readouterr().out
    assert f"parts at position {found.position:,}" in said


def test_a_sample_folds_whole_streams_and_the_same_ones_every_time(lab: el.Lab) -> None:
    reports = [lab.check(planted.Sound, sample=2)[0] for _ in range(2)]
    assert reports[0].events == reports[1].events
    assert 0 < reports[0].events < checked(lab, planted.Sound).events
    assert reports[0].ok


def test_a_check_until_a_position_does_not_see_what_comes_later(lab: el.Lab) -> None:
    before = first_position(lab, planted.Counted, 10) - 1
    assert lab.check(planted.ClockReader, until=before)[0].ok


def test_a_model_that_no_other_process_can_import_is_refused_with_the_way_out(lab: el.Lab) -> None:
    @el.aggregate(name="sound")
    class Local:
        total: int = 0

        def evolve(self, event: planted.Counted) -> Local:
            return self

    with pytest.raises(ModelError, match="move it to a module"):
        lab.check(Local)


def test_a_lab_in_memory_cannot_be_checked_and_says_why() -> None:
    with el.scratch() as lab, pytest.raises(Unsupported, match="fresh processes"):
        lab.check(planted.Sound)


def test_the_variants_differ_from_the_baseline_in_all_they_vary() -> None:
    for variant in VARIANTS:
        assert variant.hash_seed != BASELINE.hash_seed
        assert variant.time_zone != BASELINE.time_zone
        assert variant.batch != BASELINE.batch

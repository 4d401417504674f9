"""A check folds in fresh processes; it finds the first event at which two folds part, and says nothing it did not see."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventlab as el
from eventlab.determinism.check import Checked
from eventlab.determinism.variants import BASELINE, VARIANTS
from eventlab.errors import EvolveFailed, InvalidValue, ModelError, Unsupported

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


@pytest.fixture(scope="module")
def reports(lab: el.Lab) -> dict[str, Checked]:
    """All that is planted, checked at once."""
    models = (
        planted.Sound, planted.ByLabel, planted.SetOrder, planted.ClockReader, planted.ZoneReader, planted.Dice,
        planted.AssertionOnly,
    )  # fmt: skip
    found = lab.check(*models, level="standard")
    return {model.__name__: report for model, report in zip(models, found, strict=True)}


def first_position(lab: el.Lab, kind: type[Any], nth: int) -> int:
    """The position of the nth event of a type, found without any fold."""
    return [e.position for e in lab.read(el.events(kind))][nth - 1]


def test_a_sound_fold_shows_no_divergence_and_the_report_says_what_was_exercised(reports: dict[str, Checked]) -> None:
    for report in (reports["Sound"], reports["ByLabel"]):
        assert report.ok
        assert report.divergence is None
        assert report.events == sum(report.types.values()) > 0
        assert len(report.variants) == len(VARIANTS)
        assert "deterministic" not in str(report)
        assert f"no divergence in {report.events:,} events × {len(VARIANTS)} variants" in str(report)
        assert f"and {len(report.ways)} other ways to fold" in str(report)
        assert {"states stored and read again between events", "the last of every version"} < set(report.ways)
        assert report.versions == {name: [1] for name in report.types}
        assert "a read model that is told of events again" in report.ways
        assert report.details[0].startswith("exercised: ")
        assert all(f"{name} {count:,}" in report.details[0] for name, count in report.types.items())
        assert re.fullmatch(r"level standard, in \d+\.\d s", report.details[-1])
        assert report.touches == ()
        assert report.command == ""
    assert reports["Sound"].never_seen == ("NeverHappened",)


def test_the_order_of_a_set_is_found_at_the_first_event_where_it_shows(lab: el.Lab, reports: dict[str, Checked]) -> None:
    found = reports["SetOrder"].divergence
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


def test_a_look_at_the_clock_is_found_at_its_first_event(lab: el.Lab, reports: dict[str, Checked]) -> None:
    found = reports["ClockReader"].divergence
    assert found is not None
    assert (found.field, found.position) == ("at", first_position(lab, planted.Counted, 10))


def test_the_time_zone_of_the_process_is_found_at_its_first_event(lab: el.Lab, reports: dict[str, Checked]) -> None:
    found = reports["ZoneReader"].divergence
    assert found is not None
    assert (found.field, found.position) == ("hour", first_position(lab, planted.Counted, 1))


def test_chance_is_found_where_it_is_used_and_not_before(lab: el.Lab, reports: dict[str, Checked]) -> None:
    found = reports["Dice"].divergence
    assert found is not None
    assert (found.field, found.position) == ("eyes", first_position(lab, planted.Counted, 11))


def test_a_fold_that_raises_in_every_variant_but_one_is_a_divergence(lab: el.Lab, reports: dict[str, Checked]) -> None:
    found = reports["AssertionOnly"].divergence
    assert found is not None
    assert (found.position, found.event) == (first_position(lab, planted.Counted, 20), "Counted")
    assert "never more than twenty" in found.before
    assert found.after == "no error"
    assert "python -O" in found.variants[1]
    with pytest.raises(EvolveFailed, match="never more than twenty"):
        lab.table(planted.AssertionOnly)


def test_the_conditions_that_part_two_folds_are_named(reports: dict[str, Checked]) -> None:
    alone = {name: report.divergence.alone for name, report in reports.items() if report.divergence is not None}
    assert alone["SetOrder"] == ("the hash seed (4242)",)
    assert alone["ZoneReader"] == ("the time zone (Pacific/Kiritimati)",)
    assert alone["ClockReader"] == alone["Dice"] == ("nothing: it differs from run to run",)
    assert "what parts them: the hash seed" in str(reports["SetOrder"])


def test_what_a_fold_touches_is_seen_with_the_line_and_the_event(lab: el.Lab, reports: dict[str, Checked]) -> None:
    (clock,), (dice,) = reports["ClockReader"].touches, reports["Dice"].touches
    assert (clock.what, clock.event) == ("calls datetime.now()", "Counted")
    assert clock.position == first_position(lab, planted.Counted, 10)
    assert dice.what == "draws from the random numbers of the process"
    assert dice.position == first_position(lab, planted.Counted, 11)
    assert Path(clock.place.partition(":")[0]).name == "models.py"


def test_the_command_of_a_divergence_finds_it_again(
    lab: el.Lab, reports: dict[str, Checked], capfd: pytest.CaptureFixture[str]
) -> None:
    from eventlab.cli import main

    found = reports["ClockReader"].divergence
    assert found is not None
    arguments = found.command.replace("--level standard", "--level quick").split()[1:]
    assert main(arguments) == 1
    said = capfd.readouterr().out
    assert f"parts at position {found.position:,}" in said


def test_a_sample_folds_whole_streams_and_the_same_ones_every_time(lab: el.Lab) -> None:
    found = [lab.check(planted.Sound, level="quick", sample=2)[0] for _ in range(2)]
    assert found[0].events == found[1].events
    assert 0 < found[0].events < lab.check(planted.Sound, level="quick")[0].events
    assert found[0].ok
    assert "(one stream in 2)" in str(found[0])


def test_a_check_until_a_position_does_not_see_what_comes_later(lab: el.Lab) -> None:
    before = first_position(lab, planted.Counted, 10) - 1
    assert lab.check(planted.ClockReader, level="quick", until=before)[0].ok


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


# -- folds that come to no end, or act on the world


@pytest.fixture(scope="module")
def unruly(lab: el.Lab) -> dict[str, Checked]:
    models = (
        planted.Hangs, planted.Eats, planted.Exits, planted.Dies, planted.Raises, planted.Prints, planted.Forks,
        planted.AsksALibrary, planted.Sound,
    )  # fmt: skip
    found = lab.check(*models, level="quick", patience=4, memory=600 << 20)
    return {model.__name__: report for model, report in zip(models, found, strict=True)}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Hangs", "hangs (nothing came of one event in 4 s)"),
        ("Eats", "GiB of memory (of 0.6 that it may)"),
        ("Exits", "ends its process with SystemExit(7)"),
        ("Dies", "ends its process with signal 9"),
    ],
)
def test_a_fold_that_comes_to_no_end_is_reported_with_the_event(
    lab: el.Lab, unruly: dict[str, Checked], name: str, said: str
) -> None:
    stopped = unruly[name].stopped
    assert stopped is not None
    assert not unruly[name].ok
    assert said in stopped.what
    assert (stopped.position, stopped.event) == (first_position(lab, planted.Counted, 5), "Counted")
    assert f"at position {stopped.position:,} (Counted" in str(unruly[name])


def test_a_fold_that_raises_whatever_the_conditions_is_no_clean_bill(lab: el.Lab, unruly: dict[str, Checked]) -> None:
    report = unruly["Raises"]
    assert not report.ok
    assert report.divergence is None
    assert "raises: Raises.evolve failed on Counted" in str(report)


def test_the_others_are_checked_all_the_same(unruly: dict[str, Checked]) -> None:
    assert unruly["Sound"].ok
    assert unruly["Sound"].touches == ()


def test_what_a_fold_prints_or_forks_is_seen_and_does_not_spoil_the_answers(lab: el.Lab, unruly: dict[str, Checked]) -> None:
    (prints,) = unruly["Prints"].touches
    assert unruly["Prints"].ok
    assert prints.what == "prints 'counted 15'"
    assert prints.position == first_position(lab, planted.Counted, 5)
    forks = {touch.what: touch.position for touch in unruly["Forks"].touches}
    assert forks == dict.fromkeys(("does os.fork", "forks its process"), prints.position)


def test_the_sensor_sees_into_libraries(unruly: dict[str, Checked]) -> None:
    touched = {touch.what for touch in unruly["AsksALibrary"].touches}
    assert "makes an id from the clock" in touched or "calls os.urandom()" in touched
    assert any(what.startswith("opens '/etc/hostname'") for what in touched)
    assert "reads os.environ" in touched


def test_what_a_state_hides_from_its_stored_form_parts_the_other_ways(lab: el.Lab) -> None:
    report, sums, claims = lab.check(planted.KeepsAZone, planted.Sums, planted.ClaimsInVain)
    # A claim that the order does not matter is held to.
    assert sums.ok
    assert "the events in another order" in sums.ways
    assert claims.parted is not None
    assert (claims.parted.way, claims.parted.field) == ("the events in another order", "last")
    assert report.divergence is None
    assert report.parted is not None
    assert not report.ok
    assert f"See it again: {report.command}" in str(report)
    assert "the loop" in [why.partition(":")[0] for why in report.skipped]
    assert (report.parted.way, report.parted.field) == ("states stored and read again between events", "hours")
    first = report.parted.position
    assert lab.check(planted.KeepsAZone, until=first - 1)[0].parted is None
    with pytest.raises(InvalidValue, match="level='fast'"):
        lab.check(planted.Sound, level="fast")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="sample=0"):
        lab.check(planted.Sound, sample=0)


def test_workers_end_with_their_parent(lab: el.Lab, tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
import models as planted, eventlab as el
with el.open({str(lab.store.root)!r}, maintain=False) as lab:
    print("begun", flush=True)
    lab.check(planted.Hangs, level="quick", patience=1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        children = Path(f"/proc/{process.pid}/task")
        eventually(lambda: hanging(children) != [])
        found = hanging(children)
        process.kill()
    eventually(lambda: not any(alive(pid) for pid in found))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hanging(children: Path) -> list[str]:
    return [pid for task in children.iterdir() for pid in (task / "children").read_text().split()]


def test_a_quick_check_finds_the_first_event_though_it_looks_at_one_state_in_eight(
    lab: el.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlab.determinism.check.SHORT", 0)
    monkeypatch.setattr("eventlab.determinism.check.CHECKPOINT_EVERY", 2)
    found = lab.check(planted.ClockReader, level="quick")[0].divergence
    assert found is not None
    assert (found.field, found.position) == ("at", first_position(lab, planted.Counted, 10))


def test_a_quick_check_of_a_long_log_takes_a_sample(lab: el.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventlab.determinism.check.QUICK_EVENTS", 30)
    report = lab.check(planted.Sound, level="quick")[0]
    assert report.sample == 2
    assert lab.check(planted.Sound, level="quick", sample=1)[0].sample == 1


def test_the_variants_differ_from_the_baseline_in_all_they_vary() -> None:
    for variant in VARIANTS:
        assert variant.hash_seed != BASELINE.hash_seed
        assert variant.time_zone != BASELINE.time_zone
        assert variant.batch != BASELINE.batch


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)

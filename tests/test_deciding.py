"""Deciding on any events: one seat has one winner, and whoever lost sees what came in between."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventlab as el
from eventlab.errors import InvalidValue, Refused

ROOT = Path(__file__).resolve().parents[1]


@el.event
class SeatBooked:
    """Someone took a seat of the course."""

    course: el.Tag[str]
    student: el.Tag[str]


@el.event
class CourseRenamed:
    """The course has another title."""

    course: el.Tag[str]
    title: str


def seats(course: str) -> el.Filter:
    return el.events(SeatBooked) & el.tag(course=course)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "store") as made:
        yield made


def book(lab: el.Lab, student: str, limit: int = 2) -> tuple[int, ...]:
    with lab.decide_on(seats("c1")) as seen:
        if len(seen) >= limit:
            raise el.Rejected("the course is full")
        seen.append("course-c1", SeatBooked("c1", student))
    return seen.done.positions


def test_a_decision_sees_what_its_filter_picks_and_appends_at_its_end(lab: el.Lab) -> None:
    lab.append("course-c2", [SeatBooked("c2", "ann")])
    lab.append("course-c1", [CourseRenamed("c1", "Logic")])
    assert book(lab, "ann") == (3,)
    with lab.decide_on(seats("c1")) as seen:
        assert [event.data for event in seen] == [SeatBooked("c1", "ann")]
        assert (len(seen), seen[0].position, seen.head) == (1, 3, 3)
        seen.append("course-c1", SeatBooked("c1", "bob"))
        seen.append("student-bob", CourseRenamed("c1", "Logic I"))
        assert lab.head == 3, "nothing is stored before the block ends"
    assert seen.done.positions == (4, 5)


def test_a_rule_that_says_no_stores_nothing(lab: el.Lab) -> None:
    book(lab, "ann")
    book(lab, "bob")
    with pytest.raises(el.Rejected, match="full"):
        book(lab, "cleo")
    assert lab.head == 2


def test_an_error_in_the_block_stores_nothing(lab: el.Lab) -> None:
    with pytest.raises(ZeroDivisionError), lab.decide_on(seats("c1")) as seen:
        seen.append("course-c1", SeatBooked("c1", "ann"))
        raise ZeroDivisionError
    assert lab.head == 0


def test_a_block_that_appends_nothing_is_only_a_read(lab: el.Lab) -> None:
    with lab.decide_on(seats("c1")) as seen:
        pass
    assert seen.done.positions == ()


def test_who_lost_a_race_gets_the_events_that_came_between(lab: el.Lab) -> None:
    with pytest.raises(el.Conflict) as lost, lab.decide_on(seats("c1")) as seen:
        lab.append("course-c1", [CourseRenamed("c1", "Logic"), SeatBooked("c1", "bob")])
        seen.append("course-c1", SeatBooked("c1", "ann"))
    assert [event.data for event in lost.value.events] == [SeatBooked("c1", "bob")]
    assert lab.head == 2


def test_other_events_in_between_do_not_matter(lab: el.Lab) -> None:
    with lab.decide_on(seats("c1")) as seen:
        lab.append("course-c2", [SeatBooked("c2", "bob")])
        lab.append("course-c1", [CourseRenamed("c1", "Logic")])
        seen.append("course-c1", SeatBooked("c1", "ann"))
    assert seen.done.positions == (3,)


def test_decide_reads_and_decides_again_on_a_lost_race(lab: el.Lab) -> None:
    runs = []

    def choose(seen: object) -> None:
        runs.append(len(seen))  # type: ignore[arg-type]
        if len(runs) == 1:
            lab.append("course-c1", [SeatBooked("c1", "bob")])
        seen.append("course-c1", SeatBooked("c1", "ann"))  # type: ignore[attr-defined]

    assert lab.decide(seats("c1"), choose).positions == (2,)
    assert runs == [0, 1]

    def lose(seen: object) -> None:
        lab.append("course-c1", [SeatBooked("c1", "bob")])
        seen.append("course-c1", SeatBooked("c1", "ann"))  # type: ignore[attr-defined]

    with pytest.raises(el.Conflict):
        lab.decide(seats("c1"), lose)


def test_append_takes_a_condition_and_refuses_what_is_none(lab: el.Lab) -> None:
    lab.append("course-c1", [SeatBooked("c1", "ann")], condition=(seats("c1"), 0))
    with pytest.raises(el.Conflict):
        lab.append("course-c1", [SeatBooked("c1", "bob")], condition=(seats("c1"), 0))
    for wrong in ((seats("c1"),), (seats("c1"), -1), ("c1", 0), (seats("c1"), True)):
        with pytest.raises(el.EventlabError, match="is not a filter and a position"):
            lab.append("course-c1", [SeatBooked("c1", "bob")], condition=wrong)  # type: ignore[arg-type]


def test_of_threads_that_race_for_two_seats_two_win(lab: el.Lab) -> None:
    begin, won = threading.Barrier(6), []

    def race(i: int) -> None:
        begin.wait()
        for _ in range(20):
            try:
                won.append(book(lab, f"s{i}"))
            except el.Conflict:
                continue
            except el.Rejected:
                return
            return

    threads = [threading.Thread(target=race, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 2
    assert len(lab.read(seats("c1")).list()) == 2


def test_of_processes_that_race_for_one_seat_one_wins_a_hundred_times(tmp_path: Path) -> None:
    with el.open(tmp_path / "store"):
        pass
    script = """
        import sys
        import eventlab as el
        from tests.test_deciding import SeatBooked, seats
        with el.open(sys.argv[1]) as lab:
            print("ready", flush=True)
            for course in map(str.strip, sys.stdin):
                while True:
                    try:
                        with lab.decide_on(seats(course)) as seen:
                            if not seen:
                                seen.append(f"course-{course}", SeatBooked(course, sys.argv[2]))
                        print("won" if seen.done.positions else "full", flush=True)
                        break
                    except el.Conflict:
                        continue
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen([*command, f"s{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        for i in range(3)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for race in range(100):
        for racer in racers:
            assert racer.stdin
            racer.stdin.write(f"c{race}\n")
            racer.stdin.flush()
        assert sorted(racer.stdout.readline().strip() for racer in racers if racer.stdout) == ["full", "full", "won"]
    for racer in racers:
        racer.communicate(timeout=60)
        assert racer.returncode == 0
    with el.open(tmp_path / "store") as lab:
        assert lab.sql("select count(*), count(distinct course) from types.seat_booked").row(0) == (100, 100)


def test_what_a_decision_would_lose_is_refused(lab: el.Lab) -> None:
    picked = el.stream("lost-1")

    def yields(seen: Any) -> Any:
        yield "an event"

    with pytest.raises(InvalidValue, match="yields yields, and what a decision appends is said to it"):
        lab.decide(picked, yields)
    with pytest.raises(InvalidValue, match=r"<lambda> gave \[1\]"):
        lab.decide(picked, lambda seen: [1])
    with pytest.raises(InvalidValue, match="was given no stream"), lab.decide_on(picked) as seen:
        seen.append(object())
    with pytest.raises(InvalidValue, match="was given no event for 'lost-1'"), lab.decide_on(picked) as seen:
        seen.append("lost-1")
    with lab.decide_on(picked) as seen:
        pass
    with pytest.raises(Refused, match="this decision has ended"):
        seen.append("lost-1", object())
    for attempts in (0, 1.5, "x", True):
        with pytest.raises(InvalidValue, match="is not a number of times"):
            lab.decide(picked, lambda seen: None, attempts=attempts)  # type: ignore[arg-type]
    assert lab.head == 0

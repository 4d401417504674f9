"""Rules that no single stream can keep: an e-mail address that is used once, and a course with so many seats.

Each decision reads exactly the events that it rests on, picked by their tags, and is stored unless more of them came in
between. Others call this a dynamic consistency boundary; it needs no aggregate of all members, and no lock.
`tests/domains/test_registration.py` shows the four kinds of test.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import polars as pl

import eventlab as el
from eventlab.commands import Decision
from eventlab.store.base import Appended

#: No student takes more courses than this at once.
MOST_COURSES = 5

# -- events ----------------------------------------------------------------------------------------------------------------


@el.event
class MemberRegistered:
    """Somebody became a member, under an e-mail address."""

    email: el.Tag[str]
    name: str


@el.event
class EmailChanged:
    """A member took another address; the old one is free again."""

    old: str
    email: el.Tag[str]


@el.event
class CourseOffered:
    """A course can be booked."""

    course: el.Tag[str]
    seats: int


@el.event
class SeatReserved:
    """A student took a seat in a course."""

    course: el.Tag[str]
    student: el.Tag[str]


@el.event
class SeatReleased:
    """A student gave a seat back."""

    course: el.Tag[str]
    student: el.Tag[str]


# -- an address is used once -----------------------------------------------------------------------------------------------


def register(lab: el.Lab, member: str, email: str, name: str, *, attempts: int = 10) -> Appended:
    """Register a member under an address that nobody else uses now."""
    address = email.strip().casefold()

    def decide(seen: Decision) -> None:
        if _holder(seen, address) is not None:
            raise el.Rejected(f"{address} is used by somebody else")
        seen.append(f"member-{member}", MemberRegistered(address, name))

    return lab.decide(_about(address), decide, attempts=attempts)


def change_email(lab: el.Lab, member: str, email: str, *, attempts: int = 10) -> Appended:
    """Give a member another address, that nobody else uses now."""
    address = email.strip().casefold()

    def decide(seen: Decision) -> None:
        old = next((event.data.email for event in reversed(seen) if event.id == member), None)
        if old is None:
            raise el.Rejected(f"there is no member {member}")
        if _holder(seen, address) not in (None, member):
            raise el.Rejected(f"{address} is used by somebody else")
        # Tagged with both addresses: whoever asks about the old one has to see that it is free.
        seen.append(f"member-{member}", el.new(EmailChanged(old, address), tags=[f"email:{old}"]))

    return lab.decide(_about(address) | el.stream(f"member-{member}"), decide, attempts=attempts)


def _about(address: str) -> el.Filter:
    return el.events(MemberRegistered, EmailChanged) & el.tag(email=address)


def _holder(seen: Decision, address: str) -> str | None:
    """Whose address it is, by the events about it."""
    holder = None
    for event in seen:
        if event.data.email == address:
            holder = event.id
        elif isinstance(event.data, EmailChanged) and event.data.old == address and holder == event.id:
            holder = None
    return holder


# -- a course has so many seats, a student so many courses -----------------------------------------------------------------


def offer(lab: el.Lab, course: str, seats: int) -> Appended:
    """Offer a course."""
    return lab.append(f"course-{course}", [CourseOffered(course, seats)], expected=0)


def book(lab: el.Lab, course: str, student: str, *, attempts: int = 10) -> Appended:
    """Take one of the seats of a course: the rule is about the course's events and about the student's, and no others."""

    def decide(seen: Decision) -> None:
        seats = next((event.data.seats for event in seen if isinstance(event.data, CourseOffered)), None)
        if seats is None:
            raise el.Rejected(f"there is no course {course}")
        taken: set[tuple[str, str]] = set()
        for event in seen:
            match event.data:
                case SeatReserved(course=of, student=by):
                    taken.add((of, by))
                case SeatReleased(course=of, student=by):
                    taken.discard((of, by))
        if (course, student) in taken:
            raise el.Rejected(f"{student} has a seat in {course}")
        if sum(of == course for of, _ in taken) >= seats:
            raise el.Rejected(f"the course {course} is full")
        if sum(by == student for _, by in taken) >= MOST_COURSES:
            raise el.Rejected(f"{student} takes {MOST_COURSES} courses already")
        seen.append(f"course-{course}", SeatReserved(course, student))

    of_course = el.events(CourseOffered, SeatReserved, SeatReleased) & el.tag(course=course)
    of_student = el.events(SeatReserved, SeatReleased) & el.tag(student=student)
    return lab.decide(of_course | of_student, decide, attempts=attempts)


def release(lab: el.Lab, course: str, student: str, *, attempts: int = 10) -> Appended:
    """Give a seat back."""

    def decide(seen: Decision) -> None:
        if not seen or not isinstance(seen[-1].data, SeatReserved):
            raise el.Rejected(f"{student} has no seat in {course}")
        seen.append(f"course-{course}", SeatReleased(course, student))

    about = el.events(SeatReserved, SeatReleased) & el.tag(course=course) & el.tag(student=student)
    return lab.decide(about, decide, attempts=attempts)


# -- a read model and a question -------------------------------------------------------------------------------------------


@el.projection
class CourseRoll:
    """Who sits in a course, and how many seats it has; it is looked at, and no decision rests on it."""

    seats: int = 0
    students: frozenset[str] = frozenset()

    @staticmethod
    def key(event: CourseOffered | SeatReserved | SeatReleased) -> str:
        return event.course

    def evolve(self, event: CourseOffered | SeatReserved | SeatReleased) -> Self:
        match event:
            case CourseOffered(seats=seats):
                return replace(self, seats=seats)
            case SeatReserved(student=student):
                return replace(self, students=self.students | {student})
            case SeatReleased(student=student):
                return replace(self, students=self.students - {student})
        return self


@el.query
class FreeCourses:
    """The courses with a seat left for a student, the emptiest first."""

    student: str

    def answer(self, lab: el.Lab) -> pl.DataFrame:
        left = pl.col("seats") - pl.col("students").list.len().cast(pl.Int64)
        mine = pl.col("students").list.contains(self.student)
        rolls = lab.table(CourseRoll).with_columns(left=left).filter((pl.col("left") > 0) & ~mine)
        return rolls.select("_id", "left").sort("left", "_id", descending=[True, False])

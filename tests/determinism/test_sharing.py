"""Changes in place are found by whatever name the state and the event go; what is fresh may be changed at will."""

from __future__ import annotations

import bisect
import copy
import heapq
import operator
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import pytest

import eventlab as el
from eventlab.determinism.lint import lint


@dataclass(frozen=True)
class Crate:
    fruit: str = ""
    marks: list[str] = field(default_factory=list)

    def add(self, mark: str) -> Crate:
        return replace(self, marks=[*self.marks, mark])


@el.event(name="sharing.FruitPicked")
class FruitPicked:
    """Fruit was picked from a tree."""

    fruit: str
    grams: int
    marks: list[str]
    by_tree: dict[str, list[int]] = el.field(default_factory=dict)


@el.command
class PickFruit:
    """Pick some fruit."""

    fruit: str
    marks: list[str]


def orchard(evolve: Any, decide: Any = None) -> type[Any]:
    class Orchard:
        """Trees that bear fruit."""

        d: dict[str, int] = el.field(default_factory=dict)
        xs: list[str] = el.field(default_factory=list)
        log: tuple[str, ...] = ()
        seen: frozenset[str] = frozenset()
        by: dict[str, list[int]] = el.field(default_factory=dict)
        crate: Crate = Crate()
        crates: dict[str, Crate] = el.field(default_factory=dict)
        n: int = 0

        def add(self, fruit: str) -> Self:
            return replace(self, log=(*self.log, fruit))

    Orchard.evolve = evolve  # type: ignore[attr-defined]
    if decide is not None:
        Orchard.decide = decide  # type: ignore[attr-defined]
    return el.aggregate(name="sharing_orchard")(Orchard)


# -- what changes the state or the event: the marked line is the one to be named


def through_a_name(self: Any, event: FruitPicked) -> Any:
    d = self.d
    d[event.fruit] = event.grams  # found
    return replace(self, d=d)


def through_two_names(self: Any, event: FruitPicked) -> Any:
    d = e = self.d
    f: Any = e
    f.update({"a": 1})  # found
    return replace(self, d=d)


def through_names_in_a_tuple(self: Any, event: FruitPicked) -> Any:
    d, n = self.d, self.n + 1
    d[event.fruit] = n  # found
    return self


def through_a_loop(self: Any, event: FruitPicked) -> Any:
    for counts in self.by.values():
        counts.append(1)  # found
    return self


def through_a_loop_of_pairs(self: Any, event: FruitPicked) -> Any:
    for _, counts in self.by.items():  # noqa: PERF102
        counts[0] = 1  # found
    return self


def through_zip_and_enumerate(self: Any, event: FruitPicked) -> Any:
    for n, counts in enumerate(self.by.values()):
        for other, more in zip([n], self.by.values(), strict=False):
            more += [n, other]  # found
            _ = counts
    return self


def inside_of_a_copy(self: Any, event: FruitPicked) -> Any:
    by = dict(self.by)
    by["a"].append(1)  # found
    return replace(self, by=by)


def inside_of_another_copy(self: Any, event: FruitPicked) -> Any:
    by = {**self.by, "b": [1]}
    by["b"].append(1)
    by["a"].append(1)  # found
    return replace(self, by=by)


def what_setdefault_gives(self: Any, event: FruitPicked) -> Any:
    by = self.by.copy()
    by.setdefault(event.fruit, []).append(1)  # found
    return replace(self, by=by)


def inside_of_a_default_dict(self: Any, event: FruitPicked) -> Any:
    by = defaultdict(list, self.by)
    by[event.fruit] += [1]  # found
    return replace(self, by=dict(by))


def in_place_by_an_operator(self: Any, event: FruitPicked) -> Any:
    d = self.d
    d |= {event.fruit: 1}  # found
    return replace(self, d=d)


def in_place_by_the_declared_type(self: Any, event: FruitPicked) -> Any:
    xs = self.xs
    xs += event.marks  # found
    return replace(self, xs=xs)


def by_setattr(self: Any, event: FruitPicked) -> Any:
    setattr(self, "n", 1)  # noqa: B010 found
    return self


def by_setattr_of_object(self: Any, event: FruitPicked) -> Any:
    object.__setattr__(self, "n", 1)  # found
    return self


def by_its_dict(self: Any, event: FruitPicked) -> Any:
    vars(self)["n"] = 1  # found
    return self


def by_its_dict_again(self: Any, event: FruitPicked) -> Any:
    self.__dict__.update(n=1)  # found
    return self


def by_the_method_of_the_type(self: Any, event: FruitPicked) -> Any:
    dict.update(self.d, {event.fruit: 1})  # found
    return self


def by_append_of_list(self: Any, event: FruitPicked) -> Any:
    list.append(self.xs, event.fruit)  # found
    return self


def by_a_function(self: Any, event: FruitPicked) -> Any:
    operator.setitem(self.d, "a", 1)  # found
    return self


def by_a_heap(self: Any, event: FruitPicked) -> Any:
    xs = self.xs
    heapq.heappush(xs, event.fruit)  # found
    return self


def by_a_sorted_list(self: Any, event: FruitPicked) -> Any:
    bisect.insort(self.xs, event.fruit)  # found
    return self


def through_the_event(self: Any, event: FruitPicked) -> Any:
    event.marks.append("seen")  # found
    return replace(self, xs=event.marks)


def through_the_event_in_the_state(self: Any, event: FruitPicked) -> Any:
    new = replace(self, xs=event.marks)
    new.xs.append("seen")  # found
    return new


def through_what_was_replaced(self: Any, event: FruitPicked) -> Any:
    new = replace(self, n=1)
    new.d["a"] = 1  # found
    return new


def through_a_match(self: Any, event: FruitPicked) -> Any:
    match event:
        case FruitPicked(fruit="plum", marks=[first, *rest]):
            rest.append(first)
        case FruitPicked(by_tree=by):
            by["a"] = []  # found
    return self


def through_a_match_of_both(self: Any, event: FruitPicked) -> Any:
    match (dict(self.d), event):
        case (d, FruitPicked(marks=marks)):
            d["a"] = 1
            marks.clear()  # found
    return self


def on_one_of_two_ways(self: Any, event: FruitPicked) -> Any:
    d = self.d
    if event.grams > 10:
        d = dict(d)
    d["a"] = 1  # found
    return replace(self, d=d)


def in_the_second_round(self: Any, event: FruitPicked) -> Any:
    xs: list[str] = []
    for mark in event.marks:
        xs.append(mark)  # found
        xs = self.xs
    return self


def after_a_break(self: Any, event: FruitPicked) -> Any:
    xs: list[str] = []
    for _ in event.marks:
        xs = self.xs
        break
    xs.append("a")  # found
    return self


def in_a_lambda(self: Any, event: FruitPicked) -> Any:
    add = lambda x: self.xs.append(x)  # noqa: E731 found
    return replace(self, n=1) if add("a") else self


def in_a_function_inside(self: Any, event: FruitPicked) -> Any:
    xs = self.xs

    def add(mark: str) -> None:
        xs.append(mark)  # found

    add("a")
    return self


def in_a_comprehension(self: Any, event: FruitPicked) -> Any:
    return replace(self, n=len([counts.append(1) for counts in self.by.values()]))  # found


def one_or_the_other(self: Any, event: FruitPicked) -> Any:
    xs = self.xs if event.grams else []
    ys = cast("list[str]", xs or [])
    ys.append("a")  # found
    return self


def by_a_walrus(self: Any, event: FruitPicked) -> Any:
    if (xs := self.xs) and event.grams:
        xs.pop()  # found
    return self


def within_a_record(self: Any, event: FruitPicked) -> Any:
    crate = self.crate
    crate.marks.append("a")  # found
    return self


def taken_out(self: Any, event: FruitPicked) -> Any:
    d = self.d
    del d[event.fruit]  # found
    return self


def the_largest_of_them(self: Any, event: FruitPicked) -> Any:
    longest = max(self.by.values(), key=len)
    longest.append(1)  # found
    return self


def in_a_try(self: Any, event: FruitPicked) -> Any:
    try:
        xs = self.xs
    except KeyError:
        xs = []
    else:
        xs.append("a")  # found
    finally:
        pass
    return self


CHANGES = [
    through_a_name, through_two_names, through_names_in_a_tuple, through_a_loop, through_a_loop_of_pairs,
    through_zip_and_enumerate, inside_of_a_copy, inside_of_another_copy, what_setdefault_gives, inside_of_a_default_dict,
    in_place_by_an_operator, in_place_by_the_declared_type, by_setattr, by_setattr_of_object, by_its_dict, by_its_dict_again,
    by_the_method_of_the_type, by_append_of_list, by_a_function, by_a_heap, by_a_sorted_list, through_the_event,
    through_the_event_in_the_state, through_what_was_replaced, through_a_match, through_a_match_of_both, on_one_of_two_ways,
    in_the_second_round, after_a_break, in_a_lambda, in_a_function_inside, in_a_comprehension, one_or_the_other, by_a_walrus,
    within_a_record, taken_out, the_largest_of_them, in_a_try,
]  # fmt: skip


@pytest.mark.parametrize("evolve", CHANGES, ids=lambda of: of.__name__)
def test_a_change_in_place_is_found_by_whatever_name(evolve: Any) -> None:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    first = evolve.__code__.co_firstlineno
    marked = next(at for at, line in enumerate(lines[first - 1 :], first) if line.endswith("found"))
    assert [(one.code, one.line) for one in lint(orchard(evolve))] == [("R7", marked)]


def test_where_a_name_comes_from_is_said() -> None:
    (found,) = lint(orchard(through_a_loop))
    assert found.said == "evolve changes counts in place: .append() (counts comes from self.by)"
    (found,) = lint(orchard(through_a_name))
    assert found.said == "evolve puts something into d[event.fruit] (d comes from self.d)"
    (found,) = lint(orchard(through_the_event))
    assert found.said == "evolve changes event.marks in place: .append()"


# -- what is sound


def copies(self: Any, event: FruitPicked) -> Any:
    d, e, f = dict(self.d), {**self.d}, self.d.copy()
    d["a"], e["a"] = 1, 2
    f.update(d | e)
    xs, ys, zs = list(self.xs), [*event.marks], sorted(self.xs)
    xs.append("a")
    ys += zs
    zs.extend(xs[1:])
    rest = self.xs[1:]
    rest.append("b")
    return replace(self, d=f, xs=xs + ys + rest)


def other_copies(self: Any, event: FruitPicked) -> Any:
    deep, shallow, queue = copy.deepcopy(self.by), copy.copy(self.d), deque(self.xs)
    deep["a"].append(1)
    shallow["a"] = 1
    queue.appendleft("a")
    both = list(chain(self.xs, event.marks))
    both.sort()
    return replace(self, by=deep, d=shallow, xs=[*queue, *both])


def copies_down_to_the_ground(self: Any, event: FruitPicked) -> Any:
    by = {tree: list(counts) for tree, counts in self.by.items()}
    for counts in by.values():
        counts.append(1)
    by["a"].append(1)
    by.setdefault("b", []).append(2)
    return replace(self, by=by)


def puts_something_new_there(self: Any, event: FruitPicked) -> Any:
    by = dict(self.by)
    by[event.fruit] = [*by.get(event.fruit, ()), event.grams]
    by[event.fruit].append(2)
    new = replace(self, by=dict(self.by), xs=[])
    new.by["a"] = [1]
    new.xs.append("a")
    return replace(new, by=by)


def bound_anew(self: Any, event: FruitPicked) -> Any:
    d = self.d
    n = len(d)
    d = {}
    d["a"] = n
    for d in ([1], [2]):
        d.append(3)
    return self


def copied_on_both_ways(self: Any, event: FruitPicked) -> Any:
    d = self.d
    if event.grams > 10:
        d = dict(d)
    elif event.grams > 5:
        d = {}
    else:
        return self
    d["a"] = 1
    return replace(self, d=d)


def copied_in_every_case(self: Any, event: FruitPicked) -> Any:
    xs = self.xs
    match event:
        case FruitPicked(fruit="plum"):
            xs = list(xs)
        case _:
            return self
    xs.append("a")
    return replace(self, xs=xs)


def rebinds_what_cannot_change(self: Any, event: FruitPicked) -> Any:
    log, seen, n, name = self.log, self.seen, self.n, event.fruit
    log += (event.fruit,)
    seen |= {event.fruit}
    n += 1
    name += "!"
    match event:
        case FruitPicked(fruit=fruit, grams=grams):
            grams += 1
            fruit += "?"
    for tree in self.by:
        tree += "!"
    return replace(self, log=log, seen=seen, n=n + grams)


def has_methods_of_its_own(self: Any, event: FruitPicked) -> Any:
    crates = {**self.crates, event.fruit: self.crate.add("a")}
    for crate in self.crates.values():
        crates[crate.fruit] = crate.add("b")
    return replace(self, crate=self.crate.add("a"), crates=crates).add(event.fruit) if event.grams else self.add("b")


def holds_things_of_its_own(self: Any, event: FruitPicked) -> Any:
    found = {"all": self.by, "new": []}
    found["new"].append(1)
    pair = (self.xs, [1])
    pair[1].append(2)
    new: list[int] = []
    for counts, mine in zip(self.by.values(), [[1], [2]], strict=False):
        mine.append(len(counts))
        new.append(len(counts))
    groups: dict[str, list[str]] = {}
    for mark in event.marks:
        groups.setdefault(mark[:1], []).append(mark)
    acc = defaultdict(list)
    for mark in self.xs:
        acc[mark].append(mark)
    return replace(self, n=len(found) + len(groups) + sum(new))


def sums_inside_of_a_copy(self: Any, event: FruitPicked) -> Any:
    d = dict(self.d)
    d[event.fruit] = d.get(event.fruit, 0) + event.grams
    d["all"] += event.grams
    d.pop("none", None)
    return replace(self, d=d)


def with_a_reason_to(self: Any, event: FruitPicked) -> Any:
    d = self.d
    d["a"] = 1  # eventlab: ignore[R7] nobody else holds it
    return replace(self, d=d)


def shadows(self: Any, event: FruitPicked) -> Any:
    xs = self.xs
    made = [xs for xs in ([1], [2])]  # noqa: C416
    add = lambda xs: xs.append(1)  # noqa: E731

    def also(xs: list[int]) -> None:
        xs.append(2)

    also(made[0])
    return replace(self, n=len(made), xs=xs) if add else self


def in_other_ways(self: Any, event: FruitPicked) -> Any:
    xs: list[str] = []
    while len(xs) < 2:
        xs.append("a")
        if event.grams:
            continue
    try:
        d = dict(self.d)
        d["a"] = 1
    except KeyError as why:
        raise el.Rejected("no") from why
    x, *more = event.marks
    more.append(x)
    return replace(self, xs=more, d=d)


SOUND = [
    copies, other_copies, copies_down_to_the_ground, puts_something_new_there, bound_anew, copied_on_both_ways,
    copied_in_every_case, rebinds_what_cannot_change, has_methods_of_its_own, holds_things_of_its_own, sums_inside_of_a_copy,
    with_a_reason_to, shadows, in_other_ways,
]  # fmt: skip


@pytest.mark.parametrize("evolve", SOUND, ids=lambda of: of.__name__)
def test_what_is_fresh_may_be_changed(evolve: Any) -> None:
    assert [str(one) for one in lint(orchard(evolve))] == []


def test_a_decision_changes_neither_the_state_nor_the_command() -> None:
    def decide(self: Any, command: PickFruit) -> Iterator[FruitPicked]:
        xs, marks = self.xs, command.marks
        xs.append(command.fruit)
        marks.sort()
        yield FruitPicked(command.fruit, 1, list(marks))

    found = lint(orchard(copies, decide))
    assert [one.said for one in found] == [
        "decide changes xs in place: .append() (xs comes from self.xs)",
        "decide changes marks in place: .sort() (marks comes from command.marks)",
    ]

"""Lint: each fault is named with its line, by whatever alias it hides; what only looks suspicious is let pass."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import re
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import time as clock
from types import ModuleType
from typing import Any, Self

import pytest

import eventlab as el
from eventlab.cli import main
from eventlab.determinism.lint import RULES, lint
from eventlab.display import html


@el.event(name="lint.LeafDropped")
class LeafDropped:
    """A leaf fell from a tree."""

    tree: str
    grams: float
    colours: tuple[str, ...] = ()


CACHE: dict[str, int] = {}
LIMITS = (15, 60)


def helper_that_asks_the_clock() -> float:
    return clock()


def helper(n: float) -> float:
    return n * 2


def model(evolve: Callable[[Any, Any], Any]) -> type[Any]:
    """A model with this `evolve`."""
    fields = {"n": float, "trees": frozenset[str], "log": tuple[str, ...], "at": dt.datetime | None}

    class Wood:
        """The wood behind the house."""

        n: float = 0.0
        trees: frozenset[str] = frozenset()
        log: tuple[str, ...] = ()
        at: dt.datetime | None = None

        def dropped(self, event: LeafDropped) -> Any:
            return replace(self, n=time.time())

    Wood.evolve = evolve
    Wood.__annotations__ = fields
    return el.aggregate(name="lint_wood")(Wood)


def clock_by_module(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=time.time())


def clock_by_alias(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=clock())


def clock_of_datetime(self: Any, event: LeafDropped) -> Any:
    return replace(self, at=dt.datetime.now(dt.UTC))


def clock_in_a_helper(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=helper_that_asks_the_clock())


def chance(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=random.random())


def fresh_id(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=(*self.log, str(uuid.uuid4())))


def environment(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=(*self.log, os.environ["HOME"]))


def getenv(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=(*self.log, os.getenv("HOME", "")))


def reads_a_file(self: Any, event: LeafDropped) -> Any:
    with open("/etc/hostname") as file:
        return replace(self, log=(*self.log, file.read()))


def prints(self: Any, event: LeafDropped) -> Any:
    print(event)
    return self


def loops_over_a_set(self: Any, event: LeafDropped) -> Any:
    log = self.log
    for tree in self.trees:
        log = (*log, tree)
    return replace(self, log=log)


def lists_a_set(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=tuple(self.trees | {event.tree}))


def joins_a_set(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=(",".join({event.tree, "oak"}),))


def comprehends_a_set(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=tuple([tree for tree in set(self.log)]))  # noqa: C416


def hashes(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=hash(event.tree) % 7)


def mutates_what_it_holds(self: Any, event: LeafDropped) -> Any:
    self.log.append(event.tree)
    return self


def puts_into_the_event(self: Any, event: LeafDropped) -> Any:
    event.tree = "oak"
    return self


def mutates_what_was_matched(self: Any, event: LeafDropped) -> Any:
    match event:
        case LeafDropped(colours=colours):
            colours.sort()
    return self


def writes_a_global(self: Any, event: LeafDropped) -> Any:
    CACHE[event.tree] = 1
    return self


def reads_a_global_dict(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=CACHE.get(event.tree, 0))


def naive(self: Any, event: LeafDropped) -> Any:
    return replace(self, at=dt.datetime(2026, 1, 1))  # noqa: DTZ001


def local_zone(self: Any, event: LeafDropped) -> Any:
    return replace(self, at=dt.datetime.fromtimestamp(event.grams))  # noqa: DTZ006


def sums_floats(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=self.n + event.grams)


LAB = el.scratch()


def looks_around(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=float(LAB.head))


def looks_around_at_a_moment(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=float(MOMENT.head))


def looks_around_in_a_module(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=float(labs.OTHER.head))


def opens_a_lab(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=float(el.scratch().head))


def by_a_method(self: Any, event: LeafDropped) -> Any:
    return self.dropped(event)


labs = ModuleType("labs")
labs.OTHER = LAB  # type: ignore[attr-defined]
MOMENT = LAB.at(position=0)

FAULTY = {
    clock_by_module: "R1", clock_by_alias: "R1", clock_of_datetime: "R1", clock_in_a_helper: "R1", chance: "R2", fresh_id: "R2",
    environment: "R3", getenv: "R3", reads_a_file: "R4", prints: "R4", loops_over_a_set: "R5", lists_a_set: "R5",
    joins_a_set: "R5", comprehends_a_set: "R5", hashes: "R6", mutates_what_it_holds: "R7", puts_into_the_event: "R7",
    mutates_what_was_matched: "R7", writes_a_global: "R8", reads_a_global_dict: "R8", naive: "R9", local_zone: "R9",
    sums_floats: "R10", looks_around: "R11", looks_around_at_a_moment: "R11", looks_around_in_a_module: "R11",
    opens_a_lab: "R11", by_a_method: "R1",
}  # fmt: skip


@pytest.mark.parametrize("evolve", FAULTY, ids=lambda of: of.__name__)
def test_a_fault_is_named_where_it_is(evolve: Any) -> None:
    found = lint(model(evolve))
    assert {one.code for one in found} == {FAULTY[evolve]}, [str(one) for one in found]
    helpers = {clock_in_a_helper: helper_that_asks_the_clock, by_a_method: model(evolve).dropped}
    first = helpers.get(evolve, evolve).__code__.co_firstlineno
    assert all(first < one.line < first + 6 for one in found)
    assert all(Path(one.file).name == "test_lint.py" for one in found)
    assert all(one.why and one.hint and one.code in str(one) for one in found)


def sorts_a_set(self: Any, event: LeafDropped) -> Any:
    return replace(self, log=tuple(sorted(self.trees)))


def counts_a_set(self: Any, event: LeafDropped) -> Any:
    longest = max((len(tree) for tree in self.trees), default=0)
    return replace(self, n=len(self.trees | {event.tree}) + sum(len(tree) for tree in self.trees) + longest)


def any_of_a_set(self: Any, event: LeafDropped) -> Any:
    return self if any(tree == event.tree for tree in self.trees) else replace(self, trees=self.trees | {event.tree})


def changes_a_list_of_its_own(self: Any, event: LeafDropped) -> Any:
    found: list[str] = []
    for colour in event.colours:
        if colour:
            found.append(colour.upper())
            found.sort()
    counts: dict[str, int] = {}
    counts["x"] = 1
    return replace(self, log=tuple(found))


def a_moment_with_a_zone(self: Any, event: LeafDropped) -> Any:
    return replace(self, at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), n=float(Counter(event.colours).total()))


def reads_a_constant(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=helper(event.grams) if event.grams > LIMITS[0] else self.n)


def by_name_only(self: Any, event: LeafDropped) -> Any:
    time, hash_, now = event.grams, event.tree, len(event.colours)
    return replace(self, n=time + now, log=(hash_,))


def with_a_reason(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=self.n + event.grams)  # eventlab: ignore[R10] shown to people, never compared


def with_another_reason(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=float(LAB.head))  # eventlab: ignore[R11] a lab of one constant event


def with_a_lab_by_name_only(self: Any, event: LeafDropped) -> Any:
    LAB = event
    return replace(self, log=(*self.log, LAB.tree))


@pytest.mark.parametrize(
    "evolve",
    [sorts_a_set, counts_a_set, any_of_a_set, changes_a_list_of_its_own, a_moment_with_a_zone, reads_a_constant, by_name_only,
     with_a_reason, with_another_reason, with_a_lab_by_name_only],
    ids=lambda of: of.__name__,
)  # fmt: skip
def test_what_only_looks_suspicious_is_let_pass(evolve: Any) -> None:
    assert [str(one) for one in lint(model(evolve))] == []


def without_a_reason(self: Any, event: LeafDropped) -> Any:
    return replace(self, n=self.n + event.grams)  # eventlab: ignore[R10]


def test_passing_over_takes_a_reason() -> None:
    assert [one.code for one in lint(model(without_a_reason))] == ["R10"]


def test_words_and_references() -> None:
    @el.event(name="lint.Shoe")
    class Shoe:
        sole: str

    @el.command
    class ShoeBought:
        """Buy it."""

    @el.aggregate(name="lint_owner")
    class Owner:
        """Who owns shoes."""

        name: str = ""

        def evolve(self, event: Shoe) -> Self:
            return self

    @el.aggregate(name="lint_rack")
    class Rack:
        owner: Owner | None = None

        def decide(self, command: ShoeBought) -> Iterator[Shoe]:
            yield Shoe("leather")

        def evolve(self, event: Shoe) -> Self:
            return self

    found = lint(Rack)
    assert sorted((one.code, one.name) for one in found) == [
        ("M3", "Rack"), ("N1", "Shoe"), ("N2", "ShoeBought"), ("N3", "Rack"), ("N3", "Shoe"),
    ]  # fmt: skip
    assert "owner holds a Owner" in next(one.said for one in found if one.code == "M3")


@el.event(name="lint.BirdSeen")
class BirdSeen:
    """Somebody saw a bird."""

    kind: str


@el.aggregate(name="lint_bird")
class Bird:
    """A bird that is known."""

    kind: str = ""

    def evolve(self, event: BirdSeen) -> Self:
        return self


@dataclass(frozen=True)
class Nest:
    bird: Bird = field(default_factory=Bird)
    eggs: int = 0


def test_a_state_in_a_list_a_dict_or_a_part_is_a_reference_too() -> None:
    @el.aggregate(name="lint_tree")
    class Tree:
        """A tree with birds."""

        id: str = ""
        birds: tuple[Bird, ...] = ()
        named: dict[str, Bird] = el.field(default_factory=dict)
        flocks: dict[str, list[Bird]] = el.field(default_factory=dict)
        gone: frozenset[Bird] = frozenset()
        last: list[Bird | None] = el.field(default_factory=list)
        nest: Nest = el.field(default_factory=Nest)
        nests: tuple[Nest, ...] = ()
        kept: tuple[Bird, ...] = ()  # eventlab: ignore[M3] never asked for its state
        kinds: tuple[str, ...] = ()
        eggs: dict[str, int] = el.field(default_factory=dict)

        def evolve(self, event: BirdSeen) -> Self:
            return self

    found = lint(Tree)
    assert {one.code for one in found} == {"M3"}
    assert [one.said for one in found] == [
        "birds[] holds a Bird", "named[] holds a Bird", "flocks[][] holds a Bird", "gone[] holds a Bird", "last[] holds a Bird",
        "nest.bird holds a Bird", "nests[].bird holds a Bird",
    ]  # fmt: skip
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert all(lines[one.line - 1].split(":")[0].strip() == re.split(r"\W", one.said)[0] for one in found)


def test_what_nobody_reads_or_decides(tmp_path: Path) -> None:
    (tmp_path / "lonely.py").write_text(
        textwrap.dedent('''
        import eventlab as el

        @el.event
        class NobodyCared:
            "Nobody cared."

        @el.event
        class SomebodyCared:
            "Somebody did."

        @el.command
        class CareForNobody:
            "Care."

        @el.aggregate
        class Carer:
            "Who cares."
            n: int = 0
            def evolve(self, event: SomebodyCared) -> "Carer":
                return Carer(self.n + 1)
        ''')
    )
    command = [Path(sys.executable).parent / "eventlab", "lint", "--models", "lonely", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert {(one["code"], one["name"]) for one in json.loads(done.stdout)} == {("M1", "NobodyCared"), ("M2", "CareForNobody")}


def said_of(tmp_path: Path, name: str, code: str) -> set[tuple[str, str, int]]:
    """Code, name and line of what lint says of a module."""
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
    command = [Path(sys.executable).parent / "eventlab", "lint", "--models", name, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {(one["code"], one["name"], one["line"]) for one in json.loads(done.stdout)}


def test_commands_and_queries_say_what_they_mean(tmp_path: Path) -> None:
    assert said_of(
        tmp_path,
        "silent",
        '''
        import eventlab as el

        @el.event
        class KeyFound:
            "A key was found."

        @el.command
        class FindKey:
            where: str

        @el.command
        class SeekKey:  # eventlab: ignore[N3] only a test sends it
            where: str

        @el.command
        class LookForKey:
            "Have a look."

        @el.query
        class KeysIn:
            where: str
            def answer(self, lab) -> int:
                return 0

        @el.query
        class KeysAt:
            "How many keys are there?"
            where: str
            def answer(self, lab) -> int:
                return 0

        @el.aggregate
        class Keyring:
            "Some keys."
            n: int = 0
            def decide(self, command: FindKey | SeekKey | LookForKey):
                yield KeyFound()
            def evolve(self, event: KeyFound) -> "Keyring":
                return Keyring(self.n + 1)
        ''',
    ) == {("N3", "FindKey", 8), ("N3", "KeysIn", 20)}


def test_a_model_that_does_not_say_what_it_takes_is_named_once(tmp_path: Path) -> None:
    assert said_of(
        tmp_path,
        "unsaid",
        '''
        from typing import Any
        import eventlab as el

        @el.event
        class DoorOpened:
            "A door was opened."

        @el.event
        class DoorForgotten:
            "Nobody evolves it, and nobody can say so."

        @el.command
        class OpenDoor:
            "Open a door."

        @el.aggregate
        class Doors:
            "Takes anything."
            n: int = 0
            def decide(self, command):
                yield DoorOpened()
            def evolve(self, event):
                return Doors(self.n + 1)

        @el.aggregate
        class Doorway:
            "Says no events."
            n: int = 0
            def decide(self, command: OpenDoor):
                yield DoorOpened()
            def evolve(self, event):  # eventlab: ignore[M5] it counts whatever there is
                return Doors(self.n + 1)

        @el.aggregate
        class Everything:
            "Says that it takes all."
            n: int = 0
            def evolve(self, event: Any) -> "Everything":
                return Everything(self.n + 1)
        ''',
    ) == {("M5", "Doors", 23)}


def test_what_a_model_does_not_say_is_named_with_what_to_annotate() -> None:
    @el.aggregate(name="lint_unsaid")
    class Unsaid:
        """Takes anything."""

        n: int = 0

        def decide(self, order):  # type: ignore[no-untyped-def]
            yield order

        def evolve(self, event):  # type: ignore[no-untyped-def]
            return self

    (found,) = lint(Unsaid)
    assert (found.code, found.name) == ("M5", "Unsaid")
    assert found.said == "evolve(event) does not say which events it takes and decide(order) does not say which commands it takes"


def test_a_finding_about_a_class_is_passed_over_at_its_head(tmp_path: Path) -> None:
    assert said_of(
        tmp_path,
        "heads",
        '''
        import eventlab as el

        @el.event  # eventlab: ignore[M1] read by another team
        class LampLit:
            "A lamp was lit."

        @el.event
        class LampOut:  # eventlab: ignore[M1, N1] read by another team
            "A lamp went out."

        @el.event
        class LampBroken:  # eventlab: ignore[M1]
            "Without a reason it is said."

        @el.event
        class LampSeen:
            "A lamp was seen."

        @el.aggregate
        class Lamp:
            "A lamp."
            n: int = 0
            def evolve(self, event: LampSeen) -> "Lamp":
                return Lamp(self.n + 1)
        ''',
    ) == {("M1", "LampBroken", 12)}


def test_the_domains_have_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("flights", "ordering", "banking"):
        assert main(["lint", "--models", f"eventlab.domains.{name}"]) == 0
        assert capsys.readouterr().out == "nothing to say\n"


def test_every_rule_says_why_and_what_instead() -> None:
    assert all(why and hint for why, hint in RULES.values())
    assert set(FAULTY.values()) == {code for code in RULES if code.startswith("R")}


def test_findings_are_drawn() -> None:
    found = lint(model(chance))
    assert "R2" in html.found_html(found)
    assert "nothing to say" in html.found_html([])

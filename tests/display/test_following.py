"""Conversations followed and stores watched, without a browser; and the charts that both draw."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.display import charts
from eventlab.display.following import Follower
from eventlab.display.watching import BUCKETS, Watcher
from eventlab.display.widgets import FollowerView, WatcherView
from eventlab.errors import InvalidValue

SPACE = "{http://www.w3.org/2000/svg}"


@el.event
class ChimeStruck:
    """Somebody rang."""

    how: str = ""


@el.aggregate
class Chime:
    """One chime."""

    rung: int = 0

    def evolve(self, event: ChimeStruck) -> Self:
        return type(self)(self.rung + 1)


def conversation(lab: el.Lab, parents: list[int | None]) -> list[el.Recorded]:
    """An event for each parent: the number of an earlier event, or None for one that was caused from outside."""
    told: list[el.Recorded] = []
    for number, parent in enumerate(parents):
        correlation = told[0].event_id if told else None
        cause = told[parent % len(told)].event_id if told and parent is not None else None
        outside = None if not told else "00000000-0000-4000-8000-000000000001"
        with el.context(correlation_id=correlation, causation_id=cause or outside, actor="ada"):
            lab.append(f"chime-{number % 3}", [ChimeStruck("<b>&" if number % 2 else "")])
        (event,) = lab.read(after=lab.head - 1)
        told.append(event)
    return told


@given(st.lists(st.none() | st.integers(0, 30), min_size=1, max_size=14), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_one_goes_from_cause_to_effect_and_back(parents: list[int | None], nodes: int) -> None:
    with el.scratch(seed=1) as lab:
        told = conversation(lab, parents)
        lab.append("chime-9", [ChimeStruck("elsewhere")])
        # Brute force: each event's cause among those before it.
        cause = {of.position: next((c.position for c in told if c.event_id == of.causation_id), None) for of in told}
        view = Follower(lab, told[-1])
        assert view.state()["at"] == len(told) - 1
        for at, event in enumerate(told):
            assert view.do({"do": "to", "at": at})
            state = view.state()
            assert dict(state["opened"]["fields"]) == {"how": "<b>&" if at % 2 else ""}
            assert state["rows"][at]["position"] == event.position
            assert view.do({"do": "cause"}) == (cause[event.position] is not None)
            assert view.state()["opened"]["position"] == (cause[event.position] or event.position)
            assert view.do({"do": "to", "at": at})
            effects = [position for position, by in cause.items() if by == event.position]
            assert view.do({"do": "effect"}) == bool(effects)
            assert view.state()["opened"]["position"] == (effects[0] if effects else event.position)
        json.dumps(view.state())
        assert all(0 <= row["share"] <= 1 for row in view.state()["rows"])
        assert eval(view.code(), {"lab": lab}).frame.equals(view.trace.frame)
        # The picture: a box for each, none on another, a line for each cause that is drawn too.
        tree = ElementTree.fromstring(charts.causes(view.trace, told[0].position, nodes))
        boxes = [(int(box.get("x", 0)), int(box.get("y", 0))) for box in tree.iter(f"{SPACE}rect")]
        assert len(boxes) == len(set(boxes)) == min(nodes, len(told))
        drawn = {of.position for of in told[:nodes]}
        lines = [path for path in tree.iter(f"{SPACE}path") if path.get("marker-end")]
        assert len(lines) == sum(by in drawn for position, by in cause.items() if position in drawn)
        assert ("not drawn" in ElementTree.tostring(tree, "unicode")) == (nodes < len(told))


def test_a_conversation_grows_and_one_that_is_not_there_is_empty() -> None:
    with el.scratch(seed=1) as lab:
        (first, *_) = conversation(lab, [None])
        view = FollowerView(Follower(lab, str(first.event_id)))
        with el.context(correlation_id=first.event_id, causation_id=first.event_id):
            lab.append("chime-1", [ChimeStruck()])
        assert len(view.state["rows"]) == 1
        assert view.do(do="refresh")
        assert len(view.state["rows"]) == 2
        assert not view.do(do="to", at=2)
        assert view.error == "there is no event 2 (0 to 1)"
        assert not view.do(do="cause")
        assert "it was caused by nothing that is an event here" in view.error
        nobody = Follower(lab, "00000000-0000-4000-8000-00000000000f")
        assert nobody.state()["opened"] is None
        assert not nobody.do({"do": "effect"})
        assert nobody.do({"do": "refresh"})
        assert "<script" not in nobody.html()


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_store_is_watched_while_it_grows_and_a_reader_falls_behind(where: str, tmp_path: Path) -> None:
    now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]

    def clock() -> dt.datetime:
        now[0] += dt.timedelta(minutes=1)
        return now[0]

    lab = el.scratch(seed=1, clock=clock) if where == "memory" else el.open(tmp_path / "chimes", clock=clock, maintain=False)
    with lab:
        empty = Watcher(lab)
        assert empty.state()["readers"] == []
        assert empty.html()
        for number in range(200):
            lab.append(f"chime-{number % 7}", [ChimeStruck()])
        lab.rebuild(Chime)
        view = WatcherView(Watcher(lab))
        assert repr(view.controller) == "Watcher(200 events, 0 of 1 reader behind)"
        counts, begin, end = view.controller._history
        assert sum(counts) == 200
        assert len(counts) <= BUCKETS
        spread = [of.recorded_at for of in lab.read()]
        assert (begin, end) == tuple(f"{of:%Y-%m-%d %H:%M:%S} UTC" for of in (spread[0], spread[-1]))
        lab.append("chime-1", [ChimeStruck()] * 5)
        assert view.do(do="look")
        assert [row[1:6] for row in view.state["readers"]] == [("chime", "read model", "accepted", "200", "5")]
        assert view.state["head"] == 205
        assert view.controller.per_second > 0
        assert sum(view.controller._history[0]) == 200
        assert view.do(do="refresh")
        assert sum(view.controller._history[0]) == 205
        lab.catch_up(Chime)
        assert view.do(do="look")
        assert view.state["readers"][0][5] == "0"
        assert eval(view.code(), {"lab": lab})["lag"].to_list() == [0]
        for name in ("rate", "lag", "history"):
            ElementTree.fromstring(view.state[name])
        assert "A chime" in view.state["lag"]
        assert "who reads, and how far behind" in view.controller.html()


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@given(
    st.lists(st.tuples(NAMES, st.integers(0, 10**9), NAMES), max_size=6), st.lists(st.integers(0, 10**6), max_size=80),
    st.dictionaries(NAMES, st.lists(st.tuples(st.floats(-300, 0), st.floats(0, 1e9)), max_size=9), max_size=6),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_charts_are_pictures_whatever_they_are_given(
    rows: list[tuple[str, int, str]], counts: list[int], series: dict[str, list[tuple[float, float]]]
) -> None:
    bars, columns, lines = charts.bars(rows), charts.columns(counts, "<a>", "&b"), charts.lines(series, "<c>")
    trees = [ElementTree.fromstring(drawn) for drawn in (bars, columns, lines)]
    # As long as they are many, and as high as they are much.
    drawn = [float(of.get("width", 0)) for of in trees[0].iter(f"{SPACE}rect")]
    longest, most = charts.WIDE - 330, max((value for _, value, _ in rows), default=0) or 1
    assert drawn == [pytest.approx(longest * value / most, abs=1) for _, value, _ in rows]
    high = [float(of.get("height", 0)) for of in trees[1].iter(f"{SPACE}rect")]
    assert len(high) == sum(count > 0 for count in counts)
    assert len(list(trees[2].iter(f"{SPACE}polyline"))) == len(series)
    for tree in trees:
        width, height = float(tree.get("width", 0)), float(tree.get("height", 0))
        for of in tree.iter(f"{SPACE}rect"):
            x, y = float(of.get("x", 0)), float(of.get("y", 0))
            assert 0 <= x <= x + float(of.get("width", 0)) <= width
            assert 0 <= y <= y + float(of.get("height", 0)) <= height
        for of in tree.iter(f"{SPACE}polyline"):
            for x, y in re.findall(r"([\d.-]+),([\d.-]+)", of.get("points", "")):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height


def test_a_picture_of_a_page_is_an_image_and_its_text_is_text() -> None:
    drawn = charts.picture(charts.bars([('"><script>', 1, "")]), '"><script>')
    assert "<script" not in drawn
    assert re.fullmatch(r'<img alt="[^"<>]*" style="max-width: 100%" src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]+">', drawn)


def test_many_threads_look_at_once() -> None:
    with el.scratch(seed=1) as lab:
        conversation(lab, [None] * 5)
        view: Any = FollowerView(Follower(lab, next(iter(lab.read()))))
        gestures = [{"do": random.Random(at).choice(["to", "refresh"]), "at": at % 5} for at in range(40)]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda gesture: view.do(**gesture), gestures))


def test_results_say_the_python_that_gives_them_again(tmp_path: Path) -> None:
    with el.open(tmp_path / "chimes", maintain=False) as lab:
        told = conversation(lab, [None, 0, 1])
        lab.append("gong-1", [ChimeStruck("x")])
        space = {"lab": lab, "el": el, "Chime": Chime}
        chosen = el.category("chime") & el.events(ChimeStruck)
        for events in (lab.read(), lab.read(chosen, after=1), lab.read(chosen, until=2, limit=1)):
            again = eval(events.code(), space)
            assert [of.position for of in again] == [of.position for of in events]
        for filter, step in ((el.events(), None), (chosen, "how")):
            found = lab.discover(filter, step=step)
            again = eval(found.code(), space)
            assert (repr(again), again.map.rows()) == (repr(found), found.map.rows())
        trace = lab.trace(told[0])
        assert eval(trace.code(), space).frame.equals(trace.frame)
        plan = lab.explain(Chime)
        assert eval(plan.code(), space) == plan
        (report,) = lab.check(Chime, level="quick", until=3)
        (again,) = eval(report.code(), space)
        for one in (report, again):
            assert (one.events, one.of, one.level, one.ok) == (3, 3, "quick", True)


@pytest.mark.parametrize(
    "opened",
    [
        lambda of: el.browse(of), lambda of: el.slide(of, Chime), lambda of: el.inspect(of, Chime),
        lambda of: el.follow(of, "00000000-0000-4000-8000-00000000000f"), lambda of: el.watch(of),
    ],
)  # fmt: skip
def test_what_is_no_lab_is_said_and_what_to_give(opened: Any) -> None:
    with pytest.raises(InvalidValue, match=r"'data/shop' is no lab"):
        opened("data/shop")

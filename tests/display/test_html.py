"""What Jupyter shows: every value escaped, no script, no colour of its own; and the plain repr stays plain."""

from __future__ import annotations

import base64
import datetime as dt
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

import polars as pl
import pytest

import eventlab as el
from eventlab.determinism.check import Checked, Divergence
from eventlab.determinism.goldens import Golden, Held
from eventlab.determinism.revisions import Change, ReplayDiff
from eventlab.determinism.sensor import Touch
from eventlab.determinism.ways import Parted
from eventlab.determinism.workers import Stopped
from eventlab.display import html
from eventlab.testing import given


@el.event(name="html.RemarkMade")
class RemarkMade:
    """Someone wrote <b>something</b> down."""

    text: str


@el.event(name="html.Priced")
class Priced:
    """A price was agreed on."""

    price: el.Money
    at: dt.datetime
    until: dt.datetime | None
    text: str


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


@pytest.fixture
def lab() -> el.Lab:
    lab = el.scratch(seed=1)
    lab.append("note-1", [RemarkMade(HOSTILE), RemarkMade("x" * 500)], tags=[HOSTILE])
    return lab


def drawn(lab: el.Lab) -> list[str]:
    found = Divergence("note", 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE, HOSTILE), HOSTILE)
    report = Checked("note", "m:Note", "quick", 1, 1, 1, (HOSTILE,), {}, {}, (HOSTILE,), found, 0.1)
    touch = Touch(HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE)
    stopped = replace(report, stopped=Stopped("note", HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE), touches=(touch,))
    parted = replace(report, divergence=None, ways=(HOSTILE,), parted=Parted(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1))
    change = Change("note", HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE)
    differs = pl.DataFrame({"_id": [HOSTILE], "field": [HOSTILE], "before": [HOSTILE], "after": [None]})
    diff = ReplayDiff("note", HOSTILE, 1, (1, 1), (change,), (HOSTILE,), differs)
    golden = Golden("note", 1, HOSTILE, HOSTILE, HOSTILE, {})
    held = Held("note", "the code changed", golden, golden, HOSTILE, differs)
    checked = [html.checked_html(one) for one in (report, stopped, parted)]
    rows = el.rows("Hostile", pl.DataFrame({"id": ["1"], "step": [HOSTILE]}), stream="hostile-{id}", fields={"step": "step"})
    with el.scratch(seed=2) as other:
        other.ingest(rows, source="hostile")
        found = other.discover(step="step")
        away = other.conform(el.Process("hostile", (el.Move("", "Ok"),)), step="step")
    walked = [html.discovery_html(found), html.conformance_html(away)]
    more = [*checked, *walked, html.replay_diff_html(diff), html.held_html(held)]
    return [html.reader_html(lab), html.reader_html(lab.at(position=1)), html.events_html(lab.read()), *more]


def test_payload_text_is_never_html(lab: el.Lab) -> None:
    drawings = r'<img alt="[^"<>]*" style="max-width: 100%" src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)">'
    texts = drawn(lab)
    pictures = [base64.b64decode(found).decode() for text in texts for found in re.findall(drawings, text)]
    assert any("&lt;" in picture for picture in pictures)
    for picture in pictures:
        tags = {of.tag.rpartition("}")[2] for of in ElementTree.fromstring(picture).iter()}
        assert tags <= {"svg", "defs", "marker", "path", "g", "title", "rect", "text"}
    for text in (re.sub(drawings, "", of) for of in texts):
        assert re.findall(r"<(\w+)", text) == [tag for tag in re.findall(r"<(\w+)", text) if tag in
                                               {"table", "caption", "thead", "tbody", "tr", "th", "td"}]  # fmt: skip
        assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", text)


def test_a_table_has_no_colours_of_its_own_so_that_it_reads_in_light_and_dark(lab: el.Lab) -> None:
    for text in drawn(lab):
        assert "color" not in text
        assert "<style" not in text


def test_a_store_at_a_glance_names_types_fields_counts_and_meaning(lab: el.Lab) -> None:
    text = html.reader_html(lab)
    assert "html.RemarkMade" in text
    assert ">2<" in text
    assert "text" in text
    assert "Someone wrote &lt;b&gt;something&lt;/b&gt; down." in text
    assert "1 event until position 1<" in html.reader_html(lab.at(position=1))


def test_a_selection_shows_its_first_events_and_says_how_many_there_are(lab: el.Lab) -> None:
    lab.append("note-2", [RemarkMade(str(i)) for i in range(30)])
    text = html.events_html(lab.read())
    assert ">everything: the first 10 of 32 events<" in text
    assert text.count("<tr>") == 11
    assert ">stream(note-1), after position 1: 1 event<" in html.events_html(lab.read(el.stream("note-1"), after=1))


def test_values_are_shown_as_what_they_are_and_long_ones_are_cut(lab: el.Lab) -> None:
    at = dt.datetime(2026, 2, 8, 18, tzinfo=dt.UTC)
    lab.append("note-3", [Priced(Decimal("9.50"), at, None, "19")])
    text = unescape(html.events_html(lab.read(el.stream("note-3"))))
    assert ">price=9.50, at=2026-02-08 18:00:00+00:00, until=None, text='19'<" in text
    cells = re.findall(r"<td[^>]*>(.*?)</td>", unescape(html.events_html(lab.read(el.stream("note-1"), after=1))))
    assert cells[-1] == "text='" + "x" * (html.PAYLOAD_SHOWN - 7) + "…"


def test_the_plain_repr_is_short_and_stable(lab: el.Lab) -> None:
    assert repr(lab) == "Lab('in memory', 2 events)"
    assert repr(lab.at(position=2)) == "Moment(position=2, asked='position 2')"
    assert repr(lab.at(position=1)) == "Moment(position=1, inside a commit, asked='position 1')"
    assert repr(lab.read(el.events(RemarkMade))) == "Events(events(html.RemarkMade), after 0, until 2)"


IN_IPYTHON = """
import os
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import eventlab as el
el.open("data/shop").close()
os.chdir("data")
with el.open("shop") as lab:
    shown, _ = shell.display_formatter.format(lab)
    print(shown["text/plain"], *sorted(shown), repr(str(lab.path)) in repr(lab), sep="\\n")
"""


def test_a_notebook_names_the_folder_of_a_lab_as_seen_from_there_the_same_on_every_machine(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IN_IPYTHON], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Lab('shop', 0 events)", "text/html", "text/plain", "True"]


@el.command
class Note:
    text: str


@el.aggregate(name="html_pad")
class Pad:
    """Notes on a pad."""

    texts: tuple[str, ...] = ()

    def decide(self, command: Note) -> Iterator[RemarkMade]:
        if command.text in self.texts:
            raise el.Rejected(f"{command.text} is there")
        yield RemarkMade(command.text)

    def evolve(self, event: RemarkMade) -> Self:
        if event.text == "":
            raise ValueError(HOSTILE)
        return replace(self, texts=(*self.texts, event.text))


def test_what_is_kept_is_drawn_with_its_state_and_what_stopped(lab: el.Lab) -> None:
    lab.append("html_pad-1", [RemarkMade("a"), RemarkMade("")])
    done = lab.rebuild(Pad)
    assert "keys that stopped" in html.rebuilt_html(done)
    base = lab.accept(Pad)
    assert repr(base).startswith("ReadModelBase('html_pad', accepted, 1 rows at position 4, code ")
    assert "accepted" in html.base_html(base)
    with lab.run(Pad, background=True) as runner:
        lab.wait(lab.head, Pad)
        drawn = html.runner_html(runner)
    assert "the loop: running" in drawn
    assert "html_pad" in drawn
    assert "the loop: stopped" in html.runner_html(runner)


def test_a_scenario_is_drawn_and_its_texts_are_escaped() -> None:
    done = given(Pad, RemarkMade(HOSTILE)).when(Note("b"))
    text = html.outcome_html(done)
    assert "<script>" not in text
    assert [word for word in ("given", "when", "then", "RemarkMade", "Note", "texts") if word not in text] == []
    assert "rejected" in html.outcome_html(given(Pad, RemarkMade("b")).when(Note("b")))
    assert "nothing" in html.outcome_html(given(RemarkMade("b")).when(lambda lab: None))

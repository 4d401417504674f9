"""What Jupyter shows: every value escaped, no script, no colour of its own; and the plain repr stays plain."""

from __future__ import annotations

import re

import pytest

import eventlab as el
from eventlab.determinism.check import Checked, Divergence
from eventlab.display import html


@el.event(name="html.Noted")
class Noted:
    """Someone wrote <b>something</b> down."""

    text: str


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


@pytest.fixture
def lab() -> el.Lab:
    lab = el.scratch(seed=1)
    lab.append("note-1", [Noted(HOSTILE), Noted("x" * 500)], tags=[HOSTILE])
    return lab


def drawn(lab: el.Lab) -> list[str]:
    found = Divergence("note", 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE, HOSTILE), HOSTILE)
    report = Checked("note", "m:Note", 1, 1, (HOSTILE,), {}, (HOSTILE,), found, 0.1)
    return [html.reader_html(lab), html.reader_html(lab.at(position=1)), html.events_html(lab.read()), html.checked_html(report)]


def test_payload_text_is_never_html(lab: el.Lab) -> None:
    for text in drawn(lab):
        assert re.findall(r"<(\w+)", text) == [tag for tag in re.findall(r"<(\w+)", text) if tag in
                                               {"table", "caption", "thead", "tbody", "tr", "th", "td"}]  # fmt: skip
        assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", text)


def test_a_table_has_no_colours_of_its_own_so_that_it_reads_in_light_and_dark(lab: el.Lab) -> None:
    for text in drawn(lab):
        assert "color" not in text
        assert "<style" not in text


def test_a_store_at_a_glance_names_types_fields_counts_and_meaning(lab: el.Lab) -> None:
    text = html.reader_html(lab)
    assert "html.Noted" in text
    assert ">2<" in text
    assert "text" in text
    assert "Someone wrote &lt;b&gt;something&lt;/b&gt; down." in text
    assert "1 events" in html.reader_html(lab.at(position=1))


def test_a_selection_shows_its_first_events_and_says_how_many_there_are(lab: el.Lab) -> None:
    lab.append("note-2", [Noted(str(i)) for i in range(30)])
    text = html.events_html(lab.read())
    assert "the first 10 of 32" in text
    assert text.count("<tr>") == 11


def test_the_plain_repr_is_short_and_stable(lab: el.Lab) -> None:
    assert repr(lab) == "Lab('in memory', 2 events)"
    assert repr(lab.at(position=1)) == "Moment(position=1, asked='position 1')"
    assert repr(lab.read(el.events(Noted))) == "Events(events(html.Noted), after 0, until 2)"

"""The catalogue says what code and store know, the same each time, and takes text for text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

import pytest

import eventlab as el
from eventlab.display import catalogue
from eventlab.domains import ordering
from eventlab.errors import UnknownType
from eventlab.model.models import model_of

HOSTILE = "<img src=x onerror=alert(1)> | `x` ]]"
MODELS = [model_of(ordering.Order), model_of(ordering.ProductDemand)]


@pytest.fixture
def lab() -> el.Lab:
    lab = el.scratch(seed=3)
    lab.handle(ordering.Order, "1", ordering.AddProduct(HOSTILE, 2, el.money("9.50")))
    lab.handle(ordering.Order, "1", ordering.SubmitOrder("ann"))
    lab.handle(ordering.Order, "2", ordering.AddProduct("tea", 1, el.money("3.00")))
    return lab


def test_it_says_what_there_is_who_decides_and_who_reads(lab: el.Lab) -> None:
    text = catalogue.markdown(catalogue.catalogue(MODELS, lab))
    for command in (ordering.AddProduct, ordering.PayOrder):
        assert f"### {command.__name__}" in text
    added = text[text.index("### ProductAdded") :].split("### ")[1]
    assert ordering.ProductAdded.__doc__ is not None
    assert ordering.ProductAdded.__doc__.splitlines()[0] in added
    assert "| decided by | Order |" in added
    assert "| read by | Order, ProductDemand |" in added
    assert "| in the log | 2, versions" in added
    assert "| unit\\_price |" in added
    paid = text[text.index("### OrderPaid") :].split("### ")[1]
    assert "| in the log | never yet |" in paid
    assert "```mermaid\nflowchart LR" in text
    assert re.search(r'a\d+\[\["Order"\]\]', text)


def test_text_of_a_store_is_text(lab: el.Lab) -> None:
    page = catalogue.html(catalogue.catalogue(MODELS, lab))
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r"<script|https?://|@import|url\(", page)
    assert "prefers-color-scheme" in page or "color-scheme: light dark" in page
    written = catalogue.markdown(catalogue.catalogue(MODELS, lab))
    assert "<img" not in written.replace("\\<img", "")
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in written.splitlines() if "onerror" in line)


def test_it_is_the_same_each_time_and_has_a_schema_for_each_event(lab: el.Lab, tmp_path: Path) -> None:
    first = {path.relative_to(tmp_path): path.read_bytes() for path in catalogue.write(MODELS, tmp_path, lab)}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in catalogue.write(MODELS, tmp_path, lab)}
    assert first == again
    schema = json.loads((tmp_path / "schemas" / "ProductAdded.json").read_text())
    assert schema["properties"]["quantity"]["type"] == "integer"
    assert {path.stem for path in (tmp_path / "schemas").iterdir()} == {kind.name for kind in catalogue._events(MODELS)}


def test_without_a_store_it_speaks_of_the_code_alone_and_without_models_it_says_what_to_name() -> None:
    assert "in the log" not in catalogue.markdown(catalogue.catalogue(MODELS))
    with pytest.raises(UnknownType, match="no models to write of"):
        catalogue.catalogue([])


@el.event(name="catalogue.ShelfDusted", version=2)
class ShelfDusted:
    """Somebody dusted a shelf."""

    shelf: int
    cloth: str = ""


@el.upcast(ShelfDusted, from_version=1)
def with_cloth(old: dict[str, object]) -> dict[str, object]:
    """Once nobody wrote down the cloth."""
    return {**old, "cloth": "unknown"}


@el.projection
class Shelves:
    """How often each shelf was dusted."""

    times: int = 0

    @staticmethod
    def key(event: ShelfDusted) -> str:
        return str(event.shelf)

    def evolve(self, event: ShelfDusted) -> Self:
        return self


def test_code_alone_says_how_older_versions_are_read() -> None:
    page = catalogue.markdown(catalogue.catalogue([model_of(Shelves)]))
    assert "| version | 2 |" in page
    assert "| version | how its events are read |" in page
    assert "| 1 | 1 to 2: Once nobody wrote down the cloth. |" in page


def test_the_guide_shows_an_event_of_each_older_version_as_it_was_stored_and_as_it_is_read(tmp_path: Path) -> None:
    # Who wrote the store knew the first version alone.
    writer = """import eventlab as el
@el.event(name="catalogue.ShelfDusted", version=1)
class ShelfDusted:
    shelf: int
with el.open({!r}) as lab:
    lab.append("shelf-1", [ShelfDusted(7), ShelfDusted(8)])
""".format(str(tmp_path / "store"))
    subprocess.run([sys.executable, "-c", writer], check=True, cwd=tmp_path)
    with el.open(tmp_path / "store") as lab:
        lab.append("shelf-1", [ShelfDusted(9, "wool")])
        page = catalogue.catalogue([model_of(Shelves)], lab)
    text = catalogue.markdown(page)
    guide = text[text.index("From older versions of catalogue") :]
    (line,) = [line for line in guide.splitlines() if line.startswith("| 1 |")]
    version, changed, read, count, stored, today = [cell.strip() for cell in line.strip("|").split("|")]
    assert (version, count, stored) == ("1", "2", "shelf=7")
    assert "cloth" in changed
    assert read == "1 to 2: Once nobody wrote down the cloth."
    assert today == "shelf=7, cloth='unknown'"
    assert "From older versions of OrderPaid" not in catalogue.markdown(catalogue.catalogue(MODELS))


def test_the_map_leads_to_what_is_written_of_each_name(lab: el.Lab) -> None:
    page = catalogue.html(catalogue.catalogue(MODELS, lab))
    drawn = page[page.index("<svg") : page.index("</svg>") + 6]
    tree = ElementTree.fromstring(drawn)
    links = {of.get("href", "") for of in tree.iter("a")}
    names = {f"#{of}" for of in re.findall(r'<h3 id="([^"]+)"', page)}
    assert links == names
    drawing = catalogue.catalogue(MODELS, lab).drawing
    assert drawing is not None
    assert len(list(tree.iter("path"))) == len(drawing.links) == len(set(drawing.links))
    order, submit = drawing.columns[1].index("Order"), drawing.columns[0].index("SubmitOrder")
    assert ((0, submit), (1, order), False) in drawing.links


def test_the_shell_writes_it(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "eventlab"
    command = [program, "docs", "--models", "eventlab.domains.ordering", "-o", tmp_path / "docs", "--code-only"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs" / "catalogue.html").read_text().startswith("<!doctype html>")
    done = subprocess.run([*command[:-1], "--store", tmp_path / "no"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no" in done.stderr

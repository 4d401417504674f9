"""The committed notebooks: outputs as `execute.py` writes them, a question above every cell, and claims that nbval can check."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTE = ROOT / "tests" / "notebooks" / "execute.py"
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"

LINES_A_CELL = 5
WIDTH_OF_CODE = 120
#: Polars breaks a wider table where it thinks that a terminal ends, and that is another place on every machine.
WIDTH_OF_TABLES = 80
#: An absolute path, or an address in memory; `</td>` and links within the repository are neither.
TELLTALE = re.compile(r"(?<![\w.:/<-])/\w[\w.-]*/\w|\b0x[0-9a-f]{6}|ipykernel")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> list[str]:
    """Whatever a reader or nbval sees of the outputs, pictures aside."""
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {"text/plain": output.get("text", "")})
            found += [text for mime, text in data.items() if mime.startswith("text/")]
    return found


def picture_cells(notebook: Any) -> list[int]:
    return [i for i, cell in enumerate(notebook.cells) if any("image/png" in o.get("data", {}) for o in cell.get("outputs", ()))]


def parsed(source: str) -> ast.Module:
    """The code of a cell, its magics as the calls that they are."""
    return ast.parse(TransformerManager().transform_cell(source))


def lines_of_code(source: str) -> int:
    """Lines with something on them, outside the classes that are defined."""
    defined = [node for node in parsed(source).body if isinstance(node, ast.ClassDef)]
    inside = {
        line
        for node in defined
        for line in range(min([node.lineno, *(d.lineno for d in node.decorator_list)]), (node.end_lineno or 0) + 1)
    }
    return sum(bool(text.strip()) for line, text in enumerate(source.splitlines(), 1) if line not in inside)


def script() -> ModuleType:
    """The script as a module; it is in no package."""
    spec = importlib.util.spec_from_file_location("execute_notebooks", EXECUTE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXECUTE, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def written(path: Path, *sources: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, path)
    return path


# -- what is committed


def test_the_first_notebook_and_the_one_about_time_are_there() -> None:
    assert {"00_start_here", "05_query_time", "07_projections"} <= {path.stem for path in NOTEBOOKS}


def test_the_first_notebook_ends_with_a_tour_of_all_others() -> None:
    first, *others = sorted(NOTEBOOKS)
    closing = nbformat.read(first, as_version=4).cells[-1].source
    assert re.findall(r"^\| \[\w+\]\((\S+)\)", closing, re.MULTILINE) == [path.name for path in others]


def test_a_committed_notebook_is_what_execute_writes(path: Path) -> None:
    assert script().settled(script().read(path)) == path.read_text(encoding="utf-8")


def test_every_cell_of_code_has_an_output_so_that_there_is_something_to_compare(notebook: Any) -> None:
    silent = [cell.source for cell in code_cells(notebook) if not cell.outputs]
    assert not silent


def test_nothing_is_hidden_from_the_comparison(notebook: Any) -> None:
    for cell in code_cells(notebook):
        assert not cell.metadata.get("tags")
        assert "NBVAL" not in cell.source
    rules = re.findall("^regex: (.*)$", SANITIZE.read_text(encoding="utf-8"), re.MULTILINE)
    for text in texts(notebook):
        assert [rule for rule in rules if re.search(rule, text)] == []


def test_a_notebook_states_claims_as_assertions_too(notebook: Any) -> None:
    claims = [node for cell in code_cells(notebook) for node in ast.walk(parsed(cell.source)) if isinstance(node, ast.Assert)]
    assert len(claims) >= 8


def test_no_cell_failed_or_warned(notebook: Any) -> None:
    for cell in code_cells(notebook):
        assert [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


def test_outputs_name_no_machine(notebook: Any) -> None:
    assert [found[0] for text in texts(notebook) if (found := TELLTALE.search(text))] == []


def test_the_search_for_machines_finds_them() -> None:
    for text in ("Lab('/srv/someone/data', 3 events)", "<object at 0x7f31c2a0>", "File /tmp/ipykernel_12/3.py"):
        assert TELLTALE.search(text)
    for text in ("<td>1</td><td>2</td>", "Lab('../data/flights', 3 events)", "and/or", "100 rows/s"):
        assert not TELLTALE.search(text)


def test_plain_tables_are_narrow_enough_to_be_the_same_on_every_machine(notebook: Any) -> None:
    wide = [line for text in texts(notebook) if "┌" in text for line in text.splitlines() if len(line) > WIDTH_OF_TABLES]
    assert not wide


# -- how it reads


def test_every_cell_of_code_stands_under_a_question(notebook: Any) -> None:
    for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert above.cell_type == "markdown", cell.source
            assert re.match(r"## .+\?$", above.source.splitlines()[0]), above.source


def test_no_question_is_asked_twice(notebook: Any) -> None:
    questions = [cell.source.splitlines()[0] for cell in notebook.cells if cell.source.startswith("## ")]
    assert len(questions) == len(set(questions))


def test_a_cell_has_at_most_five_lines_of_code_beside_the_classes_it_defines(notebook: Any) -> None:
    long = {cell.source: n for cell in code_cells(notebook) if (n := lines_of_code(cell.source)) > LINES_A_CELL}
    assert not long


def test_lines_are_counted_outside_classes_and_without_blank_ones() -> None:
    assert lines_of_code("import a\n\n\n@a.event\nclass B:\n    '''C.'''\n\n    d: int\n\n\nB(1)") == 2
    assert lines_of_code("f('''\n  select 1\n  from b''')") == 3


def test_lines_of_code_are_short_enough_to_be_read_without_scrolling(notebook: Any) -> None:
    assert [line for cell in code_cells(notebook) for line in cell.source.splitlines() if len(line) > WIDTH_OF_CODE] == []


def test_a_picture_has_a_caption_a_text_in_its_place_and_a_table_of_its_numbers_above(notebook: Any) -> None:
    for at in picture_cells(notebook):
        caption, numbers, cell = notebook.cells[at - 1], notebook.cells[at - 2], notebook.cells[at]
        assert "*Picture: " in caption.source
        assert len(cell.metadata["alt"]) > 40
        assert any("<table" in output.get("data", {}).get("text/html", "") for output in numbers.outputs)


def test_there_are_pictures_to_look_at_in_the_notebook_about_time() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "05_query_time.ipynb", as_version=4)
    assert len(picture_cells(notebook)) == 4


def test_a_picture_brings_its_own_light_background(notebook: Any) -> None:
    for at in picture_cells(notebook):
        (data,) = [o.data["image/png"] for o in notebook.cells[at].outputs if "image/png" in o.get("data", {})]
        pixels = imread(io.BytesIO(base64.b64decode(data)))
        assert pixels[0, 0, :3].min() > 0.95
        assert pixels.shape[2] == 3 or pixels[..., 3].min() == 1, "a see-through picture is unreadable in one of the two themes"


def test_links_lead_to_files(path: Path, notebook: Any) -> None:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []


# -- the script that executes them


def test_executing_twice_gives_the_same_bytes_without_widgets_or_metadata(tmp_path: Path) -> None:
    path = written(
        tmp_path / "some.ipynb",
        "import os; print('a', flush=True); print('b'); os.environ['EVENTLAB_PROGRESS']",
        "from ipywidgets import IntProgress\nIntProgress()",
        "import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])",
    )
    assert execute(path, cwd=tmp_path).stdout == "some.ipynb: written\n"
    first = path.read_bytes()
    assert execute(path.name, cwd=tmp_path).stdout == "some.ipynb: the same\n"
    assert path.read_bytes() == first
    notebook = nbformat.reads(first.decode(), as_version=4)
    stream, widget, picture = (cell.outputs for cell in notebook.cells)
    assert (stream[0].text, stream[1].data["text/plain"]) == ("a\nb\n", "'off'")
    assert widget == []
    assert sorted(picture[0].data) == ["image/png", "text/plain"]
    assert b"matplotlib.org" not in base64.b64decode(picture[0].data["image/png"])
    assert sorted(notebook.metadata) == ["kernelspec", "language_info"]
    assert [sorted(cell.metadata) for cell in notebook.cells] == [[], [], []]


def test_a_notebook_that_fails_or_warns_is_not_written(tmp_path: Path) -> None:
    failing = written(tmp_path / "failing.ipynb", "1 + 1", "1 / 0")
    warning = written(tmp_path / "warning.ipynb", "1 + 1", "import sys; print('careful', file=sys.stderr)")
    before = failing.read_bytes(), warning.read_bytes()
    done = execute(failing, warning, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not written: failing.ipynb" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "not written: warning.ipynb: a warning, careful" in done.stderr
    assert (failing.read_bytes(), warning.read_bytes()) == before


def test_ids_stay_and_are_made_of_place_and_text_where_they_are_missing_or_repeated(tmp_path: Path) -> None:
    path = written(tmp_path / "some.ipynb", "1", "2", "3", "3")
    raw = json.loads(path.read_text(encoding="utf-8"))
    for cell, name in zip(raw["cells"], ("mine", "mine", "other", None), strict=True):
        del cell["id"]
        cell |= {"id": name} if name else {}
    path.write_text(json.dumps(raw), encoding="utf-8")
    ids = [cell.id for cell in script().read(path).cells]
    assert (ids[0], ids[2]) == ("mine", "other")
    assert len(set(ids)) == 4
    assert [cell.id for cell in script().read(path).cells] == ids


def test_a_notebook_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script().main([str(tmp_path / "none.ipynb")]) == 2
    assert "none.ipynb" in capsys.readouterr().err

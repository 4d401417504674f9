"""The checker is checked: every faulty fold of the corpus is found, and no sound one accused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def told() -> dict[str, object]:
    command = [Path(sys.executable).parent / "eventlab", "check", "selftest", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_all_of_the_faulty_and_none_of_the_sound(told: dict[str, dict[str, int]]) -> None:
    assert told["faulty"]["total"] == told["faulty"]["found"] >= 25
    assert told["sound"]["total"] >= 25
    assert told["sound"]["accused"] == 0


def test_reading_alone_or_folding_alone_would_not_do(told: dict[str, list[dict[str, object]]]) -> None:
    faulty = [one for one in told["folds"] if one["faulty"]]
    assert [one["name"] for one in faulty if not one["lint"]], "some can only be found by folding"
    assert [one["name"] for one in faulty if one["divergence"] is None], "and some only by reading"
    hidden = next(one for one in faulty if one["name"] == "HidesAZone")
    assert (hidden["lint"], hidden["touches"]) == ([], [])
    assert "by another way to fold" in str(hidden["divergence"])
    touched = {one["name"] for one in told["folds"] if one["touches"]}
    assert {"ReadsTheClock", "RollsADie", "ReadsTheEnvironment"} < touched <= {one["name"] for one in faulty}


def test_the_readme_gives_its_rates(told: dict[str, dict[str, int]]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    faulty, sound = told["faulty"]["total"], told["sound"]["total"]
    assert f"folds {faulty} faulty folds, of which it finds {faulty}, and {sound} sound ones" in " ".join(readme.split())

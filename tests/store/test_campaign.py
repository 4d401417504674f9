"""A slice of the kill campaign; all of it is `python tests/store/campaign.py` or `pytest -m campaign`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("campaign.py")


def campaign(*arguments: str, seconds: int) -> str:
    done = subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_nothing_acknowledged_is_lost_in_a_hundred_kills() -> None:
    said = campaign("--kills", "100", seconds=110)
    assert "; 0 problems;" in said
    assert int(said.split(" ")[0].replace(",", "")) >= 100


@pytest.mark.campaign
def test_nothing_acknowledged_is_lost_in_two_thousand_kills() -> None:
    assert "; 0 problems;" in campaign("--kills", "2000", "--seed", "7", seconds=3_000)

"""Slices of the kill campaign and of the flips; all of each is its program (`python tests/store/campaign.py`, `flips.py`).

`pytest -m campaign tests/store` runs both at length.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def closing(program: str, *arguments: str, seconds: int) -> str:
    """The last line of a program that has found nothing wrong."""
    command = [sys.executable, HERE / program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_nothing_acknowledged_is_lost_in_fifty_kills() -> None:
    said = closing("campaign.py", "--kills", "50", seconds=110)
    assert "; 0 problems;" in said
    assert int(said.split(" ")[0].replace(",", "")) >= 50


def test_a_changed_byte_is_noticed_or_does_no_harm() -> None:
    assert closing("flips.py", "--flips", "12", "--seed", "2", seconds=110).startswith("12 flips, 0 silent")


@pytest.mark.campaign
def test_nothing_acknowledged_is_lost_in_two_thousand_kills() -> None:
    assert "; 0 problems;" in closing("campaign.py", "--kills", "2000", "--seed", "7", seconds=3_000)


@pytest.mark.campaign
def test_two_thousand_changed_bytes_are_noticed_or_do_no_harm() -> None:
    said = closing("flips.py", "--flips", "2000", "--seed", "5", seconds=3_500)
    assert said.startswith("2,000 flips, 0 silent")

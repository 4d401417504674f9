"""A slice of the flips; all of it is `python tests/store/flips.py` or `pytest -m campaign`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("flips.py")


def flips(*arguments: str, seconds: int) -> str:
    done = subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_a_changed_byte_is_noticed_or_does_no_harm() -> None:
    assert flips("--flips", "24", "--seed", "2", seconds=110).startswith("24 flips, 0 silent")


@pytest.mark.campaign
def test_two_thousand_changed_bytes_are_noticed_or_do_no_harm() -> None:
    assert flips("--flips", "2000", "--seed", "5", seconds=3_500).startswith("2,000 flips, 0 silent")

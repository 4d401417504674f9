"""Subscriptions while four processes append: each position exactly once, in order, over thousands of runs.

    python tests/projections/followers.py --runs 2000 --seed 1

A run is one subscription: it begins somewhere before the head, with a filter of its own, catches up, crosses the seam and goes
on live until it has heard some of what was appended since. What it heard is held to what the log has at these positions.
Four writers append without a pause, and one of them seals and compacts now and then; two followers do the runs. All of
them stay for a few hundred runs, so that a run costs milliseconds, and then a log begins anew.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import eventlab as el

WRITERS, FOLLOWERS = 4, 2
RUNS_A_LOG = 400


@el.event
class GongStruck:
    """A gong was struck."""

    times: int


@el.event
class GongMuffled:
    """A gong was muffled."""


FILTERS = (
    el.category("gong"), el.events(GongStruck), el.events(GongMuffled), el.events(GongStruck) & el.stream("gong-3"),
)  # fmt: skip


def forked(work: Callable[[], None]) -> int:
    """Do something in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def write(path: Path, seed: int, *, tidy: bool) -> None:
    """Append until somebody says stop."""
    chance, going = random.Random(seed), [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    with el.open(path, maintain=False) as lab:
        while going:
            rung = [GongStruck(chance.randrange(100)) for _ in range(chance.randint(1, 4))]
            lab.append(f"gong-{chance.randrange(6)}", [*rung, *([GongMuffled()] if chance.random() < 0.3 else [])])
            if tidy and chance.random() < 0.01:
                lab.seal()
                if chance.random() < 0.2:
                    lab.compact(all=True)
            time.sleep(chance.random() * 0.004)


def run(lab: el.Lab, chance: random.Random) -> None:
    """One subscription, held to the log."""
    head = lab.head
    after, beyond = max(0, head - chance.randrange(200)), head + chance.randint(1, 20)
    picked = chance.choice(FILTERS)
    following = lab.subscribe(picked, after=after, timeout=30)
    heard: list[int] = []
    for event in following:
        heard.append(event.position)
        if event.position >= beyond:
            break
    assert following.position >= beyond, f"nothing was heard for 30 s after {heard[-1:] or after}; the head is {lab.head}"
    meant = [event.position for event in lab.read(picked, after=after, until=heard[-1])]
    assert heard == meant, f"from {after} on {heard} were heard, and the log has {meant}"
    if picked is FILTERS[0]:
        assert heard == list(range(after + 1, heard[-1] + 1)), f"a position is missing after {after}: {heard}"


def follow(path: Path, runs: int, seed: int) -> None:
    """So many runs, one after the other."""
    chance = random.Random(seed)
    with el.open(path, maintain=False) as lab:
        for _ in range(runs):
            run(lab, chance)


def begin(path: Path) -> None:
    """A log with a first commit, and the types that filters name."""
    with el.open(path, maintain=False) as lab:
        lab.append("gong-0", [GongStruck(1), GongMuffled()])


def end(path: Path, length: Path) -> None:
    """How long a log became; once more, everything by one subscription."""
    with el.open(path, maintain=False) as lab:
        assert [event.position for event in lab.subscribe(live=False)] == list(range(1, lab.head + 1))
        length.write_text(str(lab.head))


def waited(pid: int) -> int:
    """How a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def campaign(runs: int, seed: int, folder: Path) -> tuple[int, int, int]:
    """So many runs; how many there were, over how many events, and how many processes found something wrong."""
    chance, done, events, wrong = random.Random(seed), 0, 0, 0
    while done < runs:
        path, length = folder / f"log-{done}", folder / f"length-{done}"
        # In a process of its own: this one forks, and opens nothing.
        assert waited(forked(partial(begin, path))) == 0
        now = min(RUNS_A_LOG, runs - done)
        seeds = [chance.randrange(2**32) for _ in range(WRITERS + FOLLOWERS)]
        writers = [forked(partial(write, path, seeds[at], tidy=at == 0)) for at in range(WRITERS)]
        shares = [now // FOLLOWERS + (at < now % FOLLOWERS) for at in range(FOLLOWERS)]
        followers = [forked(partial(follow, path, shares[at], seeds[WRITERS + at])) for at in range(FOLLOWERS)]
        failed = sum(waited(follower) != 0 for follower in followers)
        for writer in writers:
            os.kill(writer, signal.SIGTERM)
        failed += sum(waited(writer) != 0 for writer in writers)
        failed += waited(forked(partial(end, path, length))) != 0
        events += int(length.read_text())
        if failed:
            print(f"after {done:,} runs, seeds {seeds}: {failed} processes found something wrong", flush=True)
        done, wrong = done + now, wrong + failed
    return done, events, wrong


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ["EVENTLAB_PROGRESS"] = "off"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs, events, wrong = campaign(given.runs, given.seed, Path(folder))
    print(f"{runs:,} runs over {events:,} events; {wrong} problems; {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Kill loops: processes that write, ingest, seal, compact, collect and read one store, killed at random and at named points.

    python tests/store/campaign.py --kills 2000 --seed 1

Every generation starts a crowd of processes on the store, kills them one by one, and hands what is left to a judge, which
opens the store in a process of its own and holds it to what was promised: what was acknowledged is there once, what was
not is there whole or not at all, every ingested chunk is whole or absent, one seat has one winner, and `verify` finds no
damage. Readers in the crowd check while it goes on that they never see half a commit.

The processes are forked from one that has imported everything and has no store open, so that a kill costs little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from eventlab.errors import Conflict, EventlabError
from eventlab.model.filters import Clause, Filter
from eventlab.store import catalog
from eventlab.store.base import ALL, Condition
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.files import LocalDisk
from eventlab.store.verify import verify
from eventlab.testing.contract import append, chunk, draft, rows

#: Where a process may be told to die: calls of the disk, and moments of a write transaction.
POINTS = ("create", "sync", "rename", "sync_folder", "unlink", "begin", "commit", "committed")
CHUNK = 60
SEATS = 5


def now() -> int:
    return time.time_ns() // 1000


class Death:
    """Kills its own process the n-th time that a point is reached."""

    def __init__(self, point: str | None, after: int) -> None:
        self.point, self.left = point, after

    def at(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class DyingDisk(LocalDisk):
    """A disk on which a process dies in front of a call."""

    def __init__(self, death: Death) -> None:
        self.death = death

    def create(self, path: Path) -> IO[bytes]:
        self.death.at("create")
        return super().create(path)

    def sync(self, file: IO[bytes]) -> None:
        self.death.at("sync")
        super().sync(file)

    def rename(self, old: Path, new: Path) -> None:
        self.death.at("rename")
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        self.death.at("sync_folder")
        super().sync_folder(path)

    def unlink(self, path: Path) -> None:
        self.death.at("unlink")
        super().unlink(path)


@contextmanager
def _write(self: catalog.Catalog, death: Death, write: Callable[[catalog.Catalog], Any]) -> Iterator[Any]:
    death.at("begin")
    with write(self) as connection:
        yield connection
        death.at("commit")
    death.at("committed")


# -- the crowd -------------------------------------------------------------------------------------------------------------


@dataclass
class Role:
    """One process of the crowd: what it does, on which store, and where it says what was acknowledged."""

    store: DiskStore
    said: int
    name: str
    chance: random.Random

    def acknowledged(self, **said: Any) -> None:
        # One write of one line: whole, or not there.
        os.write(self.said, (json.dumps(said) + "\n").encode())


def write_forever(role: Role) -> None:
    """Appends of one to six events to streams of its own and shared ones; each event says how many its append has."""
    i, me = 0, f"{role.name}.{role.chance.randrange(2**48):x}"
    while True:
        count = role.chance.randint(1, 6)
        streams = [
            role.chance.choice((f"order-{role.name}", "order-shared", f"item-{role.chance.randint(0, 3)}")) for _ in range(count)
        ]
        mine = [draft(stream, count, actor=f"{me}/{i}", tags=("kept",)) for stream in streams]
        expected = {"order-shared": role.store.version("a", "order-shared")} if role.chance.random() < 0.5 else {}
        try:
            done = append(role.store, *mine, expected=expected, repeats=True, tenant=role.chance.choice("ab"))
        except Conflict:
            continue
        finally:
            i += 1
        role.acknowledged(positions=done.positions, ids=[d.event_id.hex() for d in mine])


def ingest_forever(role: Role) -> None:
    """Chunks of a source, one after the other; whoever comes later goes on where the last one stopped."""
    source = f"files-{role.name[-1]}"
    while True:
        number = len(role.store.chunks("a", source))
        mine = [
            draft(f"{'order' if i % 2 else 'item'}-{i % 5}", CHUNK, actor=f"{source}/{number}", occurred_at=i,
                  event_id=hashlib.blake2b(f"{source}/{number}/{i}".encode(), digest_size=16).digest())
            for i in range(CHUNK)
        ]  # fmt: skip
        state = role.store.ingest(chunk(mine, source, number), tenant="a")
        role.acknowledged(positions=list(range(state.first, state.last + 1)), ids=[d.event_id.hex() for d in mine])


def keep_forever(role: Role) -> None:
    """Seals, compacts into short eras and collects at once."""
    while True:
        role.store.seal()
        role.store.compact(all=role.chance.random() < 0.5, positions=role.chance.choice((150, 600)))
        role.store.collect(grace=role.chance.choice((0, 0, 900)))


def book_forever(role: Role) -> None:
    """Races for seats: a booking is appended only if nobody has booked the seat."""
    while True:
        seat = role.chance.randrange(SEATS)
        taken = Filter((Clause(tags=frozenset({f"seat:{seat}"})),))
        mine = draft(f"booking-{seat}", 1, tags=(f"seat:{seat}",), actor=role.name)
        try:
            done = append(role.store, mine, condition=Condition(taken, 0))
        except Conflict:
            time.sleep(0.002)
            continue
        role.acknowledged(positions=done.positions, ids=[mine.event_id.hex()])


def read_forever(role: Role) -> None:
    """Reads everything again and again: a prefix without gaps, of whole commits."""
    while True:
        cut = role.store.cut()
        problem = torn(cut)
        if problem:
            role.acknowledged(problem=problem)
            return


ROLES: dict[str, Callable[[Role], None]] = {
    "writer-1": write_forever,
    "writer-2": write_forever,
    "ingester-1": ingest_forever,
    "keeper-1": keep_forever,
    "keeper-2": keep_forever,
    "booker-1": book_forever,
    "booker-2": book_forever,
    "reader-1": read_forever,
}


def torn(cut: Any) -> str | None:
    """What is wrong with a cut, if anything: a gap, or a commit that is not whole."""
    found = rows(cut)
    if [row.position for row in found] != list(range(1, cut.head + 1)):
        return f"positions up to {cut.head} have gaps: {len(found)} events"
    groups = Counter(row.actor for row in found)
    sizes = {row.actor: row.payload[0] for row in found}
    for actor, count in groups.items():
        if "/" in (actor or ""):
            wanted = int.from_bytes(sizes[actor][-1:], "big")
            if count != wanted:
                return f"{actor} is there with {count} events of {wanted}"
    return None


# -- generations -----------------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """What a campaign did and found."""

    kills: int = 0
    generations: int = 0
    acknowledged: int = 0
    events: int = 0
    points: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def fork(body: Callable[[], None]) -> int:
    """Run a body in a forked process; it ends with 0, or with 1 when it raises."""
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        body()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def play(path: Path, said: Path, name: str, seed: int, death: Death) -> None:
    """Be one process of the crowd, until killed."""
    write = catalog.Catalog.write
    catalog.Catalog.write = lambda self: _write(self, death, write)  # type: ignore[method-assign]
    store = open_store(path, now=now, disk=DyingDisk(death))
    descriptor = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        try:
            ROLES[name](Role(store, descriptor, name, random.Random(seed)))
            return
        except EventlabError as why:
            # A refusal is an answer; anything else ends the process with a traceback, and the campaign with a problem.
            os.write(descriptor, (json.dumps({"problem": f"{name}: {why}"}) + "\n").encode())
            return


def generation(path: Path, said: Path, chance: random.Random, score: Score) -> None:
    """Start a crowd and kill all of it."""
    crowd: dict[int, str] = {}
    for name in ROLES:
        point = chance.choice(POINTS) if chance.random() < 0.4 else None
        death = Death(point, chance.randrange(12))
        seed = chance.randrange(2**32)
        crowd[fork(partial(play, path, said, name, seed, death))] = name
        if point:
            score.points[point] += 1
    time.sleep(chance.uniform(0.02, 0.25))
    for child in chance.sample(sorted(crowd), len(crowd)):
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            score.kills += 1
        elif os.WEXITSTATUS(status):
            score.problems.append(f"{crowd[child]} ended with {os.WEXITSTATUS(status)}")
        time.sleep(chance.uniform(0, 0.03))
    score.generations += 1


def judge(path: Path, said: Path, full: bool) -> list[str]:
    """Hold a store to what was promised."""
    lines = said.read_text().splitlines(keepends=True) if said.exists() else []
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    problems = [one["problem"] for one in told if "problem" in one]
    store = open_store(path, now=now)
    try:
        cut = store.cut()
        problem = torn(cut)
        problems += [problem] if problem else []
        found = rows(cut, tenant=ALL)
        ids = Counter(row.event_id.hex() for row in found)
        at = {row.event_id.hex(): row.position for row in found}
        for one in told:
            for position, event_id in zip(one.get("positions", ()), one.get("ids", ()), strict=True):
                if at.get(event_id) != position or ids[event_id] != 1:
                    problems.append(f"acknowledged at {position}, found at {at.get(event_id)}, {ids[event_id]} times")
        seats = Counter(tag for row in found for tag in row.tags if tag.startswith("seat:"))
        problems += [f"{seat} has {count} winners" for seat, count in seats.items() if count > 1]
        report = verify(store, full=full)
        problems += [str(finding) for finding in report.findings if finding.severity != "note"]
    finally:
        store.close()
    return problems


def decide(verdict: Path, path: Path, said: Path, full: bool) -> None:
    """Write down what the judge says."""
    verdict.write_text(json.dumps(judge(path, said, full)))


def campaign(kills: int, seed: int, *, quiet: bool = True) -> Score:
    """Kill so many processes, on a new store now and then."""
    score, chance = Score(), random.Random(seed)
    while score.kills < kills and not score.problems:
        folder = Path(tempfile.mkdtemp(prefix="eventlab-kills-"))
        path, said = folder / "log", folder / "said"
        for _ in range(12):
            generation(path, said, chance, score)
            verdict = folder / "verdict"
            full = chance.random() < 0.3
            judged = fork(partial(decide, verdict, path, said, full))
            _, status = os.waitpid(judged, 0)
            score.problems += json.loads(verdict.read_text()) if status == 0 else [f"the judge ended with status {status}"]
            if score.problems or score.kills >= kills:
                break
        score.acknowledged += sum(
            len(json.loads(line).get("ids", ())) for line in said.read_text().splitlines(True) if line[-1] == "\n"
        )
        if not quiet:
            print(
                f"{score.kills:,} kills, {score.acknowledged:,} acknowledged events, {len(score.problems)} problems", flush=True
            )
        if score.problems:
            print(f"kept for a look: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started = time.monotonic()
    score = campaign(given.kills, given.seed, quiet=False)
    points = ", ".join(f"{name} {count}" for name, count in sorted(score.points.items()))
    print(
        f"{score.kills:,} kills in {score.generations:,} generations, {score.acknowledged:,} acknowledged events, "
        f"{sum(score.points.values()):,} sent to die at a named point ({points}); "
        f"{len(score.problems)} problems; {time.monotonic() - started:.0f} s"
    )
    for problem in score.problems[:20]:
        print(problem)
    return 1 if score.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Flips: one byte of a store's files is changed, the store is opened in the usual way, and what happens is told.

    python tests/store/flips.py --flips 2000 --seed 1

A real store (tenants, an era of buckets, sealed runs, ingested chunks, hot events, snapshots, read models), closed, and the
same one as a killed process leaves it, with commits in the write-ahead log. Bytes of every class of file are changed, one
at a time. A change is *noticed* when opening, reading or a full `verify` says so: an `EventlabError`, or a finding that is
damage or a warning. It is *harmless* when every event of every tenant, every version, refusal and repeat is what it would
be without it, also after the store was sealed, compacted and opened again. Anything else is *silent*, and so is an
exception of another kind, a hang and a crash: there must be none.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from eventlab.errors import EventlabError
from eventlab.model.filters import Clause, Filter
from eventlab.model.schema import Schema
from eventlab.store.base import Draft, Snapshot
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.verify import verify
from eventlab.testing.contract import NAMED, OPENED, append, chunk, draft, rows, stream_rows

TENANTS = ("a", "b", "größe")
LONG = Schema("Long", 1, ("text:s", "seen:l_ts"))
#: How often each class of file is chosen.
CLASSES = {
    "segment pages": 1, "segment footers": 1, "catalog headers": 3, "catalog rows": 6, "free space": 1, "wal": 4, "shm": 1,
    "read models": 1,
}  # fmt: skip
SECONDS = 60

Appends = list[tuple[str, tuple[Draft, ...]]]


def clock() -> Callable[[], int]:
    """A microsecond a call."""
    at = 1_700_000_000_000_000

    def now() -> int:
        nonlocal at
        at += 1
        return at

    return now


# -- the store, and what it does -------------------------------------------------------------------------------------------


def drafts(chance: random.Random, count: int) -> tuple[Draft, ...]:
    """Events of several streams, types and shapes."""
    found = []
    for _ in range(count):
        stream = f"{chance.choice(('order', 'item'))}-{chance.randrange(5)}"
        i = chance.randrange(1_000)
        schema, payload = chance.choice(
            [(NAMED, ("näme" * (i % 9), i)), (OPENED, ()), (LONG, ("x" * (i % 300), [i, None])), (NAMED, (None, None))]
        )
        found.append(
            draft(
                stream, *payload, schema=schema, event_id=chance.randbytes(16), tags=("vip", f"n:{i}")[: i % 3],
                actor="ann" if i % 2 else None, correlation_id=chance.randbytes(16) if i % 3 else None, occurred_at=i,
            )
        )  # fmt: skip
    return tuple(found)


def make(folder: Path) -> None:
    """Make the store closed and killed, and write down what was appended to each."""
    chance, now, appends = random.Random(5), clock(), Appends()

    def write(store: DiskStore, count: int) -> None:
        for _ in range(count):
            tenant, mine = chance.choice(TENANTS), drafts(chance, chance.randint(1, 6))
            append(store, *mine, tenant=tenant, repeats=True)
            appends.append((tenant, mine))

    store = open_store(folder / "closed", now=now)
    write(store, 30)
    store.seal()
    store.compact(all=True)
    store.collect(grace=0)
    write(store, 40)
    store.ingest(chunk(drafts(chance, 30)), tenant="a")
    store.seal()
    write(store, 6)
    store.ingest(chunk(drafts(chance, 20), number=1), tenant="a")
    store.ingest(chunk(drafts(chance, 20), "more"), tenant="b")
    write(store, 10)
    for tenant in TENANTS:
        for stream in ("order-1", "item-2"):
            version = store.version(tenant, stream)
            store.save_snapshot(tenant, stream, "order", Snapshot("print", version, store.cut().head, (tenant, version)))
        store.read_models.save("order", tenant, "print", store.cut().head, pa.table({"_id": ["1"], "of": [tenant]}))
    store.close()
    (folder / "closed.appends").write_bytes(pickle.dumps(appends))
    # As after a kill: some of the write-ahead log has been moved into the database, and some has not.
    shutil.copytree(folder / "closed", folder / "open")
    store = open_store(folder / "open", now=now)
    write(store, 12)
    store._catalog.write_connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    write(store, 12)
    shutil.copytree(folder / "open", folder / "killed")
    (folder / "killed.appends").write_bytes(pickle.dumps(appends))


def reads(store: DiskStore) -> list[Any]:
    """Everything that is read from a store, comparable with `==`; SQL reads the same files, and `verify` uses it."""
    cut = store.cut()
    everything = rows(cut)
    found: list[Any] = [store.store_id, cut.head, everything, store.last_recorded(), store.heads()]
    found += [{key: schema.to_json() for key, schema in cut.schemas.items()}, dict(cut.types_of)]
    found += [cut.position_at(row.recorded_at) for row in everything[::20]]
    found.append([row.position for row in rows(cut, Filter((Clause(tags=frozenset({"vip"})),)))])
    streams = sorted({row.stream for row in everything} | {"order-none"})
    for tenant in TENANTS:
        found.append([row.position for row in rows(cut, tenant=tenant)])
        found += [(store.version(tenant, stream), stream_rows(cut, stream, tenant=tenant)) for stream in streams]
        found += [store.snapshot(tenant, stream, "order") for stream in ("order-1", "item-2")]
        found.append({name: (base.position, base.table()) for name, base in store.read_models.accepted(tenant).items()})
        found += [store.chunks(tenant, source) for source in ("files", "more")]
    return found


def writes(store: DiskStore, appends: Appends) -> list[Any]:
    """What a store answers to repeats, to wrong and right expectations, and how it reads after it was tidied up."""
    found: list[Any] = []
    for tenant, mine in appends:
        done = append(store, *mine, tenant=tenant, repeats=True)
        found.append((done.positions, done.versions, done.repeated))
    chance = random.Random(6)
    for tenant in TENANTS:
        for stream in ("order-1", "item-2", "order-new"):
            mine, version = draft(stream, 1, event_id=chance.randbytes(16)), store.version(tenant, stream)
            found.append(answer(lambda mine=mine, tenant=tenant: append(store, mine, tenant=tenant, expected={mine.stream: 99})))
            expected = {stream: version}
            found.append(answer(lambda mine=mine, tenant=tenant, e=expected: append(store, mine, tenant=tenant, expected=e)))
    again = random.Random(5)
    found.append(answer(lambda: store.ingest(chunk(drafts(again, 5), "new"), tenant="a")))
    for step in (store.seal, lambda: store.compact(all=True), lambda: store.collect(grace=0)):
        step()
        found.append(rows(store.cut()))
    return found


def answer(call: Callable[[], Any]) -> Any:
    """What a call gives, or the error it is refused with."""
    try:
        return call()
    except EventlabError as why:
        return type(why).__name__, why.message


def behaviour(path: Path, appends: Appends) -> list[Any]:
    """All that can be seen of a store, before and after it was written to and opened again."""
    store = open_store(path, now=clock())
    try:
        found = [reads(store), writes(store, appends)]
    finally:
        store.close()
    store = open_store(path, now=clock())
    try:
        found += [rows(store.cut()), [str(f) for f in verify(store, full=True).findings]]
    finally:
        store.close()
    return found


# -- one flip --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """One byte of one file of one of the two stores, and what it is combined with."""

    kind: str
    store: str
    file: str
    offset: int
    mask: int

    def __str__(self) -> str:
        return f"{self.kind}: byte {self.offset:,} of {self.store}/{self.file} ^ {self.mask:#04x}"


def judge(folder: Path, flip: Flip) -> tuple[str, str]:
    """What becomes of a flip: noticed, harmless or silent, and how it showed."""
    path = folder / "flipped"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder / flip.store, path)
    with (path / flip.file).open("r+b") as file:
        file.seek(flip.offset)
        byte = file.read(1)[0]
        file.seek(flip.offset)
        file.write(bytes([byte ^ flip.mask]))
    try:
        seen = looked(path)
    except Exception:
        return "silent", f"a stray exception\n{traceback.format_exc()}"
    if seen is not None:
        return "noticed", seen
    appends = pickle.loads((folder / f"{flip.store}.appends").read_bytes())
    try:
        found = behaviour(path, appends)
    except Exception:
        return "silent", f"verify finds nothing, and then\n{traceback.format_exc()}"
    expected = pickle.loads((folder / f"{flip.store}.expected").read_bytes())
    if found != expected:
        return "silent", f"verify finds nothing, and {difference(found, expected)}"
    return "harmless", ""


def looked(path: Path) -> str | None:
    """How opening, reading and verifying a store show that it is damaged; None where they do not."""
    try:
        store = open_store(path, now=clock())
    except EventlabError as why:
        return f"open: {type(why).__name__}"
    try:
        said = None
        try:
            reads(store)
        except EventlabError as why:
            said = f"read: {type(why).__name__}"
        try:
            report = verify(store, full=True)
        except EventlabError as why:
            return f"verify raised {type(why).__name__}: {why.message}"
        codes = sorted(f.code for f in report.findings if f.severity != "note")
        return f"verify: {', '.join(codes)}" if codes else said
    finally:
        store.close()


def difference(found: Any, expected: Any, where: str = "") -> str:
    """Where two behaviours part."""
    if type(found) is type(expected) and isinstance(found, (list, tuple)) and len(found) == len(expected):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            if one != other:
                return difference(one, other, f"{where}[{i}]")
    return f"{where} is {str(found)[:300]}, not {str(expected)[:300]}"


# -- where bytes are -------------------------------------------------------------------------------------------------------


def places(folder: Path) -> dict[str, list[tuple[str, str, range]]]:
    """The bytes of each class: store, file and range of offsets."""
    found: dict[str, list[tuple[str, str, range]]] = {name: [] for name in CLASSES}
    closed = folder / "closed"
    for path in sorted((closed / "segments").rglob("*.parquet")):
        raw, name = path.read_bytes(), str(path.relative_to(closed))
        footer = len(raw) - 8 - struct.unpack("<I", raw[-8:-4])[0]
        found["segment pages"].append(("closed", name, range(footer)))
        found["segment footers"].append(("closed", name, range(footer, len(raw))))
    for path in sorted((closed / "read_models").iterdir()):
        found["read models"].append(("closed", str(path.relative_to(closed)), range(path.stat().st_size)))
    for store in ("closed", "killed"):
        headers, others, free = catalog_bytes(folder / store / "catalog.sqlite")
        found["catalog headers"] += [(store, "catalog.sqlite", part) for part in headers]
        found["catalog rows"] += [(store, "catalog.sqlite", part) for part in others]
        found["free space"] += [(store, "catalog.sqlite", part) for part in free]
    for kind in ("wal", "shm"):
        name = f"catalog.sqlite-{kind}"
        found[kind].append(("killed", name, range((folder / "killed" / name).stat().st_size)))
    return found


def catalog_bytes(path: Path) -> tuple[list[range], list[range], list[range]]:
    """Headers and cell pointers of a database's pages; what their cells hold; and free pages, and free space in pages."""
    raw = path.read_bytes()
    size = struct.unpack(">H", raw[16:18])[0]
    free, trunk = set(), struct.unpack(">I", raw[32:36])[0]
    while trunk:
        free.add(trunk)
        at = (trunk - 1) * size
        trunk, count = struct.unpack(">II", raw[at : at + 8])
        free |= set(struct.unpack(f">{count}I", raw[at + 8 : at + 8 + 4 * count]))
    headers, others, unused = [range(100)], [], []
    for page in range(1, len(raw) // size + 1):
        start, end = (page - 1) * size, page * size
        at = start + (100 if page == 1 else 0)
        if page in free:
            unused.append(range(start, end))
        elif raw[at] in (2, 5, 10, 13):
            cells = struct.unpack(">H", raw[at + 3 : at + 5])[0]
            body = at + (12 if raw[at] in (2, 5) else 8) + 2 * cells
            headers.append(range(at, body))
            content = start + (struct.unpack(">H", raw[at + 5 : at + 7])[0] or 65_536)
            unused.append(range(body, content))
            others.append(range(content, end))
        else:
            others.append(range(start, end))
    return headers, others, unused


def choose(chance: random.Random, found: dict[str, list[tuple[str, str, range]]]) -> Flip:
    """A byte, each of its class as likely as the others, and one bit of it or several."""
    kind = chance.choices(list(CLASSES), list(CLASSES.values()))[0]
    store, file, part = chance.choices(found[kind], [len(part) for _, _, part in found[kind]])[0]
    mask = 1 << chance.randrange(8) if chance.random() < 0.6 else chance.randrange(1, 256)
    return Flip(kind, store, file, chance.choice(part), mask)


# -- many flips ------------------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """What became of the flips of each class, and how they were noticed."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in CLASSES})
    shown: Counter[str] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)

    def add(self, flip: Flip, outcome: str, how: str) -> None:
        self.outcomes[flip.kind][outcome] += 1
        if outcome == "silent":
            self.silent.append(f"{flip}: {how}")
        elif outcome == "noticed":
            self.shown.update(how.partition(": ")[2].split(", ") if how.startswith("verify: ") else [how])

    def lines(self) -> Iterator[str]:
        yield f"{'class of file':<18}{'flips':>7}{'noticed':>9}{'harmless':>10}{'silent':>8}{'noticed or harmless':>21}"
        total = sum(self.outcomes.values(), Counter())
        for name, of in [*self.outcomes.items(), ("all", total)]:
            if count := of.total():
                rate = (count - of["silent"]) / count
                yield f"{name:<18}{count:>7,}{of['noticed']:>9,}{of['harmless']:>10,}{of['silent']:>8,}{rate:>20.2%}"


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


def finished(child: int) -> int:
    """Wait for a forked process: 0 when it did its work, else its status."""
    return os.waitpid(child, 0)[1]


def expect(folder: Path) -> None:
    """Write down how the stores behave as they are; twice, so that chance in it would show."""
    for store in ("closed", "killed"):
        appends = pickle.loads((folder / f"{store}.appends").read_bytes())
        twice = []
        for _ in range(2):
            shutil.rmtree(folder / "flipped", ignore_errors=True)
            shutil.copytree(folder / store, folder / "flipped")
            if (said := looked(folder / "flipped")) is not None:
                raise AssertionError(f"the {store} store is not sound: {said}")
            twice.append(behaviour(folder / "flipped", appends))
        if twice[0] != twice[1]:
            raise AssertionError(f"the {store} store does not repeat itself: {difference(*twice)}")
        (folder / f"{store}.expected").write_bytes(pickle.dumps(twice[0]))


def judge_all(folder: Path, told: Path, flips: Sequence[Flip]) -> None:
    """Judge flips one after the other, and write each verdict down at once."""
    with told.open("a") as out:
        for flip in flips:
            # Without a handler the alarm ends the process: a hang is known by its signal.
            signal.alarm(SECONDS)
            print(json.dumps(judge(folder, flip)), file=out, flush=True)
    signal.alarm(0)


def flip_many(count: int, seed: int, *, only: str | None = None, quiet: bool = True) -> Score:
    """Flip so many bytes, each in a fresh copy of the store."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="eventlab-flips-", dir=memory if os.access(memory, os.W_OK) else None))
    score, chance = Score(), random.Random(seed)
    for step in (make, expect):
        if finished(fork(partial(step, folder))):
            raise AssertionError(f"{step.__name__} failed")
    found = places(folder)
    flips = []
    while len(flips) < count:
        flip = choose(chance, found)
        if only in (None, flip.kind):
            flips.append(flip)
    told = folder / "told"
    done = 0
    while done < count:
        told.unlink(missing_ok=True)
        status = finished(fork(partial(judge_all, folder, told, flips[done : done + 200])))
        for line in told.read_text().splitlines() if told.exists() else []:
            score.add(flips[done], *json.loads(line))
            done += 1
        if status:
            ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
            score.add(flips[done], "silent", f"the process ended with {ended}")
            done += 1
        if not quiet:
            print(f"{done:,} flips, {len(score.silent)} silent", flush=True)
    if score.silent:
        print(f"kept for a look: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(CLASSES), help="this class of file alone")
    given = parser.parse_args()
    started = time.monotonic()
    score = flip_many(given.flips, given.seed, only=given.only, quiet=False)
    print(*score.lines(), sep="\n")
    print("noticed by " + ", ".join(f"{how} ({count})" for how, count in score.shown.most_common()))
    for one in score.silent[:20]:
        print(one)
    print(f"{given.flips:,} flips, {len(score.silent)} silent, {time.monotonic() - started:.0f} s")
    return 1 if score.silent else 0


if __name__ == "__main__":
    sys.exit(main())

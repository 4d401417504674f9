"""The order of a store's calls to the operating system, seen by strace: what a power cut finds is what was promised.

A real program appends, seals, ingests, compacts, collects and backs up under `strace`; between its verbs it writes marks, so
that the calls of one verb can be told from those of the next. What the calls add up to is kept by `Durable`: which bytes and
which names would be lost if the power went at that moment. strace is a Debian package; where it is not installed the tests
are skipped, but not in CI and not where the real data is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = (
    "openat,creat,write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,fsync,fdatasync,sync_file_range,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,flock,ftruncate,truncate,fallocate"
)
PROGRAM = """
    import os, sys, time
    from pathlib import Path
    from eventlab.store.backup import backup
    from eventlab.store.disk import open_store
    from eventlab.store.files import LocalDisk
    from eventlab.testing.contract import append, chunk, draft

    root, marks, careless = Path(sys.argv[1]), os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY), sys.argv[3:]
    now = lambda: time.time_ns() // 1000
    disk = LocalDisk()
    for call in careless:
        setattr(disk, call, lambda *_: None)

    def verb(name, call):
        os.write(marks, f"begin {name};".encode())
        call()
        os.write(marks, f"end {name};".encode())

    def put(store):
        append(store, draft("order-1", 1), draft("item-1", 2))

    def more(store):
        store.ingest(chunk([draft(f"{'order' if i % 3 else 'item'}-{i % 7}", i) for i in range(40)]), tenant="a")

    def seal(store):
        # Somebody else has begun to make a folder, and was killed before it was on the disk.
        (root / "segments" / "1" / "1" / "l0").mkdir(parents=True)
        store.seal()

    opened = []
    verb("open", lambda: opened.append(open_store(root, now=now, disk=disk)))
    (store,) = opened
    verb("append", lambda: put(store))
    verb("seal", lambda: seal(store))
    verb("ingest", lambda: more(store))
    verb("compact", lambda: store.compact(all=True))
    verb("gc", lambda: store.collect(grace=0))
    if not careless:
        verb("backup", lambda: backup(store, root.with_name("copy"), now=now))
    verb("close", store.close)
"""


@dataclass(frozen=True)
class Call:
    """One call that succeeded: what it does (`write`, `sync`, `open`, …), to which file, and the file's new name if any."""

    does: str
    path: str
    to: str = ""
    said: str = ""

    @property
    def kind(self) -> str:
        """What the file is to a store."""
        name = self.path.rpartition("/")[2]
        if name.startswith("catalog.sqlite"):
            return name.removeprefix("catalog.sqlite").lstrip("-") or "catalog"
        if name in ("write.lock", "marks"):
            return name
        return "temporary" if name.endswith(".tmp") else "segment" if name.endswith(".parquet") else "folder"


# -- reading what strace writes --------------------------------------------------------------------------------------------

_LINE = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)\)\s+= (\d+)(?:<(.*?)>)?(?: .*)?$")
_UNFINISHED = re.compile(r"^(\d+)\s+(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. \w+ resumed>(.*)$")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
_QUOTED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_DOES = {
    "write": "write", "writev": "write", "pwrite64": "write", "pwritev": "write", "pwritev2": "write", "sendfile": "write",
    "copy_file_range": "write", "ftruncate": "write", "fallocate": "write", "fsync": "sync", "fdatasync": "sync",
    "unlink": "unlink", "unlinkat": "unlink", "rmdir": "unlink", "mkdir": "make", "mkdirat": "make",
    "rename": "rename", "renameat": "rename", "renameat2": "rename",
}  # fmt: skip


def whole_lines(text: str) -> Iterator[str]:
    """The calls of a trace in the order in which they were over; those of several threads are cut in two by others."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        if cut := _UNFINISHED.match(line):
            begun[cut[1]] = line.removesuffix(" <unfinished ...>")
        elif rest := _RESUMED.match(line):
            yield begun.pop(rest[1]) + rest[2]
        else:
            yield line


def calls_of(text: str, folder: Path) -> list[Call]:
    """The calls in a trace that are about files below a folder, and succeeded."""
    found: list[Call] = []
    for line in whole_lines(text):
        parsed = _LINE.match(line)
        if parsed is None or str(folder) not in line:
            continue
        name, arguments, returned, opened = parsed.groups()
        paths = [os.path.join(base, path) for base, path in _QUOTED.findall(arguments)]
        given = _DESCRIPTOR.match(arguments)
        if name == "openat":
            does = "open" if "O_WRONLY" in arguments or "O_RDWR" in arguments else "look"
            found.append(Call("create" if "O_CREAT" in arguments else does, opened or paths[0]))
        elif name == "flock" and given is not None:
            found.append(Call("unlock" if "LOCK_UN" in arguments else "lock", given[1]))
        elif _DOES.get(name) == "rename":
            found.append(Call("rename", paths[0], paths[1]))
        elif name in _DOES and given is not None and name != "unlinkat" and name != "mkdirat":
            found.append(Call(_DOES[name], given[1], said=arguments.partition(", ")[2]))
        elif name in _DOES:
            found.append(Call(_DOES[name], paths[0]))
        else:
            raise AssertionError(f"a store is not known to make this call: {line}")
        assert int(returned) >= 0
    return [call for call in found if call.path.startswith(str(folder))]


# -- the program under strace ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """All calls of the program below its folder, in their order."""

    folder: Path
    calls: tuple[Call, ...]

    def of(self, verb: str) -> list[Call]:
        """The calls from the beginning of a verb until it was acknowledged."""
        said = [call.said if call.kind == "marks" else "" for call in self.calls]
        (begin,) = (i for i, text in enumerate(said) if f"begin {verb};" in text)
        (end,) = (i for i, text in enumerate(said) if f"end {verb};" in text)
        return list(self.calls[begin + 1 : end])


def strace() -> str:
    """The tool, proved to be allowed to look; skipped where it cannot, unless that would go unnoticed."""
    found = shutil.which("strace")
    why = "strace is not installed: apt-get install strace"
    if found is not None:
        tried = subprocess.run([found, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return found
        why = f"strace may not look at a process here: {tried.stderr.strip()}"
    if os.environ.get("CI") or os.environ.get("EVENTLAB_REAL_DATA"):
        pytest.fail(why)
    pytest.skip(why)


def traced(folder: Path, *careless: str) -> Trace:
    """Run the program, `careless` of some calls of a disk, and read what it did."""
    log = folder / "strace.log"
    command = [strace(), "-f", "-y", "-s", "64", "-o", str(log), "-e", f"trace={CALLS}", sys.executable, "-c"]
    command += [textwrap.dedent(PROGRAM), str(folder / "log"), str(folder / "marks"), *careless]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return Trace(folder, tuple(calls_of(log.read_text(errors="surrogateescape"), folder)))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return traced(tmp_path_factory.mktemp("order").resolve())


# -- what a power cut would leave ------------------------------------------------------------------------------------------


class Durable:
    """What the calls so far have brought to the disk, if it does no more than it was told to."""

    def __init__(self) -> None:
        #: Files whose bytes are not all on the disk, and names that their folder does not have there yet.
        self.dirty: set[str] = set()
        self.unnamed: set[str] = set()
        #: Files and folders that were seen being made.
        self.known: set[str] = set()

    def see(self, call: Call) -> None:
        """Take one call into account."""
        if call.does in ("make", "create") and call.path not in self.known:
            self.unnamed.add(call.path)
            self.known.add(call.path)
        elif call.does == "write":
            self.dirty.add(call.path)
        elif call.does == "sync":
            self.dirty.discard(call.path)
            self.unnamed = {name for name in self.unnamed if os.path.dirname(name) != call.path}
        elif call.does == "unlink":
            for names in (self.dirty, self.unnamed, self.known):
                names.discard(call.path)
        elif call.does == "rename":
            self._rename(call.path, call.to)

    def _rename(self, old: str, new: str) -> None:
        """A file, or a folder with all that is in it, has another name."""

        def renamed(names: set[str]) -> set[str]:
            return {new + name[len(old) :] if name == old or name.startswith(f"{old}/") else name for name in names}

        self.dirty, self.unnamed, self.known = renamed(self.dirty), renamed(self.unnamed), renamed(self.known)
        self.unnamed.add(new)

    def lost(self, below: str = "") -> set[str]:
        """What a power cut would take away now below a folder, but for what is only there for the time being."""
        return {
            path
            for path in self.dirty | self.unnamed
            if path.startswith(below) and Call("", path).kind not in ("temporary", "shm", "journal", "marks", "write.lock")
        }


def lost_at_commits(trace: Trace) -> list[set[str]]:
    """For every commit: what of the store's files, and of the folders they lie in, it would outlive."""
    state, found = Durable(), []
    below = str(trace.folder / "log")
    for call in trace.calls:
        state.see(call)
        if call.does == "sync" and call.kind == "wal" and call.path.startswith(below):
            lost = state.lost(below) - {call.path}
            # A folder without a file may be lost.
            used = [path for path in state.known if path.endswith(".parquet")]
            used += [os.path.join(folder, "") for path in used for folder in map(str, Path(path).parents)]
            found.append({path for path in lost if "/segments" not in path or path in used or f"{path}/" in used})
    return found


def steps(calls: Sequence[Call], *kinds: str) -> list[tuple[str, str]]:
    """The calls to some kinds of files as (call, kind), a row of equal ones as one."""
    found: list[tuple[str, str]] = []
    for call in calls:
        if call.kind in kinds and call.does != "look" and (not found or found[-1] != (call.does, call.kind)):
            found.append((call.does, call.kind))
    return found


COMMIT = [("lock", "write.lock"), ("write", "wal"), ("sync", "wal"), ("unlock", "write.lock")]
#: How many segment files a verb of the program writes: two categories.
FILES = 2


# -- what is promised ------------------------------------------------------------------------------------------------------


def test_an_append_is_acknowledged_when_its_commit_is_on_the_disk(trace: Trace) -> None:
    assert steps(trace.of("append"), "write.lock", "wal", "catalog", "segment", "temporary") == COMMIT


def test_the_catalog_is_written_only_by_the_one_who_holds_the_lock(trace: Trace) -> None:
    held: dict[str, bool] = {}
    stores = [str(trace.folder / name) for name in ("log", "copy")]
    writes = 0
    for call in trace.calls:
        store = os.path.dirname(call.path)
        if call.kind == "write.lock" and call.does in ("lock", "unlock"):
            held[store] = call.does == "lock"
        elif call.kind in ("wal", "catalog") and call.does == "write" and store in stores:
            assert held.get(store), call
            writes += 1
    assert writes > 20


def test_the_lock_is_let_go_when_what_was_written_under_it_is_on_the_disk(trace: Trace) -> None:
    state, released = Durable(), 0
    for call in trace.calls:
        state.see(call)
        if call.does == "unlock":
            assert f"{os.path.dirname(call.path)}/catalog.sqlite-wal" not in state.dirty
            released += 1
    assert released > 10


@pytest.mark.parametrize("verb", ["seal", "ingest", "compact"])
def test_a_segment_is_on_the_disk_under_its_name_before_the_commit_that_makes_it_live(trace: Trace, verb: str) -> None:
    calls = [call for call in trace.of(verb) if call.does != "look"]
    renames = [i for i, call in enumerate(calls) if call.does == "rename"]
    assert len(renames) == FILES
    first = next(i for i, call in enumerate(calls) if call.kind == "temporary")
    last = next(i for i in range(renames[-1], len(calls)) if calls[i].kind == "folder")
    whole = [("create", "temporary"), ("write", "temporary"), ("sync", "temporary"), ("rename", "temporary")]
    assert steps(calls[first : last + 1], "temporary", "segment", "wal", "write.lock") == whole * FILES
    for at in renames:
        call = calls[at]
        assert call.path == f"{os.path.dirname(call.to)}/.{os.path.basename(call.to)}.tmp"
        assert calls[at + 1] == Call("sync", os.path.dirname(call.to)), "the name is on the disk before anything else happens"
    # The commit before names the files that may come; the one after makes them live.
    assert steps(calls[:first], "wal", "write.lock")[-4:] == COMMIT
    assert steps(calls[last:], "wal", "write.lock")[:4] == COMMIT


def test_no_commit_outlives_a_file_or_a_folder_that_it_may_name(trace: Trace) -> None:
    found = lost_at_commits(trace)
    assert len(found) > 10
    assert set().union(*found) == set()


@pytest.mark.parametrize("call", ["sync", "sync_folder"])
def test_a_disk_that_is_not_told_to_keep_things_is_found_out(tmp_path: Path, call: str) -> None:
    lost = set().union(*lost_at_commits(traced(tmp_path.resolve(), call)))
    segments = {path for path in lost if path.endswith(".parquet")}
    assert len(segments) == 3 * FILES


def test_every_verb_is_acknowledged_when_all_it_did_is_on_the_disk(trace: Trace) -> None:
    state, acknowledged = Durable(), 0
    for call in trace.calls:
        state.see(call)
        if call.kind == "marks" and "end " in call.said:
            assert state.lost() == set(), call.said
            acknowledged += 1
    assert acknowledged == 8


def test_a_segment_is_never_opened_for_writing_again(trace: Trace) -> None:
    sealed: set[str] = set()
    for call in trace.calls:
        if call.does == "rename":
            sealed.add(call.to)
        assert not (call.does in ("open", "create", "write") and call.path in sealed), call
    assert len(sealed) > 3 * FILES


def test_garbage_is_deleted_after_the_commit_that_retired_it_and_forgotten_after_that(trace: Trace) -> None:
    retired = {call.to for verb in ("seal", "ingest") for call in trace.of(verb) if call.does == "rename"}
    before = trace.calls[: trace.calls.index(next(call for call in trace.calls if "begin gc" in call.said))]
    assert not [call for call in before if call.does == "unlink" and call.path in retired]
    calls = trace.of("gc")
    assert {call.path for call in calls if call.does == "unlink"} == retired
    # What is due is looked up under the lock; then each file goes, and after it its row.
    looked = [("lock", "write.lock"), ("unlock", "write.lock")]
    assert steps(calls, "segment", "wal", "write.lock") == looked + [("unlink", "segment"), *COMMIT] * len(retired)


def test_a_backup_has_its_name_when_it_is_whole_and_is_acknowledged_when_the_name_is_on_the_disk(trace: Trace) -> None:
    copy = str(trace.folder / "copy")
    state, named = Durable(), 0
    for call in trace.calls:
        if call.does == "rename" and call.to == copy:
            assert state.lost(call.path) == set()
            named += 1
        state.see(call)
        if "end backup" in call.said:
            assert state.lost() == set()
    assert named == 1
    source = str(trace.folder / "log" / "segments")
    assert not [call for call in trace.of("backup") if call.does != "look" and call.path.startswith(source)]

"""What the store on disk promises of the disk: several processes, kills, full and foreign disks, damage."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from store.damage import catalog_of

from eventlab.errors import (
    Damaged,
    DiskFull,
    IngestRefused,
    NewerFormat,
    NoStore,
    ReadOnly,
    SchemaConflict,
    UnsafeDisk,
)
from eventlab.model.schema import Schema
from eventlab.store.catalog import Catalog
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.files import file_system, refuse_unsafe_disk, write_durably
from eventlab.testing.contract import append, chunk, draft, rows, stream_rows

WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).resolve().parents[2]


def now() -> int:
    return time.time_ns() // 1000


@contextlib.contextmanager
def opened(path: Path, **given: Any) -> Iterator[DiskStore]:
    store = open_store(path, now=now, **given)
    try:
        yield store
    finally:
        store.close()


def python(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def writer(mode: str, path: Path, name: str, count: int, size: int = 0) -> subprocess.Popen[str]:
    return python(str(WRITER), mode, str(path), name, str(count), str(size))


def acks(*processes: subprocess.Popen[str], code: int | None = 0) -> list[dict[str, Any]]:
    """What the writers said was acknowledged, when they have ended."""
    found = []
    for process in processes:
        assert process.stdout
        assert process.stderr
        # Not communicate(): it would pass over what readline() has read ahead.
        out, err = process.stdout.read(), process.stderr.read()
        process.wait(60)
        assert code is None or process.returncode == code, err
        # A line that a kill cut short acknowledges nothing.
        found += [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]
    return found


def script(text: str, *arguments: str) -> str:
    """What a program in a process of its own prints."""
    process = python("-c", textwrap.dedent(text), *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def files(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file() and p.suffix in (".parquet", ".tmp"))


def check_whole(store: DiskStore, acknowledged: list[dict[str, Any]]) -> None:
    """Every event that was acknowledged is there, at its position; positions and versions have no gap."""
    found = rows(store.cut())
    assert [row.position for row in found] == list(range(1, store.cut().head + 1))
    versions: dict[str, int] = {}
    for row in found:
        versions[row.stream] = versions.get(row.stream, 0) + 1
        assert row.version == versions[row.stream]
    ids = {row.position: row.event_id.hex() for row in found}
    assert len(set(ids.values())) == len(ids)
    for said in acknowledged:
        assert [ids[position] for position in said["positions"]] == said["ids"]
    assert all(store.version("a", stream) == version for stream, version in versions.items())
    assert [row.recorded_at for row in found] == sorted(row.recorded_at for row in found)


# -- several processes -----------------------------------------------------------------------------------------------------


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        working = [
            writer("append", path, "one", 120), writer("append", path, "two", 120), writer("ingest", path, "files", 12, 100),
            writer("seal", path, "seal", 25),
        ]  # fmt: skip
        said = acks(*working)
        assert sum(len(one["positions"]) for one in said) == store.cut().head == 2 * 120 * 3 + 12 * 100
        check_whole(store, said)
        assert len(stream_rows(store.cut(), "order-shared")) == 240
        assert sorted(store.chunks("a", "files")) == list(range(12))


def test_of_processes_that_expect_one_version_one_wins_each_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_store(path, now=now).close()
    said = acks(*(writer("count", path, name, 100) for name in ("one", "two")))
    assert sorted(one["versions"][0] for one in said) == list(range(1, 201))
    with opened(path) as store:
        # Each event says the version that its writer saw.
        (batch,) = store.cut().stream("counter-1", tenant="a")
        assert [event["n"] for event in batch.events(lambda name: None)] == list(range(200))


def test_a_cut_reads_the_same_while_another_process_seals_and_trims(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        for i in range(20):
            append(store, draft("order-1", i), draft("order-2", i))
        cut = store.cut()
        before = rows(cut), stream_rows(cut, "order-1"), stream_rows(cut, "order-1", after_version=7, until=33)
        acks(writer("seal", path, "seal", 1))
        assert files(path / "segments")
        assert (rows(cut), stream_rows(cut, "order-1"), stream_rows(cut, "order-1", after_version=7, until=33)) == before
        now_read = store.cut()
        assert (
            rows(now_read),
            stream_rows(now_read, "order-1"),
            stream_rows(now_read, "order-1", after_version=7, until=33),
        ) == before


def test_a_type_that_another_process_registered_in_between_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, draft("order-1", 1, schema=Schema("Other", 1, ("n:i64",))))
        store.cut()
        acks(writer("append", path, "one", 1))  # registers Counted version 1 as n:i64
        with pytest.raises(SchemaConflict, match="n:s"):
            append(store, draft("order-1", "x", schema=Schema("Counted", 1, ("n:s",))))
        append(store, draft("order-1", 2))
        assert store.cut().head == 5


# -- kills -----------------------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    path, said, chance = tmp_path / "log", [], random.Random(7)
    open_store(path, now=now).close()
    for round in range(10):
        pair = [writer("everything", path, f"{name}{round}", 0) for name in ("one", "two")]
        firsts = [json.loads(process.stdout.readline()) for process in pair if process.stdout]
        for process in pair:
            time.sleep(chance.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        said += firsts + acks(*pair, code=-signal.SIGKILL)
        with opened(path) as store:
            check_whole(store, said)
    with opened(path) as store:
        store.seal()
        check_whole(store, said)
        assert len(said) >= 20


def test_what_a_killed_sealer_left_behind_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, draft("order-1", 1), draft("item-1", 2))
        append(store, draft("order-1", 3), tenant="b")
        before = rows(store.cut())
    with sqlite3.connect(path / "catalog.sqlite") as catalog:
        for name in ("half", "whole"):
            catalog.execute(
                "INSERT INTO segment(path, tenant, category, level, run_first, run_last, rows, bytes, digest, columns, "
                "min_recorded, max_recorded, state, lease) VALUES(?, 1, 1, 0, 1, 3, 0, 0, '', '[]', 0, 0, 'pending', 0)",
                (f"segments/1/1/l0/{name}.parquet",),
            )
    catalog.close()
    folder = path / "segments/1/1/l0"
    folder.mkdir(parents=True)
    (folder / ".half.parquet.tmp").write_bytes(b"PAR1")
    (folder / "whole.parquet").write_bytes(b"PAR1 and no more")
    with opened(path) as store:
        assert rows(store.cut()) == before
        assert store.seal() == 3
        assert rows(store.cut()) == before
        assert append(store, draft("order-1", 4), expected={"order-1": 1}).positions == (4,)


def test_ctrl_c_in_the_middle_of_an_ingest_leaves_whole_chunks_and_it_goes_on_from_there(tmp_path: Path) -> None:
    path, size, chance, said = tmp_path / "log", 200, random.Random(3), []
    for _ in range(6):
        process = writer("ingest", path, "files", 5_000, size)  # far more than it gets to, however long this process has to wait
        assert process.stdout
        said.append(json.loads(process.stdout.readline()))
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
        said += acks(process, code=None)
        assert process.returncode in (130, -signal.SIGINT)
        with opened(path) as store:
            done = store.chunks("a", "files")
            assert sorted(done) == list(range(len(done)))
            assert store.cut().head == sum(state.rows for state in done.values()) == size * len(done)
            check_whole(store, said)
            live = {str(s.path.relative_to(path / "segments")) for s in store.segments()}
            assert set(files(path / "segments")) == live, "nothing is left over"
    count = len(done) + 10
    acks(writer("ingest", path, "files", count, size))
    with opened(path) as store:
        assert store.cut().head == count * size
        check_whole(store, said)


# -- opening ---------------------------------------------------------------------------------------------------------------


def test_a_store_that_another_process_makes_while_it_is_opened_is_no_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(sqlite3.Connection):
        """Before it is asked a second time, somebody else has made the store."""

        def execute(self, *given: Any) -> sqlite3.Cursor:
            found = super().execute(*given)
            monkeypatch.undo()
            Catalog(tmp_path, read_only=False, create=True).close()
            return found

    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as begun:
        begun.execute("PRAGMA journal_mode=WAL")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Slow))
    Catalog(tmp_path, read_only=False, create=True).close()
    with opened(tmp_path) as store:
        assert store.cut().head == 0


def test_a_store_that_another_process_makes_while_its_folder_is_listed_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_meanwhile(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        Catalog(folder, read_only=False, create=True).close()
        return folder.iterdir()

    monkeypatch.setattr(Path, "iterdir", made_meanwhile)
    with opened(tmp_path) as store:
        assert store.cut().head == 0


def test_one_path_is_one_store_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    link = tmp_path / "link"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    first = open_store(path, now=now)
    assert open_store("log", now=now) is open_store(link, now=now) is first
    append(first, draft("order-1", 1))
    first.close()
    first.close()
    assert first.cut().head == 1, "one who opened it still has it"
    first.close()
    with opened(path) as again:
        assert again is not first
        assert (again.store_id, again.cut().head) == (first.store_id, 1)


def test_a_store_that_is_open_for_reading_is_not_silently_given_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_store(path, now=now).close()
    with opened(path, read_only=True) as store:
        with pytest.raises(ReadOnly, match="reading only"):
            append(store, draft("order-1", 1))
        with pytest.raises(ReadOnly, match="in this process for reading only"):
            open_store(path, now=now)
    with opened(path) as store:
        append(store, draft("order-1", 1))


def test_a_read_only_store_sees_what_others_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_store(path, now=now).close()
    with opened(path, read_only=True) as store:
        for head in (3, 6):
            acks(writer("append", path, "one", 1))
            assert store.cut().head == head
        acks(writer("seal", path, "seal", 1))
        assert len(rows(store.cut())) == 6
        for refuse in (store.seal, lambda: store.read_models.save("order", "a", "f", 1, pa.table({"n": [1]}))):
            with pytest.raises(ReadOnly):
                refuse()
    assert not (path / "read_models").exists()


@contextlib.contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """A folder nobody can write to; for the super-user that takes a mount of its own."""
    mode = path.stat().st_mode
    path.chmod(0o555)
    mounted = False
    try:
        if os.access(path, os.W_OK):
            mount = ["mount", "--bind", str(path), str(path)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("this user can write anywhere, and may not mount")
            mounted = True
            subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.chmod(mode)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_folder_that_cannot_be_written_opens_for_reading(tmp_path: Path, sealed: bool) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, draft("order-1", 1), draft("item-1", 2))
        store.read_models.save("order", "a", "f", 1, pa.table({"n": [1]}))
        if sealed:
            store.seal()
        before = rows(store.cut())
    with unwritable(path), opened(path) as store:
        assert store.read_only
        assert rows(store.cut()) == before
        assert store.read_models.accepted("a")["order"].table()["n"].to_pylist() == [1]
        with pytest.raises(ReadOnly):
            append(store, draft("order-1", 1))
    with opened(path) as store:
        assert not store.read_only


def test_a_folder_without_a_store_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(NoStore, match="there is no store in"):
        open_store(tmp_path / "none", now=now, create=False)
    with pytest.raises(NoStore, match="there is no store in"):
        open_store(tmp_path / "none", now=now, read_only=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(NoStore, match="is a file"):
        open_store(tmp_path / "file", now=now)
    mine = tmp_path / "documents"
    mine.mkdir()
    (mine / "letter.txt").write_text("Dear")
    with pytest.raises(NoStore, match=r"letter\.txt"):
        open_store(mine, now=now)
    assert [p.name for p in mine.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("foreign", ["sqlite", "sqlite in WAL mode", "text"])
def test_a_database_of_another_program_is_left_as_it_was(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "app"
    path.mkdir()
    file = path / "catalog.sqlite"
    if foreign == "text":
        file.write_text("not a database at all, " * 200)
    else:
        with contextlib.closing(sqlite3.connect(file)) as other:
            if "WAL" in foreign:
                other.execute("PRAGMA journal_mode=WAL")
            other.execute("CREATE TABLE log(x)")
            other.commit()
    before = file.read_bytes()
    for given in ({}, {"read_only": True}):
        with pytest.raises(NoStore, match=r"catalog\.sqlite is (not the catalog|a database of another program)"):
            open_store(path, now=now, **given)
    assert file.read_bytes() == before
    assert [p.name for p in path.iterdir() if p.name[-4:] not in ("-shm", "-wal")] == ["catalog.sqlite"]


def test_a_store_whose_making_was_interrupted_is_made_on_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.mkdir()
    (path / "write.lock").touch()
    (path / "catalog.sqlite").touch()
    with pytest.raises(NoStore, match="there is no store"):
        open_store(path, now=now, create=False)
    with opened(path) as store:
        assert append(store, draft("order-1", 1)).positions == (1,)


def test_a_store_of_a_newer_format_asks_for_a_newer_eventlab(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_store(path, now=now).close()
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE log SET format = 99")
        catalog.commit()
    for given in ({}, {"read_only": True}):
        with pytest.raises(NewerFormat, match="format 99") as caught:
            open_store(path, now=now, **given)
        assert caught.value.format == 99


def test_a_store_that_was_open_at_a_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    said = script(
        """
        import os, sys, time
        from eventlab.errors import StoreError
        from eventlab.store.disk import open_store
        from eventlab.testing.contract import append, draft
        now = lambda: time.time_ns() // 1000
        store = open_store(sys.argv[1], now=now)
        append(store, draft("order-1", 1))
        child = os.fork()
        if not child:
            for call in (store.cut, lambda: append(store, draft("order-1", 2)), lambda: open_store(sys.argv[1], now=now)):
                try:
                    call()
                    print("done")
                except StoreError as why:
                    print("refused", "spawn" in str(why))
            store.close()
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print(append(store, draft("order-1", 3)).positions, store.cut().head)
        """,
        str(tmp_path / "log"),
    )
    assert said.splitlines() == ["refused True"] * 3 + ["(2,) 2"]


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:50 / /mnt/share rw - nfs4 server:/export rw
32 22 0:51 / /mnt/with\\040space rw - cifs //server/x rw
33 22 0:52 / /media/ann/cloud rw - fuse.sshfs ann@host rw
34 22 0:53 / /mnt/größe rw - nfs server:/x rw
35 31 8:2 / /mnt/share/local rw - xfs /dev/sdb1 rw
36 22 0:54 / /mnt/odd rw - holofs none rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/var/log", "ext4", None),
        ("/mnt/shared", "ext4", None),
        ("/mnt/share", "nfs4", "a network file system"),
        ("/mnt/share/a/b", "nfs4", "a network file system"),
        ("/mnt/share/local/store", "xfs", None),
        ("/mnt/with space/store", "cifs", "a network file system"),
        ("/mnt/größe/store", "nfs", "a network file system"),
        ("/media/ann/cloud/x", "fuse.sshfs", "a user-space file system"),
        ("/mnt/odd/x", "holofs", "unknown"),
    ],
)
def test_a_disk_that_cannot_be_trusted_is_refused_unless_it_is_named(path: str, kind: str, says: str | None) -> None:
    assert file_system(Path(path), MOUNTS) == kind
    if says is None:
        refuse_unsafe_disk(Path(path), mounts=MOUNTS)
        return
    with pytest.raises(UnsafeDisk, match=says) as caught:
        refuse_unsafe_disk(Path(path), mounts=MOUNTS)
    assert f"allow_disk={kind!r}" in caught.value.hint
    with pytest.raises(UnsafeDisk):
        refuse_unsafe_disk(Path(path), mounts=MOUNTS, allow="another")
    refuse_unsafe_disk(Path(path), mounts=MOUNTS, allow=kind)


# -- disks that fail -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes of its own."""
    path = tmp_path / "small"
    path.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this user may not mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_on_a_full_disk_what_was_acknowledged_stays_and_with_room_it_goes_on(small_disk: Path) -> None:
    path, said = small_disk / "log", []
    large = Schema("Large", 1, ("text:bin",))
    with opened(path) as store:

        def fill() -> None:
            for i in range(200):
                given = draft("order-1", random.Random(i).randbytes(40_000), schema=large)
                done = append(store, given)
                said.append({"positions": done.positions, "ids": [given.event_id.hex()]})

        with pytest.raises(DiskFull, match="no space left"):
            fill()
        check_whole(store, said)
        with pytest.raises(DiskFull):
            store.seal()
        noise = [draft(f"order-{i}", random.Random(i).randbytes(1000), schema=large) for i in range(4000)]
        with pytest.raises(DiskFull):
            store.ingest(chunk(noise), tenant="a")
        assert files(path) == []
        check_whole(store, said)
    with opened(path) as store:
        check_whole(store, said)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        assert store.ingest(chunk(noise), tenant="a").rows == 4000
        assert store.seal() == len(said)
        assert rows(store.cut())[-1].position == len(said) + 4000


def test_a_write_that_fails_half_way_poisons_the_writer_until_it_is_opened_again(tmp_path: Path) -> None:
    said = script(
        """
        import os, resource, sys, time
        from eventlab.errors import Poisoned
        from eventlab.store.disk import open_store
        from eventlab.testing.contract import append, draft, rows
        now = lambda: time.time_ns() // 1000
        path = sys.argv[1]
        store = open_store(path, now=now)
        append(store, draft("order-1", 1))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path + "/catalog.sqlite-wal").st_size + 100, limits[1]))
        for attempt in range(2):
            try:
                append(store, draft("order-1", 2))
                print("done")
            except Poisoned as why:
                print("poisoned", "open the store again" in str(why))
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        print(len(rows(store.cut())))
        store.close()
        store = open_store(path, now=now)
        print(append(store, draft("order-1", 3)).positions, len(rows(store.cut())))
        """,
        str(tmp_path / "log"),
    )
    assert said.splitlines() == ["poisoned True", "poisoned True", "1", "(2,) 2"]


def test_a_failed_write_leaves_no_file_under_any_name(tmp_path: Path) -> None:
    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_durably(tmp_path / "new" / "file", fail)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_seal_ends_with_the_events_there_were_though_a_writer_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as store:
        append(store, *(draft("order-1", i) for i in range(1_200)))

        def meanwhile() -> None:
            append(store, draft("order-2", 1))

        # Between two slices, and before and after a file is written, somebody appends.
        assert store.seal(pause=meanwhile) == 1_200
        assert [(s.first, s.last) for s in store.segments()] == [(1, 1_200)]
        assert store.cut().head > 1_203
        assert [row.position for row in rows(store.cut())] == list(range(1, store.cut().head + 1))


def test_a_refused_ingest_leaves_no_file_and_no_pending_segment(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, draft("order-1", 1))
        with pytest.raises(IngestRefused):
            store.ingest(chunk([draft("item-1", 1), draft("order-1", 1)], recorded_at=[now() + 10**9, 5]), tenant="a")
        assert files(path) == []
        with store.inspect() as catalog:
            assert catalog.execute("SELECT count(*) FROM segment").fetchone() == (0,)


# -- damage ----------------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_a_segment_is_noticed_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, *(draft("order-1", i) for i in range(100)))
        store.seal()
    segment = path / files(path)[0]
    whole = segment.read_bytes()
    segment.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with opened(path) as store:
        for read in (
            lambda: rows(store.cut()),
            lambda: stream_rows(store.cut(), "order-1"),
            lambda: store.cut().sources("a"),
        ):
            with pytest.raises(Damaged, match="is not what was written") as caught:
                read()
            assert caught.value.path == str(segment)
        append(store, draft("order-2", 1))
        assert [r.position for r in rows(store.cut(), after=100)] == [101]
    segment.unlink()
    with opened(path) as store, pytest.raises(Damaged, match="is missing"):
        rows(store.cut())
    segment.write_bytes(whole)
    with opened(path) as store:
        assert len(rows(store.cut())) == 101


def test_a_hot_payload_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        append(store, draft("order-1", 1))
    with catalog_of(path) as catalog:
        catalog.execute("UPDATE event SET record = set_in(record, 'payload', x'c1'), digest = digest_of(record)")
    with opened(path) as store, pytest.raises(Damaged, match="cannot be read"):
        rows(store.cut())


def test_read_models_can_be_deleted_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "log"
    table = pa.table({"_id": ["1"]})
    with opened(path) as store:
        store.read_models.save("order", "a", "f", 1, table)
        store.read_models.save("item", "a", "f", 1, table)
        base = store.read_models.accepted("a")["order"]
        base_file = next(p for p in (path / "read_models").iterdir() if p.name.startswith("order"))
        base_file.unlink()
        assert sorted(store.read_models.accepted("a")) == ["item"]
        assert base.table() == table
        shutil.rmtree(path / "read_models")
        assert store.read_models.accepted("a") == {}
        store.read_models.save("order", "a", "f", 2, table)
        assert store.read_models.accepted("a")["order"].position == 2


def test_a_damaged_read_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as store:
        store.read_models.save("order", "a", "f", 1, pa.table({"_id": ["1"]}))
        file = next((path / "read_models").iterdir())
        raw = bytearray(file.read_bytes())
        raw[30] ^= 1
        file.write_bytes(bytes(raw))
    with opened(path) as store, pytest.raises(Damaged, match="rebuild"):
        store.read_models.accepted("a")["order"].table()

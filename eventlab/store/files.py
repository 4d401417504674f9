"""Durable files: what it takes that bytes and names survive a crash, and which disks can be trusted with it.

Every change that a store makes to its folder, but for the catalog's own (SQLite's), goes through a `Disk`: a dozen calls
that a simulated or faulty disk can stand in for. `write_durably` and `remove` are made of them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, Protocol

from eventlab.errors import DiskFull, StoreError, UnsafeDisk

#: File systems on which flock, rename and fsync do what the store needs.
LOCAL_FILE_SYSTEMS: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "tmpfs", "ramfs", "overlay",
     "aufs", "squashfs", "erofs", "apfs", "hfs", "ufs"}
)  # fmt: skip
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "ncpfs", "ocfs2", "gfs2", "beegfs"}
)


class Disk(Protocol):
    """What a store does to files. Paths are absolute; errors are those of the operating system."""

    def create(self, path: Path) -> IO[bytes]:
        """A new file, open for writing; one of that name is emptied."""
        ...

    def sync(self, file: IO[bytes]) -> None:
        """Everything written to the file so far is on the disk when this returns."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """The file has its new name at once, for everyone."""
        ...

    def sync_folder(self, path: Path) -> None:
        """The names in the folder are on the disk when this returns."""
        ...

    def unlink(self, path: Path) -> None:
        """The name is gone; whoever has the file open keeps its bytes."""
        ...

    def make_folder(self, path: Path) -> bool:
        """Make a folder in one that is there; False when it is there already."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def files(self, path: Path) -> Iterator[Path]:
        """Every file below a folder."""
        ...

    def size(self, path: Path) -> int: ...
    def digest(self, path: Path) -> str:
        """SHA-256 of a file, in hex."""
        ...

    def free(self, path: Path) -> int:
        """Bytes that can still be written to the disk of a folder."""
        ...


class LocalDisk:
    """The operating system's own files."""

    def create(self, path: Path) -> IO[bytes]:
        return path.open("wb")

    def sync(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def make_folder(self, path: Path) -> bool:
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def remove_folder(self, path: Path) -> None:
        path.rmdir()

    def files(self, path: Path) -> Iterator[Path]:
        return (found for found in sorted(path.rglob("*")) if found.is_file())

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def digest(self, path: Path) -> str:
        return file_digest(path)

    def free(self, path: Path) -> int:
        return shutil.disk_usage(path).free


LOCAL_DISK: Final = LocalDisk()


def write_durably(path: Path, write: Callable[[IO[bytes]], object], disk: Disk = LOCAL_DISK) -> None:
    """Write a file so that it is either there, whole, or not there under its name.

    `write` fills a temporary file beside it; then fsync, rename, and fsync of the folder.
    """
    make_folders(path.parent, disk)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path):
            with disk.create(temporary) as file:
                write(file)
                disk.sync(file)
            disk.rename(temporary, path)
            # fsync the folder too: without it a crash can lose the name though the bytes are safe.
            disk.sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise


def make_folders(path: Path, disk: Disk = LOCAL_DISK, *, below: Path | None = None) -> None:
    """Make a folder and those above it, so that a crash cannot lose one of them.

    A folder that is there already may have been made a moment ago by someone who has not synced it yet: with `below` the
    names of all folders between that one and this are synced, whoever made them.
    """
    missing = [path] if not path.exists() else []
    while missing and not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    with disk_errors(path):
        made = set()
        for folder in reversed(missing):
            if disk.make_folder(folder):
                disk.sync_folder(folder.parent)
                made.add(folder)
        if below is not None:
            for folder in reversed([path, *path.parents]):
                if below in folder.parents and folder not in made:
                    disk.sync_folder(folder.parent)


def remove(path: Path, disk: Disk = LOCAL_DISK) -> None:
    """Remove a file if it is there; that it comes back after a crash does no harm."""
    with contextlib.suppress(FileNotFoundError), disk_errors(path):
        disk.unlink(path)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error that says what is safe."""
    try:
        yield
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path) from why
        if why.errno in (errno.EMFILE, errno.ENFILE):
            raise StoreError(
                f"too many open files, at {path}",
                hint="close some, or raise the limit (ulimit -n); what was acknowledged is safe",
            ) from why
        if why.errno in (errno.EIO, errno.EROFS, errno.ENODEV):
            raise StoreError(
                f"the disk failed at {path}: {why.strerror}",
                hint="what was acknowledged is safe; see to the disk, then repeat the call",
                path=str(path),
            ) from why
        raise


def disk_full(path: Path) -> DiskFull:
    """The error for a disk without room."""
    return DiskFull(
        f"no space left on the disk of {path}",
        hint="what was acknowledged is safe and the store opens; make room and repeat the call",
        path=str(path),
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_memory() -> int | None:
    """Bytes of memory that this process can still have, or None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = [] if found is None else [int(found[1]) << 10]
    free += [] if limit == resource.RLIM_INFINITY else [max(0, limit - mapped)]
    return min(free, default=None)


def file_system(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that a path lies on, or None where the system does not say.

    `mounts` is the text of `/proc/self/mountinfo`, for tests.
    """
    if mounts is None:
        if not sys.platform.startswith("linux"):
            return None
        try:
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return None
    target = str(path.resolve())
    best, kind = -1, None
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        # The kernel writes a space as \040; everything else, such as a letter with an accent, stands for itself.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind


def refuse_unsafe_disk(path: Path, *, allow: str | None = None, mounts: str | None = None) -> None:
    """`UnsafeDisk` for network, FUSE and unknown file systems, unless `allow` names the very type."""
    kind = file_system(path, mounts)
    if kind is None or kind in LOCAL_FILE_SYSTEMS or kind == allow:
        return
    what = (
        "a network file system" if kind in NETWORK_FILE_SYSTEMS else "a user-space file system" if "fuse" in kind else "unknown"
    )
    raise UnsafeDisk(
        f"{path} lies on {kind!r} ({what}), whose locks and fsync eventlab cannot trust",
        hint=f"use a local disk, or take the risk by name: el.open(path, allow_disk={kind!r})",
        path=str(path),
        file_system=kind,
    )

"""Durable files: what it takes that bytes and names survive a crash, and which disks can be trusted with it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from eventlab.errors import DiskFull, UnsafeDisk

#: File systems on which flock, rename and fsync do what the store needs.
LOCAL_FILE_SYSTEMS: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "tmpfs", "ramfs", "overlay",
     "aufs", "squashfs", "erofs", "apfs", "hfs", "ufs"}
)  # fmt: skip
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "ncpfs", "ocfs2", "gfs2", "beegfs"}
)


def write_durably(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that it is either there, whole, or not there under its name.

    `write` fills a temporary file beside it; then fsync, rename, and fsync of the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path):
            write(temporary)
            fsync(temporary)
            os.rename(temporary, path)
            # fsync the folder too: without it a crash can lose the name though the bytes are safe.
            fsync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def fsync(path: Path) -> None:
    """fsync of a file or folder by name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says what is safe."""
    try:
        yield
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path) from why
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

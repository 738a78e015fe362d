"""Flushes, renames and locks, where a file system has them.

A network drive, a FUSE mount or a bucket may lack one of these and say so. What is lacking is a
warning, once for each, and the work resumes without it. An error of the disk itself is raised.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from minigen.errors import UserError

LACKING = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
NO_FOLDER = {*LACKING, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}  # to open and flush
NO_LOCK = {*LACKING, errno.ENOLCK}
NO_RENAME = {*LACKING, errno.EXDEV, errno.EEXIST, errno.EPERM, errno.EACCES}
TAKEN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}

_warned = set[str]()


def flush(file: BinaryIO) -> None:
    """Return when what was written lies on the disk, where a power cut leaves it."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        _pass_over(error, LACKING, "flushes no file, so a power cut may cost what was saved last")


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, so that a rename survives a power cut."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        _pass_over(error, NO_FOLDER, "flushes no folder, so a power cut may undo the last save")


def rename_file(part: Path, path: Path) -> None:
    """Give a file the name `path`, at once, also where another file has it."""
    try:
        part.replace(path)
    except OSError as error:
        _pass_over(error, NO_RENAME, "renames no file, so files are copied")
        shutil.copyfile(part, path)
        part.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex, without holding all of the content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; the file becomes `path` when the block ends.

    The file `path` is whole at any moment. If the block raises, the temporary file vanishes. Two
    processes may write the same file at once: each writes its own, and the later one stays.

    Raises `UserError` if the disk does not take the file.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            flush(file)
        rename_file(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or mend that") from None
    finally:
        with contextlib.suppress(OSError):  # the file is `path` now, or was never begun
            part.unlink()


def rename_folder(folder: Path, target: Path, last: str) -> None:
    """Give a folder a name that is free, at once.

    Args:
        last: the file without which the folder counts for nothing; where folders cannot be renamed,
            the files are copied, and this one is the last.
    """
    try:
        os.rename(folder, target)
        return
    except OSError as error:
        _pass_over(error, NO_RENAME, "renames no folder, so checkpoints are copied")
    target.mkdir()  # which fails if the name is not free
    try:
        for name in sorted(os.listdir(folder), key=lambda name: name == last):
            with (folder / name).open("rb") as source, (target / name).open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                flush(file)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def take_lock(path: Path) -> BinaryIO:
    """Lock a file, which is made if it is missing, for this process; return it, open.

    The kernel holds the lock. It is free again when the file is closed or the process ends, however
    that comes about. Raises `BlockingIOError` if another process has it.
    """
    file = path.open("ab+")
    try:
        _lock(file)
    except OSError as error:
        try:
            if error.errno in TAKEN:
                raise BlockingIOError(error.errno, error.strerror) from None
            _pass_over(error, NO_LOCK, "has no locks, so never train twice in one folder at once")
        except OSError:
            file.close()
            raise
    return file


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 20)  # nobody can read what is locked there, so it is no byte of the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _pass_over(error: OSError, lacking: set[int], meaning: str) -> None:
    """Warn of what a file system lacks, once; raise an error that means anything else."""
    if error.errno not in lacking:
        raise error
    if meaning not in _warned:
        _warned.add(meaning)
        with contextlib.suppress(OSError):
            print(f"warning: this file system {meaning} ({error.strerror})", file=sys.stderr)

"""Flush, rename and lock files, also on a file system that does not support all of these.

A network drive, a FUSE mount or a bucket may answer "not supported". Then one warning says so, and
the work continues without that operation. An error of the disk itself, such as EIO, is raised.
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

# The errors that mean "this file system does not support the operation".
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
FLUSH_FOLDER_UNSUPPORTED = {
    *UNSUPPORTED, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM
}  # fmt: skip
LOCK_UNSUPPORTED = {*UNSUPPORTED, errno.ENOLCK}
RENAME_UNSUPPORTED = {*UNSUPPORTED, errno.EXDEV, errno.EEXIST, errno.EPERM, errno.EACCES}
# The errors that mean "another process has the lock".
LOCKED = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}

_warned = set[str]()


def flush(file: BinaryIO) -> None:
    """Flush a file's data from the system's cache to the disk, where a power cut cannot lose it."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        meaning = "flushes no file, so a power cut may lose the last save"
        _warn_if_in(UNSUPPORTED, error, meaning)


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
        meaning = "flushes no folder, so a power cut may undo the last save"
        _warn_if_in(FLUSH_FOLDER_UNSUPPORTED, error, meaning)


def rename_file(source: Path, target: Path) -> None:
    """Rename a file, as one atomic operation; a file that has the name `target` is replaced."""
    try:
        source.replace(target)
    except OSError as error:
        _warn_if_in(RENAME_UNSUPPORTED, error, "renames no file, so files are copied")
        shutil.copyfile(source, target)
        source.unlink()


def sha256_of(path: Path, start: int = 0, stop: int | None = None) -> str:
    """Return the SHA-256 of a file, in hex; the file may be larger than the memory.

    Args:
        start, stop: of its bytes, the part to hash; None: to the end.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while data := file.read(1 << 20 if stop is None else min(1 << 20, stop - file.tell())):
            digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; the file is renamed to `path` when the block ends.

    So at any moment `path` is a complete file, or there is none. If the block raises, the temporary
    file is deleted. Two processes may write the same path at once: each has its own temporary file,
    and the later rename wins.

    Raises `UserError` if the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            flush(file)
        rename_file(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room, or make the folder writable"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or never made
            temporary.unlink()


def rename_folder(folder: Path, target: Path, last: str) -> None:
    """Rename a folder to a name that is free, as one atomic operation.

    If the file system cannot rename folders, copy the files and then delete the folder.

    Args:
        last: the file to copy last, without which readers ignore the folder: so an incomplete copy
            is never taken for a complete one.
    """
    try:
        os.rename(folder, target)
        return
    except OSError as error:
        _warn_if_in(RENAME_UNSUPPORTED, error, "renames no folder, so checkpoints are copied")
    target.mkdir()  # raises if the name is not free
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
    """Lock a file for this process, and create it if it is missing; return the open file.

    The kernel keeps the lock, and frees it when the file is closed or the process ends, even by
    kill -9. So no lock can remain of a process that has died.

    Raises `BlockingIOError` if another process has the lock.
    """
    file = path.open("ab+")
    try:
        _lock(file)
    except OSError as error:
        try:
            if error.errno in LOCKED:
                raise BlockingIOError(error.errno, error.strerror) from None
            meaning = "has no locks, so never train twice in one folder at once"
            _warn_if_in(LOCK_UNSUPPORTED, error, meaning)
        except OSError:
            file.close()
            raise
    return file


def _lock(file: BinaryIO) -> None:
    """Lock an open file for this process; raise `OSError` if that is impossible."""
    if sys.platform == "win32":
        import msvcrt

        # Windows lets no other process read the locked byte, so lock one after the file's text.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _warn_if_in(unsupported: set[int], error: OSError, meaning: str) -> None:
    """Raise the error unless its number is in `unsupported`; then print a warning, once.

    Args:
        meaning: the rest of the sentence "this file system ...".
    """
    if error.errno not in unsupported:
        raise error
    if meaning not in _warned:
        _warned.add(meaning)
        with contextlib.suppress(OSError):
            print(f"warning: this file system {meaning} ({error.strerror})", file=sys.stderr)

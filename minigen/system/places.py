"""Choose folders for files that can be made again: a checkout, or the user's cache."""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
import tempfile
from pathlib import Path

from minigen.errors import UserError
from minigen.system.shell import ROOT, is_checkout

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def data_folder() -> Path:
    """Return the folder for corpora that minigen makes or downloads, and for tokenised texts.

    The environment variable MINIGEN_DATA names it. Without that variable it is `data` beside
    train.py in a checkout, and minigen's folder in the user's cache where minigen is installed.
    """
    if named := os.environ.get("MINIGEN_DATA"):
        return Path(named)
    if is_checkout():
        return ROOT / "data"
    return (_cache() or _temporary() or Path(tempfile.gettempdir())) / "data"


@functools.cache
def writable(folder: Path) -> Path:
    """Return the folder if this user may write there; else a folder of that name in the cache.

    The cache is the user's own, or else a folder for temporary files. If the folder is replaced,
    one line on stderr says so, once. Only permissions are checked: a full disk shows later, as an
    error of writing.

    Raises `UserError` if no folder can be written.
    """
    if can_write(folder):
        return folder
    tried = [folder]
    for cache in (_cache(), _temporary()):
        if cache is None:
            continue
        substitute = cache / folder.name
        if can_write(substitute):
            print(f"{folder} cannot be written; {substitute} is used instead", file=sys.stderr)
            return substitute
        tried.append(substitute)
    raise UserError(
        f"cannot write in any of {', '.join(map(str, tried))}; "
        "set XDG_CACHE_HOME to a folder where you can"
    )


def can_write(folder: Path) -> bool:
    """Return whether this user may create files in a folder, which need not exist yet."""
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError as error:
        return error.errno not in NOT_WRITABLE


def _cache() -> Path | None:
    """Return minigen's folder in the user's cache; None for a user without a home folder."""
    named = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(named or Path.home() / ".cache") / "minigen"
    except RuntimeError:  # in a container, a user may be only a number
        return None


def _temporary() -> Path | None:
    """Return a folder for temporary files that only this user can write; None if it is impossible.

    A folder of another user is refused: that user could change the files in it.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"minigen-{getattr(os, 'getuid', int)()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_private = os.name != "posix" or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return folder if stat.S_ISDIR(status.st_mode) and is_private else None

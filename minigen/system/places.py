"""Folders for files that can be made again: beside the program, or in the user's own cache."""

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

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def data_folder() -> Path:
    """Return the folder for corpora that minigen makes or downloads, and for tokenised texts.

    It is the folder that the environment variable MINIGEN_DATA names, or `data` beside train.py in
    a checkout, or else minigen's folder in the user's cache.
    """
    if named := os.environ.get("MINIGEN_DATA"):
        return Path(named)
    if is_checkout():
        return ROOT / "data"
    return (_cache() or _temporary() or Path(tempfile.gettempdir())) / "data"


@functools.cache
def writable(folder: Path) -> Path:
    """Return the folder if files can be written there, or one of the same name in the user's cache.

    A line on stderr names the other folder, once. Only permissions are checked: a full disk, for
    example, is an error of the writing.

    Raises `UserError` if neither can be written.
    """
    if can_write(folder):
        return folder
    tried = [folder]
    for cache in (_cache(), _temporary()):
        if cache is None:
            continue
        place = cache / folder.name
        if can_write(place):
            print(f"{folder} cannot be written; {place} is used instead", file=sys.stderr)
            return place
        tried.append(place)
    raise UserError(
        f"cannot write in any of {', '.join(map(str, tried))}; "
        "set XDG_CACHE_HOME to a folder where you can"
    )


def can_write(folder: Path) -> bool:
    """Return whether this user may make files in a folder, or make the folder if it is missing."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError as error:
        return error.errno not in FORBIDDEN


def _cache() -> Path | None:
    """Return minigen's folder in the user's cache; None for a user who has no home."""
    named = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(named or Path.home() / ".cache") / "minigen"
    except RuntimeError:  # a number without a name, as in a container
        return None


def _temporary() -> Path | None:
    """Return a folder for temporary files of this user alone; None if there can be none."""
    try:
        folder = Path(tempfile.gettempdir()) / f"minigen-{getattr(os, 'getuid', int)()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    mine = os.name != "posix" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return folder if stat.S_ISDIR(found.st_mode) and mine else None

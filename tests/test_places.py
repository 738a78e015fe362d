"""Folders for files that can be made again, also for an installation that cannot be written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigen import corpora
from minigen.corpora import tales
from minigen.errors import UserError
from minigen.system import places, shell


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Return a list of folders in which no file can be made, not even by root: tests append to it.

    The folders "installed", "home" (the user's cache) and "tmp" in `tmp_path` are in use.
    """
    folders: list[Path] = []
    make, mkdir = tempfile.TemporaryFile, Path.mkdir

    def check(folder: Path) -> None:
        if any(folder.is_relative_to(one) for one in folders):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def make_checked(dir: Path) -> Any:
        check(dir)
        return make(dir=dir)

    def mkdir_checked(path: Path, *args: Any, **options: Any) -> None:
        check(path)
        mkdir(path, *args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", make_checked)
    monkeypatch.setattr(Path, "mkdir", mkdir_checked)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    for name in ("installed", "home", "tmp"):
        mkdir(tmp_path / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    places.writable.cache_clear()
    yield folders
    places.writable.cache_clear()


def test_the_first_writable_folder_is_used(
    forbidden: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The installation, the user's cache, and a temporary folder of the user are tried in order.

    One line on stderr names the folder that is used instead. If none can be written, an error says
    how to name another.
    """
    folder = tmp_path / "installed" / "cache"
    assert places.writable(folder) == folder and capsys.readouterr().err == ""
    forbidden.append(tmp_path / "installed")
    for cache in (tmp_path / "home" / "minigen", tmp_path / "tmp" / f"minigen-{os.getuid()}"):
        places.writable.cache_clear()
        assert places.writable(folder) == places.writable(folder) == cache / "cache"
        stderr = capsys.readouterr().err
        assert stderr == f"{folder} cannot be written; {cache / 'cache'} is used instead\n"
        forbidden.append(cache.parent if cache.name == "minigen" else cache)
    places.writable.cache_clear()
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder where you can"):
        places.writable(folder)


def test_a_temporary_folder_that_others_can_write_is_not_used(
    forbidden: list[Path], tmp_path: Path
) -> None:
    """A temporary folder that other users can write is refused: they could change its files."""
    shared = tmp_path / "tmp" / f"minigen-{os.getuid()}"
    os.mkdir(shared)
    shared.chmod(0o777)
    forbidden += [tmp_path / "installed", tmp_path / "home"]
    with pytest.raises(UserError, match="cannot write in any of"):
        places.writable(tmp_path / "installed" / "cache")


def test_a_user_without_a_home_folder_uses_the_temporary_folder(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without a home folder, such as a bare number in a container, gets a temporary one."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    forbidden.append(tmp_path / "installed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert places.writable(tmp_path / "installed" / "cache").is_relative_to(tmp_path / "tmp")


def test_the_data_folder_is_in_the_checkout_or_in_the_users_cache(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data folder is in the checkout, or in the user's cache, or the one in MINIGEN_DATA."""
    monkeypatch.delenv("MINIGEN_DATA", raising=False)
    assert places.data_folder() == shell.ROOT / "data"
    monkeypatch.setattr(shell, "ROOT", tmp_path / "installed")
    assert places.data_folder() == tmp_path / "home" / "minigen" / "data"
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "named"))
    assert places.data_folder() == tmp_path / "named"


def test_a_corpus_is_read_from_an_installation_and_written_to_a_writable_folder(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus that lies in a read-only installation is read there; a new one goes to the cache."""
    sizes = {"train_bytes": 9000, "val_bytes": 2000}
    write = tales.write
    monkeypatch.setattr(tales, "write", lambda folder: write(folder, **sizes))
    data = tmp_path / "installed" / "data"
    assert corpora.find(["tales"], data).train == (data / "tales" / "train.txt",)
    forbidden.append(tmp_path / "installed")
    assert corpora.find(["tales"], data).train == (data / "tales" / "train.txt",)
    other = tmp_path / "installed" / "other"
    for _ in range(2):  # first it is written, then found
        files = corpora.find(["tales"], other).train
        assert files == (tmp_path / "home" / "minigen" / "tales" / "train.txt",)

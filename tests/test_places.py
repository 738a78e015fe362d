"""Files that can be made again find another place where the installation cannot be written."""

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
    """Folders in which, and below which, no file can be made; also for root, as on a mount."""
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


def test_a_place_that_can_be_written_is_found(
    forbidden: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The installation, then the user's cache, then a temporary folder of the user's own."""
    folder = tmp_path / "installed" / "cache"
    assert places.writable(folder) == folder and capsys.readouterr().err == ""
    forbidden.append(tmp_path / "installed")
    for there in (tmp_path / "home" / "minigen", tmp_path / "tmp" / f"minigen-{os.getuid()}"):
        places.writable.cache_clear()
        assert places.writable(folder) == places.writable(folder) == there / "cache"
        said = capsys.readouterr().err
        assert said == f"{folder} cannot be written; {there / 'cache'} is used instead\n"
        forbidden.append(there.parent if there.name == "minigen" else there)
    places.writable.cache_clear()
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder where you can"):
        places.writable(folder)


def test_a_temporary_folder_of_somebody_else_is_not_used(
    forbidden: list[Path], tmp_path: Path
) -> None:
    """Who made it could change what is read there."""
    theirs = tmp_path / "tmp" / f"minigen-{os.getuid()}"
    os.mkdir(theirs)
    theirs.chmod(0o777)
    forbidden += [tmp_path / "installed", tmp_path / "home"]
    with pytest.raises(UserError, match="cannot write in any of"):
        places.writable(tmp_path / "installed" / "cache")


def test_a_user_without_a_home_has_a_place(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number without a name, as in a container."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    forbidden.append(tmp_path / "installed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert places.writable(tmp_path / "installed" / "cache").is_relative_to(tmp_path / "tmp")


def test_texts_lie_in_the_checkout_or_in_the_users_cache(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package is no place for them; MINIGEN_DATA names another one in both cases."""
    monkeypatch.delenv("MINIGEN_DATA", raising=False)
    assert places.data_folder() == shell.ROOT / "data"
    monkeypatch.setattr(shell, "ROOT", tmp_path / "installed")
    assert places.data_folder() == tmp_path / "home" / "minigen" / "data"
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "mine"))
    assert places.data_folder() == tmp_path / "mine"


def test_a_corpus_is_read_where_it_lies_and_written_where_it_can_be(
    forbidden: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation that has the corpus needs no other place; one without it has one."""
    sizes = {"train_bytes": 9000, "val_bytes": 2000}
    write = tales.write
    monkeypatch.setattr(tales, "write", lambda folder: write(folder, **sizes))
    data = tmp_path / "installed" / "data"
    assert corpora.find(["tales"], data).train == (data / "tales" / "train.txt",)
    forbidden.append(tmp_path / "installed")
    assert corpora.find(["tales"], data).train == (data / "tales" / "train.txt",)
    other = tmp_path / "installed" / "other"
    for _ in range(2):  # written, then found
        found = corpora.find(["tales"], other).train
        assert found == (tmp_path / "home" / "minigen" / "tales" / "train.txt",)

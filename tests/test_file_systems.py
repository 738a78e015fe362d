"""A feature that a file system lacks costs a warning; an error of the disk is always raised."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from minigen.system import disk


@pytest.fixture(autouse=True)
def no_warnings_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the warnings of earlier tests, as each is printed once."""
    monkeypatch.setattr(disk, "_warned", set())


def refusing(number: int) -> Any:
    """Return a function that raises `OSError` with this number."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_missing_flush_is_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file system that cannot flush costs one warning for files, and one for folders."""
    monkeypatch.setattr(os, "fsync", refusing(number))
    for _ in range(2):
        with (tmp_path / "file").open("wb") as file:
            disk.flush(file)
        disk.flush_folder(tmp_path)
    assert capsys.readouterr().err.count("warning: this file system flushes no") == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_of_the_disk_is_raised(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk in a flush, a rename or a lock is raised."""
    (tmp_path / "part").touch()
    for module, name in ((os, "fsync"), (os, "rename"), (Path, "replace"), (disk, "_lock")):
        monkeypatch.setattr(module, name, refusing(number))
    for act in (
        lambda: disk.flush((tmp_path / "file").open("wb")),
        lambda: disk.flush_folder(tmp_path),
        lambda: disk.rename_file(tmp_path / "part", tmp_path / "whole"),
        lambda: disk.rename_folder(tmp_path / "a", tmp_path / "b", "last"),
        lambda: disk.take_lock(tmp_path / "lock"),
    ):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.EPERM, errno.EEXIST, errno.ENOSYS, errno.EXDEV])
def test_files_are_copied_where_no_rename_works(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renames, a file replaces another one, and a folder's deciding file is copied last."""
    copied: list[str] = []
    flush = disk.flush
    monkeypatch.setattr(disk, "flush", lambda f: (copied.append(Path(f.name).name), flush(f)))
    monkeypatch.setattr(os, "rename", refusing(number))
    monkeypatch.setattr(Path, "replace", refusing(number))
    (tmp_path / "whole").write_text("before")
    (tmp_path / "part").write_text("after")
    disk.rename_file(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole").read_text() == "after" and not (tmp_path / "part").exists()
    (tmp_path / "folder").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "folder" / name).write_text(name)
    disk.rename_folder(tmp_path / "folder", tmp_path / "target", last="a")
    assert not (tmp_path / "folder").exists() and copied == ["b", "c", "a"]
    assert sorted(p.read_text() for p in (tmp_path / "target").iterdir()) == ["a", "b", "c"]
    (tmp_path / "another").mkdir()
    with pytest.raises(FileExistsError):  # a name that is not free is not overwritten
        disk.rename_folder(tmp_path / "another", tmp_path / "target", last="a")
    assert len(list((tmp_path / "target").iterdir())) == 3


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_missing_lock_is_not_another_process(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is free if the file system has no locks, and taken if another process locked it."""
    disk.take_lock(tmp_path / "lock").close()
    with disk.take_lock(tmp_path / "lock"), pytest.raises(BlockingIOError):
        disk.take_lock(tmp_path / "lock")
    monkeypatch.setattr(disk, "_lock", refusing(number))
    disk.take_lock(tmp_path / "lock").close()
    assert "this file system has no locks" in capsys.readouterr().err


@pytest.mark.parametrize("n_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 7])
def test_the_digest_of_a_file_is_that_of_its_bytes(n_bytes: int, tmp_path: Path) -> None:
    """The SHA-256 of a file is that of its bytes, whatever the size of the file."""
    content = bytes(i % 251 for i in range(1000)) * (n_bytes // 1000 + 1)
    (tmp_path / "file").write_bytes(content[:n_bytes])
    assert disk.sha256_of(tmp_path / "file") == hashlib.sha256(content[:n_bytes]).hexdigest()

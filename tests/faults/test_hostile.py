"""Untrusted checkpoints and models: no code runs, no memory is taken, and the error is one line."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Server
from jobs import model_and_optimizer

from minigen.files import checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

Case = Callable[[Path], object]
MEGABYTE = 1 << 20
WEIGHTS = "model.safetensors"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Save an intact checkpoint; return its folder."""
    return checkpoint.save(tmp_path / "run", *model_and_optimizer(1), {"step": 1})


def agree(folder: Path) -> None:
    """Write a manifest with the digests of the present files, as an attacker would."""
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    for name in manifest["files"]:
        path = folder / name
        if path.is_file() and path.stat().st_size < 64 * MEGABYTE:
            digest = checkpoint._digest(path.read_bytes())
            manifest["files"][name] = {"bytes": digest.bytes, "sha256": digest.sha256}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def header_of(folder: Path, name: str = WEIGHTS) -> tuple[dict[str, Any], bytes]:
    content = (folder / name).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def put(folder: Path, text: bytes, data: bytes, n: int | None = None, name: str = WEIGHTS) -> None:
    n_header = len(text) if n is None else n
    (folder / name).write_bytes(n_header.to_bytes(8, "little") + text + data)


def raw(text: bytes, n: int | None = None) -> Case:
    """Return a change: this text as the header, with a length of n bytes."""
    return lambda folder: put(folder, text, header_of(folder)[1], n)


def entry(**changes: Any) -> Case:
    """Return a change of one tensor's entry in the header."""

    def change(folder: Path) -> None:
        header, data = header_of(folder)
        header["model.norm.weight"] |= changes
        put(folder, json.dumps(header).encode(), data)

    return change


def renamed(new: str) -> Case:
    def change(folder: Path) -> None:
        header, data = header_of(folder)
        header[new] = header.pop("model.norm.weight")
        put(folder, json.dumps(header).encode(), data)

    return change


def values(name: str, **changes: Any) -> Case:
    """Return a change of keys in a JSON file; the value ... removes the key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_bytes()) | changes
        content = {key: value for key, value in content.items() if value is not ...}
        (folder / name).write_text(json.dumps(content))

    return change


def content(name: str, what: bytes) -> Case:
    return lambda folder: (folder / name).write_bytes(what)


def replaced(name: str, make: Callable[[Path], object]) -> Case:
    """Return a change of a file into something else, such as a pipe or a folder."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def sparse(name: str, size: int) -> Case:
    return lambda folder: os.truncate(folder / name, size)


def shaped(*shape: int) -> Case:
    """Return a change of the weights into one huge tensor of zeros, in a sparse file."""

    def change(folder: Path) -> None:
        n = 4
        for size in shape:
            n *= size
        text = json.dumps(
            {"lm_head.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, n]}}
        )
        put(folder, text.encode(), b"")
        os.truncate(folder / WEIGHTS, 8 + len(text) + n)

    return change


class Touch:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def cases(evil: bytes) -> Iterator[Case]:
    """Yield more than 80 changes that make a checkpoint invalid."""
    # The length of the header.
    yield from (raw(b"{}", n) for n in (2**63, 2**64 - 1, 2**32, 0, 1, 3, 10**6, MEGABYTE + 1))
    yield from (content(WEIGHTS, b"\xff" * n) for n in (0, 1, 7, 8, 9))
    yield from (sparse(WEIGHTS, size) for size in (2**40, 2**33))
    # The header as a text.
    deep = 10**5
    yield from map(
        raw, (b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff{}", b"\xef\xbb\xbf{}", b"\0")
    )
    yield from map(raw, (b"[" * deep, b'{"a":' * deep, b"[" * deep + b"]" * deep))
    yield from map(
        raw, (b'{"a":1,"a":1}', b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 9999 + b"}")
    )
    yield raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}')
    yield raw(b"{" + b",".join(b'"%d":0' % i for i in range(10**5)) + b"}")
    yield from (raw(b'{"a":[' + b"[]," * n + b"[]]}") for n in (340_000, 5_000_000))
    # An entry of the header.
    yield from (
        entry(shape=s) for s in ([-8], [8.0], ["8"], [True] * 8, None, 8, {}, [[8]], [9], [])
    )
    yield from (
        entry(shape=s) for s in ([2**62, 4], [0, 2**70], [1] * 70 + [8], [1] * 10**5, [2**31] * 3)
    )
    yield from (
        entry(data_offsets=o) for o in ([0, 32], [1, 33], [-32, 0], [32, 0], [0], [0, 1, 2], None)
    )
    yield from (entry(data_offsets=o) for o in ([0.0, 32.0], ["0", "32"], [2**80, 2**80 + 32], {}))
    yield from (entry(dtype=d) for d in ("F99", "", None, ["F32"], {}, 7, "I32", "BF16", "f32"))
    yield from map(
        renamed, ("../../x", "", "a\nb\x1b[31m", "x" * 10**5, "\ud800", "model.norm", "/etc/x")
    )
    yield from (shaped(*shape) for shape in ((2**30, 2**8), (2**36,), (2**26,), (8, 2**20)))
    # The config.
    sizes = (10**9, 0, -1, 513, 2**63, 10**40, 1.5, "1", None, [1], True, {})
    yield from (values("config.json", num_hidden_layers=n) for n in sizes)
    yield from (values("config.json", vocab_size=n) for n in (10**9, 2, "x"))
    yield from (values("config.json", head_dim=n) for n in (3, 2**40))
    yield from (
        values("config.json", model_type=t) for t in ("llama", [], {}, None, "\n" * 10**5, 1)
    )
    yield from (values("config.json", rms_norm_eps=e) for e in ("x", float("nan"), -1, 10**400))
    yield from (values("config.json", rope_parameters=r) for r in (7, [1], {"rope_type": []}, "x"))
    yield from (values("config.json", rope_parameters={"rope_theta": t}) for t in (-1, "x", 1e400))
    yield from (values("config.json", tie_word_embeddings=t) for t in ("no", 2, []))
    yield from (values("config.json", attention_dropout=d) for d in (1, -1, "x", []))
    yield values("config.json", max_position_embeddings=10**12)
    # The other files.
    texts = (
        b"",
        b"[]",
        b"{",
        b"[" * deep,
        b'{"step": 1, "step": 1}',
        b"\xff",
        b" " * (2 * MEGABYTE),
    )
    for name in ("config.json", "state.json", "MANIFEST.json", "tokenizer.json"):
        yield from (content(name, text) for text in texts)
    yield from (values("state.json", step=s) for s in ("1", -1, 1.0, True, None, ..., 10**30, 2))
    yield from (values("state.json", val_loss=loss) for loss in ("x", [], {}))
    for base in ("x", {}, {"path": 1, "sha256": ""}):
        yield values("state.json", base_model=base)
        yield values("state.json", tuned=base)  # the former name
    yield from (
        values("MANIFEST.json", files=f) for f in ([], "x", {}, {WEIGHTS: 1}, {"../x": {}}, ...)
    )
    yield from (values("MANIFEST.json", format=f) for f in (1, 3, "2", [], {}, ..., "\n" * 10**5))
    yield from (values("tokenizer.json", model=m) for m in ({}, [], {"vocab": []}, {"vocab": {}}))
    yield values("tokenizer.json", model={"vocab": {chr(i): i for i in range(300, 9999)}})
    yield values("tokenizer.json", model={"vocab": {"a" * 10**6: 0}, "type": "BPE"})
    # A pickle, a pipe, a folder or a link under the name of each file.
    for name in [*checkpoint.WHOLE, "tokenizer.json", "state.json", "MANIFEST.json"]:
        yield content(name, evil)
        yield replaced(name, os.mkfifo)
        yield replaced(name, Path.mkdir)
        yield replaced(name, lambda path: path.symlink_to(path))
        yield replaced(name, lambda path: path.symlink_to("/dev/zero"))


def verdicts(server: Server, whole: Path, folders: list[Path]) -> list[dict[str, Any]]:
    code, said = server.run("open", [str(whole), *map(str, folders)])
    assert code == 0, said
    results = [json.loads(line) for line in said.splitlines()]
    assert len(results) == len(folders)
    return results


def harmless(result: dict[str, Any]) -> bool:
    """Return whether the error has at most one line, and no code, time or memory was used."""
    said = result["user_error"]
    quiet = result["bugs"] == [] and "\n" not in said and said.isprintable() and len(said) < 900
    return bool(quiet and result["seconds"] < 1 and result["bytes"] < 64 * MEGABYTE)


@pytest.mark.parametrize("kind", ["checkpoint", "untrusted model"])
def test_handcrafted_files_are_harmless(
    kind: str, server: Server, whole: Path, tmp_path: Path
) -> None:
    """Each invalid checkpoint is refused in one line, with a forged manifest or without one."""
    evil = pickle.dumps(Touch(str(tmp_path / "was here")))
    folders, crafted = [], list(cases(evil))
    for i, change in enumerate(crafted):
        folder = tmp_path / kind / str(i) / ("step-000001" if kind == "checkpoint" else "model")
        shutil.copytree(whole, folder)
        change(folder)
        if kind == "checkpoint":
            if json_object(folder / "MANIFEST.json"):
                agree(folder)
        elif (folder / "MANIFEST.json").is_dir():
            (folder / "MANIFEST.json").rmdir()
        else:
            (folder / "MANIFEST.json").unlink()
        folders.append(folder)
    assert len(folders) > 80
    refused = 0
    for folder, result in zip(folders, verdicts(server, whole, folders), strict=True):
        refused += result["user_error"] != ""
        assert harmless(result), (sorted(folder.iterdir()), result)
        if kind == "checkpoint":
            assert result["user_error"], folder
    assert refused > 80
    assert not (tmp_path / "was here").exists()


def json_object(path: Path) -> bool:
    """Return whether a manifest can be forged: it is JSON and lists files."""
    try:
        return isinstance(json.loads(path.read_bytes())["files"], dict) if path.is_file() else False
    except (ValueError, TypeError, KeyError, RecursionError, OSError):
        return False


def mutated(text: bytes, draw: random.Random) -> bytes:
    """Return a text with one to three random changes of bits, bytes, digits or pieces."""
    changed = bytearray(text)
    for _ in range(draw.randint(1, 3)):
        if len(changed) < 2:  # earlier changes removed nearly the whole text
            break
        a, b = sorted(draw.sample(range(len(changed)), 2))
        kind = draw.randrange(7)
        if kind == 0:
            changed[a] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[a] = draw.choice(b'0123456789{}[]",:-.eE \\\0\xff')
        elif kind == 2:
            del changed[a : min(b, a + draw.randint(1, 40))]
        elif kind == 3:
            changed[a:a] = changed[a : min(b, a + draw.randint(1, 40))]
        elif kind == 4:
            changed[a:a] = draw.choice((b"9" * 20, b"null", b"[]", b"{}", b"-", b"1e999", b"true,"))
        elif kind == 5 and (digits := [i for i, c in enumerate(changed) if 48 <= c <= 57]):
            changed[draw.choice(digits)] = draw.randrange(48, 58)
        else:
            changed[a], changed[b] = changed[b], changed[a]
    return bytes(changed)


@pytest.mark.parametrize("n", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_files_are_harmless(n: int, server: Server, whole: Path, tmp_path: Path) -> None:
    """A header, config or state with random changes is refused in one line, or loads."""
    draw, results, loaded = random.Random(), [], 0
    for first in range(0, n, 100):
        folders = []
        for i in range(first, first + 100):
            folder = tmp_path / str(i) / "step-000001"
            shutil.copytree(whole, folder)
            name = draw.choice((WEIGHTS, WEIGHTS, WEIGHTS, "config.json", "state.json"))
            if name == WEIGHTS:
                header, data = header_of(folder)
                text = mutated(json.dumps(header).encode(), draw)
                put(folder, text, data, draw.choice((None, None, len(text) + draw.randint(0, 9))))
            else:
                (folder / name).write_bytes(mutated((folder / name).read_bytes(), draw))
            agree(folder)
            folders.append(folder)
        results += verdicts(server, whole, folders)
        for folder, result in zip(folders, results[first:], strict=True):
            loaded += result["user_error"] == ""
            assert harmless(result), (folder, result)
            shutil.rmtree(folder.parent)
    assert loaded < n / 3 and (loaded > 0 or n < 2000)  # of 200, by chance, none may load

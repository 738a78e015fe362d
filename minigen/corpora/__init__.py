"""What to learn from: the user's own files, or a corpus that minigen knows by name.

tales         stories written by a grammar, so that the best possible loss is known
pictures      scenes on a small grid, with captions and a checker; the best loss is known, too
tunes         melodies with chords in ABC notation, and a checker; the best loss is known, too
shakespeare   "tiny Shakespeare", 1.1 MB of plays, downloaded once
"""

from __future__ import annotations

import difflib
import functools
import glob
import hashlib
import http.client
import importlib
import json
import math
import os
import re
import stat
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import UserError
from minigen.system import disk
from minigen.system.places import writable
from minigen.system.streams import decoded
from minigen.system.text_file import MARKUP, count_documents, is_binary, unreadable
from minigen.tokenizer import END_OF_TEXT

WRITTEN = ("tales", "pictures", "tunes")  # by a module of that name, here
NAMES = (*WRITTEN, "shakespeare")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".ipynb")  # files that hold more than text
AUTO, NONE = "auto", "none"  # values of --separator
BETWEEN = "\n\n"  # between the documents of `WRITTEN`

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_BYTES = 1_115_394
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus. Where `val` is empty, a part of `train` is to be held out."""

    name: str  # safe as a folder's name
    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None  # stands between documents; None: each file is one document
    floor: float | None = None  # bits per byte of `val` that no model can beat, where known
    notes: tuple[str, ...] = ()  # lines to show the user before training

    @property
    def separator_bytes(self) -> int:
        """The bytes of text that END_OF_TEXT stands for; 0 where `floor` leaves them out.

        Written as such in a file, END_OF_TEXT is no text.
        """
        is_text = self.floor is None and self.separator not in (None, END_OF_TEXT)
        return len((self.separator or "").encode()) if is_text else 0

    @property
    def n_bytes(self) -> int:
        """The size of all its files."""
        return sum(path.stat().st_size for path in (*self.train, *self.val))


def find(
    data: Sequence[str], folder: Path, separator: str | None = None, links: bool = True
) -> Corpus:
    r"""The corpus that `--data` means.

    Args:
        data: files, folders (all files in them that are not hidden), patterns like "books/*.txt",
            and names of corpora; several may stand in one string, with commas between them. What
            exists as a file is never taken for anything else. Of several files, binary ones are
            left out, and a note says how many.
        folder: where the corpora with names are kept; they are made or downloaded on first use.
        separator: what stands between documents in a file, as `typed`; AUTO: END_OF_TEXT, where it
            is written in one of the files; NONE or None: a file is a document.
        links: follow links to folders, and read no file twice that two paths lead to. Runs of
            before did neither.

    Raises UserError for what does not exist, cannot be read, or is neither file nor folder.
    """
    if separator == "":
        raise UserError("--separator is empty; with --separator none a file is one document")
    entries = [entry for given in data for entry in _entries(given)]
    if not entries:
        raise UserError(f"--data is empty; give a file, a folder, or one of {', '.join(NAMES)}")
    if grammars := [e for e in entries if e in WRITTEN and isinstance(e, str)]:
        # They bring their own validation text and separator, which fit no other text.
        if len(grammars) < len(entries) or separator not in (None, AUTO):
            raise UserError(
                f"{grammars[0]} goes with {' and '.join(WRITTEN)} only; "
                "leave out the other --data and --separator"
            )
        return _written(grammars, folder)
    broken: list[Path] = []
    found = [
        _shakespeare(folder) if isinstance(e, str) else _files(e, links, broken) for e in entries
    ]
    every = dict.fromkeys(file for files in found for file in files)  # each once, in order
    files, notes = _texts(_places(every) if links else tuple(every), broken)
    meant, said = _between(files, separator)
    if len(entries) > 1:
        name = files[0].stem + (f"+{len(files) - 1}" if len(files) > 1 else "")
    elif isinstance(entries[0], str):
        name = entries[0]
    else:
        name = entries[0].resolve().name if entries[0].is_dir() else entries[0].stem
    name = re.sub(r"[^\w+-]+", "-", name).strip("-")[:50] or "text"
    return Corpus(name, files, (), meant, notes=(*notes, *said))


def typed(text: str) -> str:
    r"""Return a flag's text as it was meant, as a shell passes "\n" as two characters.

    "\n" is a newline, "\t" a tab, and "\\" a backslash; any other backslash stands for itself.

    Raises UserError for bytes that are not UTF-8, which are in no text.
    """
    signs = {"n": "\n", "t": "\t", "\\": "\\"}
    text = decoded(text)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise UserError(f"{text!r} is not UTF-8; give it in UTF-8")
    return re.sub(r"\\([nt\\])", lambda found: signs[found[1]], text)


def separates(separator: str | None) -> str | None:
    """Return the text that a --separator stands for; None where it stands for none, or is AUTO."""
    if separator in (None, AUTO, NONE):
        return None
    # A text that was read has no other ends of lines than "\n".
    return typed(separator or "").replace("\r\n", "\n").replace("\r", "\n")


def _between(files: Sequence[Path], separator: str | None) -> tuple[str | None, list[str]]:
    """Return what separates documents in the files, and what to say of END_OF_TEXT in the files."""
    if separator in (None, NONE):
        return None, []
    meant = separates(separator)
    if meant == END_OF_TEXT:
        return meant, []
    # Within the quotes of a table END_OF_TEXT would cut rows.
    plain = [file for file in files if file.suffix.lower() not in TABLES]
    if separator == AUTO and (n := count_documents(plain, END_OF_TEXT)):
        many = "1 document" if n == 1 else f"{n:,} documents"
        said = [f"{END_OF_TEXT} in the text separates {many}; --separator none reads it as letters"]
        tables = [file for file in files if file.suffix.lower() in TABLES]
        if cut := [file for file in tables if count_documents([file], END_OF_TEXT)]:
            said += [
                f"warning: {END_OF_TEXT} cuts rows of {cut[0]} too; leave that file out, or give "
                "--separator none"
            ]
        return END_OF_TEXT, said
    if count_documents(files, END_OF_TEXT):
        return meant, [
            f"warning: {END_OF_TEXT} in the text is read as letters; "
            f"--separator '{END_OF_TEXT}' separates documents there"
        ]
    return meant, []


def written(data: Sequence[str]) -> tuple[str, ...]:
    """Those of the corpora that grammars write which `--data` names."""
    names = {name.strip() for given in data for name in given.split(",")}
    return tuple(name for name in WRITTEN if name in names)


def given_in(folder: str, data: Sequence[str]) -> tuple[str, ...]:
    """Return the entries of a --data that was given in `folder`, as they are found from here.

    An entry that is not here, but lies in that folder, becomes a path in that folder.
    """
    found = []
    for given in data:
        there = os.path.join(folder, given)
        is_here = given in NAMES or os.path.lexists(given) or _matches(given)
        is_there = os.path.lexists(there) or _matches(there)
        found.append(there if is_there and not is_here else given)
    return tuple(found)


def _entries(given: str) -> list[str | Path]:
    """What `given` names: paths, and names of corpora as strings."""
    if os.path.lexists(given):
        return [Path(given)]
    if given in NAMES:
        return [given]
    if matches := _matches(given):
        return [Path(match) for match in matches]
    if (home := os.path.expanduser(given)) != given:  # a shell leaves a quoted ~ as it is
        return _entries(home)
    if "," in given:
        parts = [part.strip() for part in given.split(",")]
        return [entry for part in parts if part for entry in _entries(part)]
    nearby = glob.glob(os.path.join(glob.escape(os.path.dirname(given)), "*"))
    closest = difflib.get_close_matches(given, [*NAMES, *nearby], n=1)
    raise UserError(
        f"no such file or corpus: {given!r}"
        + (f"; did you mean {closest[0]}?" if closest else ";")
        + f" the corpora are {', '.join(NAMES)}"
    )


def _matches(pattern: str) -> list[str]:
    """Return what a pattern matches; a folder that is called as it is written is taken first."""
    folder = pattern
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder) if folder != os.path.dirname(folder) else ""
    literal = glob.escape(folder) + pattern[len(folder) :]
    return sorted(glob.glob(literal, recursive=True) or glob.glob(pattern, recursive=True))


def _files(path: Path, links: bool, broken: list[Path]) -> list[Path]:
    """The file itself; of a folder, all regular files below it, sorted, that are not hidden.

    Each folder is read once, however many links lead to it. Links that lead nowhere join `broken`.
    """

    def fail(error: OSError) -> None:
        raise error

    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return [path]
        if not stat.S_ISDIR(mode):
            raise UserError(f"{path} is neither a file nor a folder; give one that is")
        found, waiting, seen = list[Path](), [str(path)], set[str]()
        while waiting:  # the folder itself, and then those that links lead to
            for root, folders, names in os.walk(waiting.pop(0), onerror=fail):
                if (real := os.path.realpath(root)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                paths = [os.path.join(root, name) for name in folders]
                waiting += [linked for linked in paths if links and os.path.islink(linked)]
                found += [Path(root, name) for name in names if not name.startswith(".")]
        files = sorted(file for file in found if file.is_file())
        broken += sorted(file for file in found if not file.exists())
    except OSError as error:
        raise unreadable(error.filename or path, error) from None
    if not files:
        links_only = f" but broken links, such as {broken[0]}" if broken else ""
        raise UserError(f"the folder {path} holds no files{links_only}; give one with text files")
    return files


def _places(files: Iterable[Path]) -> tuple[Path, ...]:
    """Return each place once, by its shortest path: `./a.txt` and `loop/a.txt` may be `a.txt`."""
    real = functools.cache(os.path.realpath)
    places: dict[str, Path] = {}
    for file in files:
        place = os.path.join(real(file.parent), file.name)
        places[place] = min(places.get(place, file), file, key=lambda path: len(str(path)))
    return tuple(places.values())


def _texts(
    files: tuple[Path, ...], broken: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Those of several files that are not binary, and notes on the others and on tables.

    A file that is given alone stays, as reading it says what is wrong. A text in another encoding
    stays too: text is never left out without asking.
    """
    notes = []
    if broken:
        n = "1 link that leads" if len(broken) == 1 else f"{len(broken):,} links that lead"
        notes.append(f"skipped {n} nowhere, such as {broken[0]}")
    first: dict[tuple[int, int], Path] = {}
    again = [file for file in files if first.setdefault(_identity(file), file) is not file]
    if again:
        n = "1 file" if len(again) == 1 else f"{len(again):,} files, such as"
        notes.append(f"{n} {again[0]}, which is {first[_identity(again[0])]} too, is read twice")
    binary, markup = list[Path](), list[Path]()
    for file in files:
        beginning = _first_bytes(file)
        if len(files) > 1 and is_binary(beginning):
            binary.append(file)
        elif MARKUP.match(beginning):
            markup.append(file)
    if binary:
        n = "1 binary file" if len(binary) == 1 else f"{len(binary):,} binary files, such as"
        notes.append(f"skipped {n} {binary[0]}")
    texts = tuple(file for file in files if file not in set(binary))
    if not texts:
        raise UserError(f"all of the {len(files)} files are binary, not text; give UTF-8 text")
    tables = [file for file in texts if file.suffix.lower() in TABLES]
    if 2 * len(tables) > len(texts):
        notes.append(f"{tables[0]} is read as plain text, its quotes and commas too")
    if 2 * len(markup) > len(texts):
        notes.append(f"{markup[0]} is read as plain text, its tags and commands too")
    return texts, tuple(notes)


def _identity(path: Path) -> tuple[int, int]:
    """Return what a file has in common with its links, and with no other file."""
    try:
        facts = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return facts.st_dev, facts.st_ino


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise unreadable(path, error) from None


def _written(names: Sequence[str], folder: Path) -> Corpus:
    """Corpora that grammars write, as one.

    Each name counts once. A small one is read as often as it fits into the largest, as a model
    learns little of what is rare.
    """
    names = tuple(dict.fromkeys(names))
    found = [_intact(name, folder) for name in names]
    folders, facts = [place for place, _ in found], [facts["splits"] for _, facts in found]
    sizes = [splits["train"]["bytes"] for splits in facts]
    times = [max(sizes) // size for size in sizes]
    train = [place / "train.txt" for place, n in zip(folders, times, strict=True) for _ in range(n)]
    val = [place / "val.txt" for place in folders]
    # Both sums leave out the blank lines between the documents, as the tokens do. END_OF_TEXT
    # stands there instead: a token that is scored, but after the last sentence of a tale or the
    # last row of a picture nothing else can come, so it costs a perfect model no bits. What it does
    # not know is of which corpus the next document is: in training so many of all were of each.
    documents = [n * one["train"][name] for name, one, n in zip(names, facts, times, strict=True)]
    bits = math.fsum(
        splits["val"]["bits"] + splits["val"][name] * math.log2(sum(documents) / n)
        for name, splits, n in zip(names, facts, documents, strict=True)
    )
    floor = bits / sum(splits["val"]["text_bytes"] for splits in facts)
    return Corpus("+".join(names), tuple(train), tuple(val), BETWEEN, floor)


def _intact(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The place of a corpus and its facts.json.

    Its files are written if they are missing or not as it says; where `folder` cannot be written,
    into another.
    """
    # Not at the top of the file, so that `python -m minigen.corpora.tales` loads it once.
    module = importlib.import_module(f"minigen.corpora.{name}")
    if facts := _intact_facts(folder / name, module.VERSION):
        return folder / name, facts
    place = writable(folder / name)
    return place, _intact_facts(place, module.VERSION) or dict(module.write(place))


def _intact_facts(folder: Path, version: int) -> dict[str, Any] | None:
    """The facts.json of a corpus; None if a file is missing, or not as it says."""
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
        if facts["version"] == version and all(
            _sha256((folder / f"{split}.txt").read_bytes()) == said["sha256"]
            for split, said in facts["splits"].items()
        ):
            return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not yet written, by an older version, or damaged
    return None


def _shakespeare(folder: Path) -> list[Path]:
    path = folder / "shakespeare" / "tinyshakespeare.txt"
    if not _is_shakespeare(path):
        path = writable(path.parent) / path.name
    if not _is_shakespeare(path):
        download(SHAKESPEARE_URL, path, SHAKESPEARE_BYTES, SHAKESPEARE_SHA256)
    return [path]


def _is_shakespeare(path: Path) -> bool:
    return path.is_file() and _sha256(path.read_bytes()) == SHAKESPEARE_SHA256


def download(url: str, path: Path, n_bytes: int, sha256: str) -> None:
    """Store what lies at `url` as `path`, all of it or nothing, if it is what it should be."""
    by_hand = f"get the file in another way and save it as {path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read(n_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); go online, or {by_hand}") from None
    if len(content) != n_bytes or _sha256(content) != sha256:
        raise UserError(f"{url} does not hold the text that was published there; {by_hand}")
    with disk.write_atomically(path) as part:
        part.write_bytes(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""The corpus that --data means: files, folders, patterns, and names of known corpora."""

from __future__ import annotations

import difflib
import functools
import glob
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from minigen.corpora.corpus import Corpus
from minigen.corpora.known import NAMES, shakespeare, synthetic_corpus
from minigen.corpora.separator import AUTO, TABLES, between
from minigen.corpora.task import SYNTHETIC
from minigen.errors import UserError
from minigen.system.text_file import MARKUP, is_binary, unreadable


def find(
    data: Sequence[str], folder: Path, separator: str | None = None, links: bool = True
) -> Corpus:
    r"""Return the corpus that `--data` means.

    Args:
        data: files, folders (all files in them that are not hidden), patterns like "books/*.txt",
            and names of corpora; several may stand in one string, with commas between them. What
            exists as a file is never taken for anything else. Of several files, binary ones are
            left out, and a note says how many.
        folder: where the corpora with names are kept; they are made or downloaded on first use.
        separator: the text between documents in a file, as `typed`; AUTO: END_OF_TEXT, where it is
            written in one of the files; NONE or None: a file is a document.
        links: follow links to folders, and read no file twice that two paths lead to. Runs of an
            older version did neither.

    Raises UserError for what does not exist, cannot be read, or is neither file nor folder.
    """
    if separator == "":
        raise UserError("--separator is empty; with --separator none a file is one document")
    entries = [entry for given in data for entry in _entries(given)]
    if not entries:
        raise UserError(f"--data is empty; give a file, a folder, or one of {', '.join(NAMES)}")
    if grammars := [e for e in entries if e in SYNTHETIC and isinstance(e, str)]:
        # They bring their own validation text and separator, which fit no other text.
        if len(grammars) < len(entries) or separator not in (None, AUTO):
            raise UserError(
                f"{grammars[0]} goes with {' and '.join(SYNTHETIC)} only; "
                "leave out the other --data and --separator"
            )
        return synthetic_corpus(grammars, folder)
    broken: list[Path] = []
    found = [
        [shakespeare(folder)] if isinstance(e, str) else _files(e, links, broken) for e in entries
    ]
    every = dict.fromkeys(file for files in found for file in files)  # each once, in order
    files, notes = _texts(_places(every) if links else tuple(every), broken)
    meant, said = between(files, separator)
    if len(entries) > 1:
        name = files[0].stem + (f"+{len(files) - 1}" if len(files) > 1 else "")
    elif isinstance(entries[0], str):
        name = entries[0]
    else:
        name = entries[0].resolve().name if entries[0].is_dir() else entries[0].stem
    name = re.sub(r"[^\w+-]+", "-", name).strip("-")[:50] or "text"
    return Corpus(name, files, (), meant, notes=(*notes, *said))


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
    """Return the paths that `given` names, and the names of corpora as strings."""
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
    """Return the paths that match a pattern; a folder with the very name of a part comes first."""
    folder = pattern
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder) if folder != os.path.dirname(folder) else ""
    literal = glob.escape(folder) + pattern[len(folder) :]
    return sorted(glob.glob(literal, recursive=True) or glob.glob(pattern, recursive=True))


def _files(path: Path, links: bool, broken: list[Path]) -> list[Path]:
    """Return the file itself; of a folder, all regular files below it, sorted, but hidden ones.

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
    """Return those of several files that are not binary, and notes on the others and on tables.

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
    """Return the device and the inode of a file, which its links share and no other file has."""
    try:
        facts = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return facts.st_dev, facts.st_ino


def _first_bytes(path: Path) -> bytes:
    """Return the beginning of a file, enough to see its kind."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise unreadable(path, error) from None

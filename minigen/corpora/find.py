"""Find the corpus that --data names: files, folders, patterns, and names of built-in corpora."""

from __future__ import annotations

import difflib
import functools
import glob
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from minigen.corpora.builtin import NAMES, shakespeare, synthetic_corpus, tasks
from minigen.corpora.corpus import Corpus
from minigen.corpora.genre import SYNTHETIC, WRITTEN, synthetic_names
from minigen.corpora.separator import AUTO, NONE, TABLES, choose_separator
from minigen.data.parquet import is_parquet
from minigen.data.text import has_rows
from minigen.data.token_files import are_token_files
from minigen.errors import UserError
from minigen.system.text_file import MARKUP, count_documents, is_binary, opened, unreadable
from minigen.tokenizer import END_OF_TEXT

TRAIN_IDS, VAL_IDS = "train.bin", "val.bin"  # token ids in a folder, by nanoGPT's names
BESIDE_IDS = {".bin", ".pkl", ".json", ".py"}  # endings of files that belong to token ids


def find(
    data: Sequence[str],
    folder: Path,
    separator: str | None = None,
    links: bool = True,
    val_data: Sequence[str] = (),
) -> Corpus:
    r"""Return the corpus that `--data` names.

    Args:
        data: files, folders (all files below them that are not hidden), patterns such as
            "books/*.txt", and names of built-in corpora; one string may have several of these
            entries, with commas between them. If a file has the name of a built-in corpus, the file
            is read. Binary files among several files are left out, and a note counts them. Of a
            folder with a train.bin only that file is read, and val.bin (data/token_files.py).
        folder: the folder of the built-in corpora; they are made or downloaded on first use.
        separator: the text between documents in a file, before `unescape`. AUTO: END_OF_TEXT, if
            one of the files has it, else None. NONE or None: each file is one document.
        links: follow links to folders, and read a file only once if two paths lead to it. False for
            a run of an older version, which did neither.
        val_data: the validation text, named like `data`; empty: it is a part of `data`.

    Raises `UserError` if an entry does not exist, cannot be read, or is neither file nor folder.
    """
    if val_data:
        corpus = find(data, folder, separator, links)
        separator = (corpus.separator or NONE) if separator == AUTO else separator
        return _with_validation(corpus, val_data, folder, separator, links)
    if separator == "":
        raise UserError("--separator is empty; with --separator none a file is one document")
    entries = [entry for item in data for entry in _entries(item)]
    if not entries:
        raise UserError(f"--data is empty; give a file, a folder, or one of {', '.join(NAMES)}")
    if names := [e for e in entries if e in SYNTHETIC and isinstance(e, str)]:
        # Synthetic corpora have their own validation text and separator, which fit no other text.
        if len(names) < len(entries) or separator not in (None, AUTO):
            raise UserError(
                f"{names[0]} can be combined with {' and '.join(SYNTHETIC)} only; "
                "leave out the other --data and --separator"
            )
        return synthetic_corpus(names, folder)
    if "tasks" in entries:
        # Questions have their own validation questions, and are pairs, not running text.
        if len(entries) > 1 or separator not in (None, AUTO):
            raise UserError("tasks fit no other text; leave out the other --data and --separator")
        return tasks(folder)
    all_files, broken_links = list[Path](), list[Path]()
    for entry in entries:
        if isinstance(entry, str):
            all_files.append(shakespeare(folder))
        elif os.path.isfile(entry / TRAIN_IDS):
            all_files.append(entry / TRAIN_IDS)
        else:
            all_files += _files(entry, links, broken_links)
    unique = _unique_places(all_files) if links else tuple(dict.fromkeys(all_files))
    is_tokens = are_token_files(unique)
    files, notes = (unique, ()) if is_tokens else _without_binary(unique, broken_links)
    texts = [] if is_tokens else [file for file in files if not has_rows(file)]
    if not texts and separator not in (None, AUTO, NONE, END_OF_TEXT):
        raise UserError(f"{files[0]} parts its documents by itself; give --separator none")
    if is_tokens:
        return _of_token_ids(entries, files)
    if ids := [file for file in unique if file.name == TRAIN_IDS and file.parent in entries]:
        raise UserError(f"{ids[0]} holds token ids, and other --data text; give one kind of them")
    text_between, separator_notes = choose_separator(texts, separator)
    name = _name(entries, files)
    return Corpus(name, files, (), text_between, notes=(*notes, *separator_notes))


def _name(entries: Sequence[str | Path], files: Sequence[Path]) -> str:
    """Return the name of a corpus, safe as the name of a folder."""
    if len(entries) > 1:
        name = files[0].stem + (f"+{len(files) - 1}" if len(files) > 1 else "")
    elif isinstance(entries[0], str):
        name = entries[0]
    else:
        name = entries[0].resolve().name if entries[0].is_dir() else entries[0].stem
    return re.sub(r"[^\w+-]+", "-", name).strip("-")[:50] or "text"


def _of_token_ids(entries: Sequence[str | Path], files: tuple[Path, ...]) -> Corpus:
    """Return a corpus of token ids that another program has written.

    Raises `UserError` if the files of a folder do not say which of them validate.
    """
    folders = [entry for entry in entries if isinstance(entry, Path) and entry.is_dir()]
    if unclear := [folder for folder in folders if not (folder / TRAIN_IDS).is_file()]:
        raise UserError(
            f"{unclear[0]} holds token ids without a {TRAIN_IDS}; name its files to train on, such "
            f"as '{unclear[0] / '*train*.bin'}', and to validate on, with --val_data"
        )
    val = tuple(folder / VAL_IDS for folder in folders if (folder / VAL_IDS).is_file())
    notes = []
    for folder in folders:
        if others := {path.name for path in folder.iterdir() if path.suffix not in BESIDE_IDS}:
            notes.append(f"of {folder} the token ids are read, and not {min(others)}")
    return Corpus(_name(entries, files), files, val, notes=tuple(notes))


def _with_validation(
    corpus: Corpus, val_data: Sequence[str], folder: Path, separator: str | None, links: bool
) -> Corpus:
    """Return the corpus with the files that --val_data names as its validation text.

    Raises `UserError` if a file is in both, or if the corpus has validation text of its own.
    """
    if corpus.val:
        raise UserError(f"{corpus.name} has validation text of its own; leave out --val_data")
    if names := synthetic_names(val_data, WRITTEN):
        raise UserError(f"--val_data {names[0]} is a corpus to train on; give files")
    validation = find(val_data, folder, separator, links)
    if validation.val:
        raise UserError(f"--val_data {validation.name} has text to train on, too; give a file")
    if are_token_files(corpus.train) != are_token_files(validation.train):
        raise UserError(
            f"of {corpus.train[0]} and {validation.train[0]} one holds token ids, and the other "
            "text; give one kind of them"
        )
    texts = [] if are_token_files(corpus.train) else validation.train
    texts = [file for file in texts if not has_rows(file)]
    if corpus.separator is None and count_documents(texts, END_OF_TEXT):
        raise UserError(
            f"{END_OF_TEXT} is in --val_data and not in --data; give --separator "
            f"'{END_OF_TEXT}' if it separates documents"
        )
    trained_on = {_inode(file): file for file in corpus.train}
    if both := [file for file in validation.train if _inode(file) in trained_on]:
        raise UserError(
            f"{both[0]} is in --data and in --val_data; the loss on a text that the model trains "
            "on says nothing about new text: name each file in one of them"
        )
    notes = tuple(note for note in validation.notes if note not in corpus.notes)
    return replace(corpus, val=validation.train, notes=(*corpus.notes, *notes))


def relocate(folder: str, data: Sequence[str]) -> tuple[str, ...]:
    """Return the entries of a --data that was typed in `folder`, for use in the current folder.

    An entry that exists only in `folder` becomes a path that leads there. So a run that was started
    in another folder finds its text again.
    """
    entries = []
    for entry in data:
        path = os.path.join(folder, entry)
        is_here = entry in NAMES or os.path.lexists(entry) or _matches(entry)
        is_there = os.path.lexists(path) or _matches(path)
        entries.append(path if is_there and not is_here else entry)
    return tuple(entries)


def _entries(item: str) -> list[str | Path]:
    """Return the paths that one item of --data names, and the names of corpora as strings."""
    if os.path.lexists(item):
        return [Path(item)]
    if item in NAMES:
        return [item]
    if matches := _matches(item):
        return [Path(match) for match in matches]
    if (expanded := os.path.expanduser(item)) != item:  # a shell does not expand a quoted ~
        return _entries(expanded)
    if "," in item:
        parts = [part.strip() for part in item.split(",")]
        return [entry for part in parts if part for entry in _entries(part)]
    nearby = glob.glob(os.path.join(glob.escape(os.path.dirname(item)), "*"))
    closest = difflib.get_close_matches(item, [*NAMES, *nearby], n=1)
    raise UserError(
        f"no such file or corpus: {item!r}"
        + (f"; did you mean {closest[0]}?" if closest else ";")
        + f" the corpora are {', '.join(NAMES)}"
    )


def _matches(pattern: str) -> list[str]:
    """Return the paths that match a pattern.

    If a folder `d[0-9]` exists, then `d[0-9]/*` means that folder, and not `d1`.
    """
    folder = pattern
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder) if folder != os.path.dirname(folder) else ""
    literal = glob.escape(folder) + pattern[len(folder) :]
    return sorted(glob.glob(literal, recursive=True) or glob.glob(pattern, recursive=True))


def _files(path: Path, links: bool, broken_links: list[Path]) -> list[Path]:
    """Return a file itself, or all files below a folder that are not hidden, sorted.

    Each folder is read once, however many links lead to it. Links to a place that does not exist
    are added to `broken_links`.
    """

    def fail(error: OSError) -> None:
        raise error

    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return [path]
        if not stat.S_ISDIR(mode):
            raise UserError(f"{path} is neither a file nor a folder; give one that is")
        paths, to_read, seen = list[Path](), [str(path)], set[str]()
        while to_read:  # the folder itself, and then the folders that links lead to
            for root, folders, names in os.walk(to_read.pop(0), onerror=fail):
                if (real := os.path.realpath(root)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                subfolders = [os.path.join(root, name) for name in folders]
                to_read += [folder for folder in subfolders if links and os.path.islink(folder)]
                paths += [Path(root, name) for name in names if not name.startswith(".")]
        files = sorted(file for file in paths if file.is_file())
        broken_links += sorted(file for file in paths if not file.exists())
    except OSError as error:
        raise unreadable(error.filename or path, error) from None
    if not files:
        except_links = f" but broken links, such as {broken_links[0]}" if broken_links else ""
        raise UserError(f"the folder {path} holds no files{except_links}; give one with text files")
    return files


def _unique_places(files: Iterable[Path]) -> tuple[Path, ...]:
    """Return the shortest path to each file: `./a.txt` and `loop/a.txt` may be `a.txt`, too."""
    real = functools.cache(os.path.realpath)
    paths: dict[str, Path] = {}
    for file in files:
        place = os.path.join(real(file.parent), file.name)
        paths[place] = min(paths.get(place, file), file, key=lambda path: len(str(path)))
    return tuple(paths.values())


def _without_binary(
    files: tuple[Path, ...], broken_links: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the files that are not binary, and notes that tell the user how files are read.

    If the only file is binary, it is kept, because the error of reading it says more. A text that
    is not UTF-8 is kept, too, and is an error later, so that no text is left out silently.
    """
    notes = []
    if broken_links:
        notes.append(f"skipped {_counted(broken_links, 'broken link')}")
    first: dict[tuple[int, int], Path] = {}
    again = [file for file in files if first.setdefault(_inode(file), file) is not file]
    if again:
        same = first[_inode(again[0])]
        notes.append(f"read twice: {_counted(again, 'file')}, which is the same file as {same}")
    binary, markup = list[Path](), list[Path]()
    for file in files:
        if is_parquet(file):
            continue
        beginning = _first_bytes(file)
        if len(files) > 1 and is_binary(beginning):
            binary.append(file)
        elif MARKUP.match(beginning):
            markup.append(file)
    if binary:
        notes.append(f"skipped {_counted(binary, 'binary file')}")
    texts = tuple(file for file in files if file not in set(binary))
    if not texts:
        raise UserError(f"all of the {len(files)} files are binary, not text; give UTF-8 text")
    tables = [file for file in texts if file.suffix.lower() in TABLES]
    if 2 * len(tables) > len(texts):
        notes.append(f"{tables[0]} is read as plain text, its quotes and commas too")
    if 2 * len(markup) > len(texts):
        notes.append(f"{markup[0]} is read as plain text, its tags and commands too")
    return texts, tuple(notes)


def _counted(paths: Sequence[Path], noun: str) -> str:
    """Return the number of paths with their noun, and the first path."""
    if len(paths) == 1:
        return f"1 {noun} {paths[0]}"
    return f"{len(paths):,} {noun}s, such as {paths[0]}"


def _inode(path: Path) -> tuple[int, int]:
    """Return the device and the inode of a file: all links to the file have the same."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return status.st_dev, status.st_ino


def _first_bytes(path: Path) -> bytes:
    """Return the beginning of a file, which shows whether it is binary or markup."""
    with opened(path) as file:
        return file.read(1 << 16)

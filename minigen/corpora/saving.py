"""Save samples as a file: any samples as text, documents of a genre as pictures, sound or notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen import corpora
from minigen.corpora import genre
from minigen.corpora.genre import Genre
from minigen.errors import UserError


def check_path(path: Path, genres: Sequence[Genre]) -> None:
    """Raise `UserError` if samples cannot be saved as `path`, before any sample is written.

    Args:
        genres: those that the model was trained on. If there are none, the model was trained on
            the user's own text. That text may have tunes, so the endings of all genres are allowed.
    """
    possible = genres or [genre.get(name) for name in genre.BEGINNINGS]
    endings = sorted({".txt"}.union(*(each.ENDINGS for each in possible)))
    if path.suffix.lower() not in endings:
        raise UserError(f"cannot save as {path}; give a name that ends in {', '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"there is no folder {path.absolute().parent} for --save; make it first")


def save(texts: Sequence[str], path: Path, separator: str = "\n\n") -> None:
    """Write texts as a file in the format that the ending of `path` names.

    Args:
        texts: documents of one genre, or any texts for a .txt file.
        path: of the file; its ending is in the `ENDINGS` of the genre, or .txt.
        separator: the text between two texts in a .txt file.

    Raises `UserError` for texts of several genres, or if their genre has no such format.
    """
    genres = {genre.detect_for_saving(text) for text in texts} - {None}
    if path.suffix.lower() == ".txt":
        genre.save_text(texts, path, separator)
    elif len(genres) > 1:
        raise UserError(
            f"the samples are not all of one kind; save them as {path.with_suffix('.txt')}"
        )
    elif (of_all := genres.pop() if genres else None) and path.suffix.lower() in of_all.ENDINGS:
        of_all.save(texts, path)
    else:
        noun = of_all.NOUN if of_all else "text that is no picture, and no tune in ABC notation"
        raise UserError(
            f"a {noun} cannot be saved as {path}; save it as {path.with_suffix('.txt')}"
        )


def separator_of(state: Mapping[str, Any]) -> str | None:
    """Return the separator of a model's training text, which also stands between samples.

    The separator gets a line of its own, unless it has newlines only. None if each file was a
    document, and for synthetic corpora, because their runs have no --separator.

    Args:
        state: of the model's checkpoint.
    """
    separator = corpora.separator_text(state.get("config", {}).get("separator"))
    if separator is None:
        return None
    return f"\n{mark}\n" if (mark := separator.strip("\n")) else separator

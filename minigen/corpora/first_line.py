"""First lines for the user: list their fields, and report how many samples follow their prompt."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence

from minigen.corpora import genre
from minigen.corpora.genre import Genre
from minigen.errors import UserError

MAX_LISTED = 10  # faulty texts that are listed singly, and patterns of complaints of the others


def describe(genres: Sequence[Genre]) -> str:
    """Return the fields of first lines and the words of each, for --help_conditions.

    Raises `UserError` if there are no genres.
    """
    if not genres:
        raise UserError(
            "the model was not trained on tales, pictures or tunes; give it any --prompt"
        )
    lines = []
    for each in genres:
        lines.append(f"the first line of a {each.NOUN} has these fields:")
        lines += [f"  {field:14}{', '.join(words)}" for field, words in each.FIELDS.items()]
        example = ",".join(f"{field}={each.FIELDS[field][0]}" for field in list(each.FIELDS)[:2])
        lines.append(f"for example --condition {example}; the other fields are drawn")
    return "\n".join(lines)


def report(texts: Sequence[str], cut_off: Collection[int] = ()) -> None:
    """Print on standard error how many texts follow their prompt, and the faults of the others.

    A text of no genre has no first line, and is not counted. Each of the first faulty texts is
    listed with a complaint; the complaints about further faulty texts are counted by pattern.

    Args:
        texts: samples, each with its first line.
        cut_off: the indices of the texts that --max_new_tokens ended. They are counted separately,
            because the missing part could have fulfilled the conditions.
    """
    genres = [genre.detect(text) for text in texts]
    verdicts = [each and each.check(text) for each, text in zip(genres, texts, strict=True)]
    n_checked = len(verdicts) - verdicts.count(None)
    if not n_checked:
        return
    failed = [n for n, verdict in enumerate(verdicts) if verdict and not verdict.follows_prompt]
    faulty = [n for n in failed if n not in cut_off]
    summary = f"{n_checked - len(failed)} of {n_checked} follow their prompt"
    if n_cut := len(failed) - len(faulty):
        summary += f"; {n_cut} {'was' if n_cut == 1 else 'were'} cut off by --max_new_tokens"
    print(summary, file=sys.stderr)
    patterns = Counter[str]()
    n_malformed = 0
    for n_listed, n in enumerate(faulty):
        genre_of_text, verdict = genres[n], verdicts[n]
        assert genre_of_text and verdict
        n_malformed += not verdict.well_formed
        if n_listed < MAX_LISTED:
            print(f"  {n + 1}: {verdict.complaints[0]}", file=sys.stderr)
        else:
            patterns[complaint_pattern(verdict.complaints[0], genre_of_text)] += 1
    most_common = patterns.most_common(MAX_LISTED)
    for pattern, times in most_common:
        print(f"  {times} more: {pattern}", file=sys.stderr)
    if n_others := patterns.total() - sum(times for _, times in most_common):
        print(f"  {n_others} more: other faults", file=sys.stderr)
    if 2 * n_malformed > n_checked - n_cut:
        print("most texts are not well-formed: train longer", file=sys.stderr)


def complaint_pattern(complaint: str, genre_of_text: Genre) -> str:
    """Return a complaint with "..." for its numbers, its quotations and the words of the genre.

    So complaints about different texts are counted as one.

    >>> complaint_pattern("the red thing at row 11 has no known shape", genre.get("pictures"))
    'the ... thing at row ... has no known shape'
    """
    words = {word for words in genre_of_text.FIELDS.values() for word in words} - {"a"}
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(rf"\"[^\"]*\"|'[^']*'|\b(?:{longest_first})\b|\d[\d/]*", "...", complaint)

"""The first line of a document: the words that it can have, and how many texts are as it says."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence

from minigen.corpora import task
from minigen.corpora.task import Task
from minigen.errors import UserError

MAX_NAMED = 10  # texts whose fault is named, and kinds of faults of the others


def describe(tasks: Sequence[Task]) -> str:
    """Return a list of the words that first lines have, for people; `UserError` without tasks."""
    if not tasks:
        raise UserError("this model has read no tales, pictures or tunes; give it any --prompt")
    lines = []
    for each in tasks:
        lines.append(f"a {each.NOUN} has, in its first line,")
        lines += [f"  {field:14}{', '.join(values)}" for field, values in each.FIELDS.items()]
        example = ",".join(f"{field}={each.FIELDS[field][0]}" for field in list(each.FIELDS)[:2])
        lines.append(f"so for example --condition {example}; what is not said is drawn")
    return "\n".join(lines)


def report(texts: Sequence[str], cut_off: Collection[int] = ()) -> None:
    """Report on standard error how many texts are as their first line says, and faults of others.

    A text of no task promises nothing and does not count. Of many faulty texts the first are
    named, and the faults of the others are counted.

    Args:
        cut_off: the texts, counted from 0, that --max_new_tokens ended. What they lack may have
            been to come, so they are counted apart.
    """
    tasks = [task.detect(text) for text in texts]
    verdicts = [each and each.check(text) for each, text in zip(tasks, texts, strict=True)]
    n_checked = len(verdicts) - verdicts.count(None)
    if not n_checked:
        return
    faulty = [n for n, verdict in enumerate(verdicts) if verdict and not verdict.follows_prompt]
    blamed = [n for n in faulty if n not in cut_off]
    said = f"{n_checked - len(faulty)} of {n_checked} obey their first line"
    if n_cut := len(faulty) - len(blamed):
        said += f"; {n_cut} {'was' if n_cut == 1 else 'were'} cut off by --max_new_tokens"
    print(said, file=sys.stderr)
    kinds = Counter[str]()
    n_unreadable = 0
    for place, n in enumerate(blamed):
        its_task, verdict = tasks[n], verdicts[n]
        assert its_task and verdict
        n_unreadable += not verdict.well_formed
        if place < MAX_NAMED:
            print(f"  {n + 1}: {verdict.complaints[0]}", file=sys.stderr)
        else:
            kinds[kind_of(verdict.complaints[0], its_task)] += 1
    for kind, times in kinds.most_common(MAX_NAMED):
        print(f"  {times} more: {kind}", file=sys.stderr)
    if rest := kinds.total() - sum(times for _, times in kinds.most_common(MAX_NAMED)):
        print(f"  {rest} more: other faults", file=sys.stderr)
    if 2 * n_unreadable > n_checked - n_cut:
        print("most of them are not well-formed: train longer", file=sys.stderr)


def kind_of(complaint: str, kind: Task) -> str:
    """Return a complaint without the numbers, the quotes and the task's words that vary in it.

    >>> kind_of("the red thing at row 11 has no known shape", task.get("pictures"))
    'the ... thing at row ... has no known shape'
    """
    words = sorted({w for options in kind.FIELDS.values() for w in options} - {"a"}, key=len)[::-1]
    own = "|".join(map(re.escape, words))
    return re.sub(rf"\"[^\"]*\"|'[^']*'|\b(?:{own})\b|\d[\d/]*", "...", complaint)

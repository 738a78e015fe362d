"""How well a model writes the tunes that it is asked for. `python -m bench.tunes out/tunes`

It writes a tune behind each of so many first lines: some of the validation text (`val`), some that
training never saw (`new`), and some whose mood and dance training never saw together (`pairs`); and
behind the first bars of tunes of the second kind (`opening`), which the form asks for again. The
corpus's own checker reads the results.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from bench.common import ROOT, record, table
from minigen import corpora
from minigen.corpora import tunes
from minigen.interface import TextGeneration, load

PER_BATCH = 128


def write(model: TextGeneration, prompts: list[str], temperature: float, min_p: float) -> list[str]:
    """One tune for each prompt, the prompt included."""
    texts: list[str] = []
    for first in range(0, len(prompts), PER_BATCH):
        results = model(
            prompts[first : first + PER_BATCH], temperature=temperature, min_p=min_p, top_k=None,
            seed=first, max_new_tokens=240,
        )  # fmt: skip
        texts += [result["generated_text"] for (result,) in results]
    return texts


def documents(split: str) -> list[str]:
    return (ROOT / "data" / "tunes" / f"{split}.txt").read_text(encoding="ascii").split("\n\n")


def first_line(text: str) -> str:
    return text[: text.index("\n") + 1]


def first_bar(text: str) -> str:
    """A tune up to the end of its first bar, of which the bar line is not yet written."""
    return text[: text.index(" |", text.index('"'))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a run, or any model that minigen.load takes")
    parser.add_argument("--count", type=int, default=500, help="prompts of each kind")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8, 1.0])
    parser.add_argument("--min_p", type=float, default=0.1)
    parser.add_argument("--examples", type=int, default=0, help="complaints to print of each kind")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="append the figures here; else to the cache")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "bench")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    corpora.find(["tunes"], ROOT / "data")  # written, if they are not yet
    model = TextGeneration(load(given.model))
    held_out = documents("held_out")
    apart = [f"a {mood} {dance} in" for mood, dance in tunes.HELD_OUT]
    pairs = [text for text in held_out if any(pair in first_line(text) for pair in apart)]
    new = [text for text in held_out if text not in pairs]
    asked = {
        "val": [*map(first_line, documents("val"))],
        "new": [*map(first_line, new)],
        "pairs": [*map(first_line, pairs)],
        "opening": [*map(first_bar, new)],
    }
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for temperature in given.temperatures:
        for kind, prompts in asked.items():
            texts = write(model, prompts[: given.count], temperature, given.min_p)
            verdicts = [tunes.check(text) for text in texts]
            n = len(verdicts)
            shares = [
                sum(getattr(verdict, name) for verdict in verdicts) / n
                for name in ("well_formed", "obeys", "valid")
            ]
            rows.append([kind, f"{temperature:g}", str(n), *(f"{share:.1%}" for share in shares)])
            figures[f"{kind} at {temperature:g}"] = [n, *shares]
            said = Counter(v.complaints[0] for v in verdicts if not v.valid)
            for complaint, times in said.most_common(given.examples):
                print(f"{kind}: {times} x {complaint}")
    table(("prompts", "temperature", "n", "well-formed", "obeyed", "valid"), rows)
    record("tunes", figures, given)


if __name__ == "__main__":
    main()

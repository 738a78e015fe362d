"""How well a model draws what captions ask for. `python -m bench.pictures out/pictures`

It draws a picture for each of so many captions of the validation text (`val`), of those among them
that the training text lacks (`new`), and of held_out.txt, whose pairs of shape and colour were
never trained together. The corpus's own checker looks at the results. Then it draws 100 pictures of
one caption, to count how many are different.
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
from minigen.corpora import pictures
from minigen.interface import TextGeneration, load

CAPTION = "picture: a small red circle above a big blue square, night"
PER_BATCH = 128


def draw(write: TextGeneration, captions: list[str], temperature: float, min_p: float) -> list[str]:
    """One picture for each caption, the caption included."""
    texts: list[str] = []
    for first in range(0, len(captions), PER_BATCH):
        prompts = [f"{caption}\n" for caption in captions[first : first + PER_BATCH]]
        results = write(
            prompts, temperature=temperature, min_p=min_p, top_k=None, seed=first,
            max_new_tokens=240,
        )  # fmt: skip
        texts += [result["generated_text"] for (result,) in results]
    return texts


def captions_of(split: str) -> list[str]:
    text = (ROOT / "data" / "pictures" / f"{split}.txt").read_text(encoding="ascii")
    return [document.partition("\n")[0] for document in text.split("\n\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a run, or any model that minigen.load takes")
    parser.add_argument("--count", type=int, default=500, help="captions of each kind")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8, 1.0])
    parser.add_argument("--min_p", type=float, default=0.1)
    parser.add_argument("--examples", type=int, default=0, help="complaints to print of each kind")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="append the figures here; else to the cache")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "bench")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    corpora.find(["pictures"], ROOT / "data")  # written, if they are not yet
    write = TextGeneration(load(given.model))
    seen = set(captions_of("train"))
    val = captions_of("val")
    asked = {
        "val": val,
        "new": [caption for caption in val if caption not in seen],
        "held_out": captions_of("held_out"),
    }
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for temperature in given.temperatures:
        for kind, captions in asked.items():
            texts = draw(write, captions[: given.count], temperature, given.min_p)
            verdicts = [pictures.check(text) for text in texts]
            n = len(verdicts)
            shares = [
                sum(getattr(verdict, name) for verdict in verdicts) / n
                for name in ("well_formed", "obeys", "valid")
            ]
            rows.append([kind, f"{temperature:g}", str(n), *(f"{share:.1%}" for share in shares)])
            figures[f"{kind} at {temperature:g}"] = [n, *shares]
            failed = Counter(v.conditions["form"] for v in verdicts if not v.obeys)
            if given.examples:
                print(kind, temperature, "failed by form:", dict(failed))
                said = [v.complaints[0] for v in verdicts if not v.obeys]
                print("\n".join(f"    {complaint}" for complaint in said[: given.examples]))
        same = draw(write, [CAPTION] * 100, temperature, given.min_p)
        share = len(set(same)) / len(same)
        rows.append(["one caption: different", f"{temperature:g}", "100", "", f"{share:.0%}", ""])
        figures[f"different at {temperature:g}"] = share
    table(("captions", "temperature", "n", "well-formed", "obeyed", "valid"), rows)
    record("pictures", figures, given)


if __name__ == "__main__":
    main()

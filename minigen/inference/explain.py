"""A table of one draw: the prediction, what the filters cut, and where the random number fell."""

from __future__ import annotations

import math
import unicodedata

import torch
from torch import Tensor

from minigen.sampling import Sampling, Token, filter_steps, inverse_cdf
from minigen.tokenizer import Tokenizer

LINE = 72  # cells of the line from 0 to 1 on which the random number falls


def explain(token: Token, text: str, tokenizer: Tokenizer, sampling: Sampling) -> str:
    """Return a table of the candidates to follow `text`, and of how `token` was drawn from them.

    The table shows the predicted probabilities, the probabilities after the filters of `sampling`,
    and the random number.
    """
    predicted = token.logits.softmax(dim=-1)
    shown = predicted.topk(min(8, len(predicted))).indices.tolist()
    if token.id not in shown:
        shown.append(token.id)
    cut_by: dict[int, str] = {}
    for name, logits in filter_steps(token.logits[None], [token.text], sampling):
        for id in shown:
            if logits[0, id] == -math.inf:
                cut_by.setdefault(id, f"cut by {name}")
    filtered = logits[0].softmax(dim=-1)  # the logits after the last filter

    lines = [f"after {fit(repr(text[-40:]), 90)}".rstrip() if text else "at the very beginning"]
    lines.append(f"{'':24}{'predicted':30}after temperature {sampling.temperature:g} and filters")
    marks = dict(zip(shown, "abcdefghi", strict=False))
    for id, mark in marks.items():
        name, before, after = spelled(id, tokenizer), bar(predicted[id]), bar(filtered[id])
        drawn = " <- drawn" if id == token.id else ""
        lines.append(f" {mark}  {fit(name, 20)}{before:30}{cut_by.get(id, after)}{drawn}".rstrip())
    others = torch.ones(len(predicted), dtype=torch.bool).scatter(0, torch.tensor(shown), False)
    if others.any():
        n, n_cut = int(others.sum()), int((filtered[others] == 0).sum())
        name, before, after = (
            f"{n:,} others",
            *(bar(p[others].sum()) for p in (predicted, filtered)),
        )
        after = "cut" if n_cut == n else f"{after} ({n_cut:,} cut)" if n_cut else after
        lines.append(f" .  {fit(name, 20)}{before:30}{after}".rstrip())

    # The line from 0 to 1, each cell marked with the token that its middle belongs to.
    line = [marks.get(inverse_cdf(filtered, (cell + 0.5) / LINE), ".") for cell in range(LINE)]
    at = int(token.u * LINE)
    line[at] = marks[token.id]
    lines.append(f"    0 |{''.join(line)}| 1")
    lines.append(f"       {' ' * at}^ {token.u:.4f} was drawn, so {marks[token.id]}")
    return "\n".join(lines)


def bar(probability: Tensor) -> str:
    """Return a probability as per cent, and as a bar of up to 20 columns."""
    return f"{float(probability):6.1%} {'█' * round(20 * float(probability))}"


def spelled(id: int, tokenizer: Tokenizer) -> str:
    """Return a token in quotes, as bytes if it holds only part of a character."""
    if id == tokenizer.end_of_text:
        return "(end of text)"
    try:
        return repr(tokenizer.token_bytes(id).decode("utf-8"))
    except UnicodeDecodeError:
        return repr(tokenizer.token_bytes(id))


def fit(text: str, width: int) -> str:
    """Cut or fill a text to `width` columns of a terminal; East Asian characters take two."""
    fitted = ""
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > width:
            break
        fitted, width = fitted + character, width - columns
    return fitted + " " * width

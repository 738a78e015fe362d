"""How good is a generative model? `python -m minigen.evaluation.evaluate out/tales`

Two questions: how well it predicts text that it never saw, and what the text is like that it makes.
No figure of samples means much by itself. So each stands beside the same figure of real held-out
text, cut the same way: where the two differ, something is wrong.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minigen import corpora
from minigen.cli import parse
from minigen.data import TokenFile, notes_on_text, prepare, scan, write_tokens
from minigen.errors import UserError
from minigen.evaluation.continuations import (
    READ,
    copying_run,
    cut,
    evenly,
    excerpts,
    figures,
    mean_entropy,
    write,
)
from minigen.evaluation.repetition import LongText, drawn_twins
from minigen.inference.engine import Engine, load
from minigen.model import GPT
from minigen.sampling import Sampling
from minigen.system.device import choose_device
from minigen.system.places import data_folder
from minigen.system.plot import check_ending, pyplot
from minigen.system.streams import one_line_errors, progress_bar
from minigen.system.strict_json import to_json
from minigen.system.threads import threads
from minigen.tokenizer import Tokenizer

LOGITS_BYTES = 2**27  # at once, while text is read
BINS = 20  # of probabilities, each 0.05 wide
POSITIONS = 16  # parts of the context
ONE_PROMPT = 100  # samples of the first prompt, at most
SAME = "same"  # --separator: as in the run's text
NEW_TOKENS = 200  # of a sample that has no end of its own
SEARCHED = 64 << 20  # bytes of the training text
DRAWN_FROM = 4 << 20  # bytes of it whose short documents are counted
LEAST_READ = 10_000  # tokens of the training text
MOST_LOSS = 700  # nats/token whose perplexity is still a number

# The verdict. All are differences to real text, or parts of what real text has.
MORE_STUCK = 0.1  # collapsed: so many more samples loop or are the same
MORE_COPIED = 0.15  # memorising: so many more share a long run with the training text
LEAST_HEEDED = 0.25  # ignores its prompt: of obeying more often than by chance, less than this
LEAST_FORMED = 0.5  # undertrained: of being well-formed, less than this
LITTLE_LEARNT = 0.9  # undertrained: of the loss of single tokens, the loss is more than this
LOSS_APART = 1.5  # memorising: the loss on new text is so many times that in training
SOME_APART = 1.2  # memorising, if little was learnt: so many times the training loss
DOCUMENTS_APART = 1.1  # memorising whole short documents: so many times the training loss
LEAST_TOKENS = 100  # fewer tokens of a text are no measure of a loss
LEAST_TEXTS = 10  # fewer texts are no measure of a share


@dataclass(frozen=True)
class EvaluateConfig:
    """Judge a model: on text that it never saw, and by the text that it writes."""

    # --- what ---
    run: str | None = None  # a run, its name or its folder, or gpt2; none: the last
    out_dir: str = "out"  # where the runs are
    file: str | None = None  # a text to judge on; none: what the run held out for validation
    separator: str = SAME  # between the documents of --file, as train.py's; same: as in its text
    split: Literal["val", "held_out"] = "val"  # held_out: the corpus's held_out.txt, if it has one
    eval_tokens: int = 0  # of the text to read; 0: all
    # --- samples, drawn as by sample.py ---
    count: int = 200  # samples, each with a prompt of its own from the text; 0: none
    prompt_lines: int = 1  # of a tale, picture or tune that are given; 8: a tune's first phrase
    max_new_tokens: int | None = None  # of each; none: twice the longest document's, or 200
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337
    # --- where ---
    device: str = "auto"  # cuda, mps, cpu, or auto
    json: Path | None = None  # the figures; none: evaluation.json in the run's folder
    plot: Path | None = None  # a picture of them; none: evaluation.png there


# ---- on a text ----


@dataclass(frozen=True)
class TextFigures:
    """How well a model predicts a text. Losses are in nats/token."""

    n_tokens: int  # that were predicted
    loss: float
    calibration_error: float
    calibration: list[tuple[float, float, int]]  # of each bin: mean p, how often it came, how many
    by_position: list[tuple[int, float]]  # of 16 parts of the context: its last place, its loss


@torch.no_grad()
def read(model: GPT, tokens: TokenFile, n_vocab: int, limit: int | None = None) -> TextFigures:
    """Predict each token of a text, or about `limit` of them, from what stands before it.

    Calibration asks of all tokens that got a probability in a bin how many came. The error is the
    share of the probability that lies in a wrong bin: half the sum of |expected - observed|, over
    the number of predictions. So it is the expected calibration error of Guo et al. 2017
    (arXiv:1706.04599), but of all probabilities, as in Nixon et al. 2019 (arXiv:1904.01685), and
    not only of the highest.
    """
    device, block = model.embedding.weight.device, min(model.config.block_size, tokens.n_tokens - 1)
    rows = max(1, LOGITS_BYTES // (4 * n_vocab * block))
    total, n = 0.0, 0
    bins = torch.zeros(3, BINS, dtype=torch.float64)  # expected, observed, predictions
    places = torch.zeros(2, block, dtype=torch.float64)  # the loss, the tokens
    length = min(tokens.n_tokens, limit or tokens.n_tokens)
    with progress_bar(total=length, desc=tokens.name, leave=False) as bar:
        for x, y in tokens.sliding(block, rows, limit=limit):  # (B, T) each
            threads.follow()
            logits = model(x.to(device))[..., :n_vocab].float()  # (B, T, V)
            # Here what precedes counts, and not whether an earlier window had the token.
            following = torch.cat((x[:, 1:], y[:, -1:]), dim=1)
            losses = F.cross_entropy(
                logits.flatten(0, 1), following.flatten().to(device), ignore_index=-1,
                reduction="none",
            ).view(y.shape).cpu().double()  # fmt: skip
            places += torch.stack((losses.sum(dim=0), (following >= 0).sum(dim=0)))
            total += float(losses[y >= 0].sum())
            targets = y[y >= 0]
            n += len(targets)
            bins += binned(logits[(y >= 0).to(device)].softmax(dim=-1).cpu(), targets)
            bar.update(len(targets))
    if not math.isfinite(total):
        raise UserError("the model predicts NaN: its weights are broken; judge an earlier one")
    expected, observed, _ = bins
    parts = torch.arange(block).tensor_split(min(POSITIONS, block))
    sums = [(int(part[-1]) + 1, *places[:, part].sum(dim=1).tolist()) for part in parts]
    return TextFigures(
        n_tokens=n,
        loss=total / n,
        calibration_error=float((expected - observed).abs().sum()) / 2 / n,
        calibration=[(p / m, came / m, int(m)) for p, came, m in bins.T.tolist() if m],
        by_position=[(last, loss / m) for last, loss, m in sums if m],
    )


def single_token_loss(text: TokenFile, known: TokenFile, n_vocab: int) -> float:
    """The loss on a text, in nats/token, of knowing only how frequent each token is in another.

    Each token counts once more than it comes there, so that none is impossible. Of both, at most
    the first 4 million tokens are counted.
    """
    of_text, of_known = (
        torch.from_numpy(tokens.read(0, min(READ, tokens.n_tokens))).bincount(minlength=n_vocab)
        for tokens in (text, known)
    )
    log_p = ((of_known + 1.0).double() / (of_known + 1).sum()).log()
    return float(-(of_text * log_p).sum() / of_text.sum())


def binned(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The probabilities of all tokens, and which tokens came, by bins of equal width.

    Args:
        probabilities: (N, V), on the CPU.
        targets: (N,), the tokens that came.

    Returns (3, BINS), float64: sums of the probabilities in each bin, how many of the tokens that
    got them came, and how many probabilities there are. All below 1 / BINS are in the first.
    """
    n, n_vocab = probabilities.shape
    p, ids = probabilities.double().topk(min(BINS, n_vocab))  # no more can be above the first bin
    bin = (p * BINS).long().clamp(max=BINS - 1).flatten()
    came = (ids == targets[:, None]).double().flatten()
    sums = torch.stack(
        [bin.bincount(weights, minlength=BINS).double() for weights in (p.flatten(), came, None)]
    )
    sums[:, 0] += torch.tensor((n, n, n * n_vocab)) - sums.sum(dim=1)
    return sums


# ---- the verdict ----

# Keys of the figures, how a table says them, and how it shows their values.
FIGURES = {
    "well_formed": ("well-formed", "{:.1%}"),
    "obeys": ("obey their first line", "{:.1%}"),
    "obeys_by_chance": ("obey that of another document", "{:.1%}"),
    "valid": ("valid to the letter", "{:.1%}"),
    "identical": ("the same as another one", "{:.1%}"),
    "loops": ("end in a loop", "{:.1%}"),
    "different": ("different ones of one prompt", "{:.1%}"),
    "self_repetition": ("4-grams that the text had before", "{:.1%}"),
    "distinct_1": ("different words of all", "{:.1%}"),
    "distinct_2": ("different pairs of words", "{:.1%}"),
    "distinct_3": ("different triples of words", "{:.1%}"),
    "entropy": ("entropy of predictions, nats", "{:.3f}"),
    "copied_run": ("share {} bytes with the training text", "{:.1%}"),
    "copied_whole": ("are in the training text as a whole", "{:.1%}"),
    "longest_run": ("longest run in common, bytes", "{:,.0f}"),
}


def verdict(judged: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a model, or that nothing is.

    A model that memorises is never called undertrained: more training would make it worse.
    """
    text, samples, real = judged["text"], judged["samples"], judged["real"]

    def both(key: str, otherwise: float = 0.0) -> tuple[float, float]:
        """A figure of samples and of real text; `otherwise` where it cannot be counted."""
        ours, theirs = samples.get(key), real.get(key)
        return (otherwise if ours is None else ours, otherwise if theirs is None else theirs)

    # The losses. On few tokens, they are chance.
    loss, train, single = text["loss"], judged["train_loss"], text["single_tokens"]
    measured = train is not None and text["n_tokens"] >= LEAST_TOKENS
    learnt_little = measured and loss > LITTLE_LEARNT * single
    apart = SOME_APART if learnt_little else LOSS_APART
    collapsed, memorising, found = False, list[str](), list[str]()
    if measured and loss >= apart * train:
        memorising.append(
            f"memorising: the loss is {train:.3f} on the training text and {loss:.3f} on new text"
        )
    n_samples = judged["n_samples"]
    if n_samples >= LEAST_TEXTS:
        stuck, usual = both("stuck")
        if collapsed := stuck >= usual + MORE_STUCK:
            found.append(
                f"collapsed: {stuck:.0%} of samples loop or are the same; real text: {usual:.0%}"
            )
        copied, usual = both("copied_run")
        if copied >= usual + MORE_COPIED:
            memorising.insert(
                0,
                f"memorising: {copied:.0%} of samples share {judged['run_length']} or more "
                f"bytes with the training text; real text: {usual:.0%}",
            )
        # Many short documents are probable, in the training text or not: that a model writes those
        # of the training text is a fault only if it finds them more probable than new ones.
        copied, usual = both("copied_whole")
        prefers = train is None or (measured and loss >= DOCUMENTS_APART * train)
        if judged["short"] and copied >= usual + MORE_COPIED and prefers:
            memorising.insert(
                0,
                f"memorising: {copied:.0%} of samples are documents of the training text; "
                f"real text: {usual:.0%}",
            )
    found += memorising
    if n_samples >= LEAST_TEXTS:
        formed, usual = both("well_formed", 1.0)
        if formed < LEAST_FORMED * usual and not collapsed and not memorising:
            found.append(
                f"undertrained: {formed:.0%} of samples are well-formed; real text: {usual:.0%}"
            )
        if samples.get("obeys_by_chance") is not None and formed >= LEAST_FORMED * usual:
            heeded, possible = (
                one["obeys"] - (one["obeys_by_chance"] or 0) for one in (samples, real)
            )
            if heeded < LEAST_HEEDED * possible:
                found.append(
                    f"ignores its prompt: {samples['obeys']:.0%} obey it, "
                    f"{samples['obeys_by_chance']:.0%} another one's; real text: "
                    f"{real['obeys']:.0%} and {real['obeys_by_chance'] or 0:.0%}"
                )
    if learnt_little and not memorising:
        found.append(
            f"undertrained: a loss of {loss:.3f}; knowing only how frequent each token is "
            f"gives {single:.3f}"
        )
    if not found and text["n_tokens"] < LEAST_TOKENS:
        return [
            f"no verdict: {text['n_tokens']} tokens are too few; --file FILE judges on more text"
        ]
    if not found and 0 < n_samples < LEAST_TEXTS:
        return [f"no fault in its losses; {n_samples} samples are too few to judge"]
    return found or ["healthy" if samples else "no fault in its losses; --count 0 made no samples"]


# ---- the command ----


class Texts(NamedTuple):
    """What a model is judged on, and what it was trained on."""

    held_out: TokenFile
    training: TokenFile | None  # None: not known
    floor: float | None  # of `held_out`, in bits/byte
    separator_bytes: int  # of text that END_OF_TEXT stands for
    is_own: bool  # `held_out` is of the same text as `training`


def find_texts(config: EvaluateConfig, loaded: Engine) -> Texts:
    settings, tokenizer, cache = (
        loaded.state.get("config"),
        loaded.tokenizer,
        data_folder() / "cache",
    )
    corpus, training = None, None
    try:
        if settings is None:
            raise UserError(f"{loaded.path} is no run of train.py, so what it read is not known")
        data = corpora.given_in(loaded.state.get("folder", ""), settings["data"])
        links = loaded.state.get("links", False)
        corpus = corpora.find(data, data_folder(), settings["separator"], links)
        _, training, own = prepare(
            corpus, tokenizer, "", 0, cache, most_chars=loaded.state.get("most_chars", 0)
        )
        if loaded.state["content"] != [training.path.stem, own.path.stem]:
            training = None
            raise UserError(f"{corpus.name} is no longer the text that it was trained on")
    except UserError as error:
        if config.file is None:
            raise UserError(f"{error}; give a text to judge on: --file FILE") from None
        print(f"without the training text: {error}", file=sys.stderr)
    if config.file is not None:
        if config.split != "val":
            raise UserError("--file and --split exclude each other; give one")
        given = corpora.find([config.file], data_folder(), separator_for(config, settings))
        known = {file.resolve() for file in corpus.train} if corpus and training else set()
        seen = [file for file in given.val or given.train if file.resolve() in known]
        notes = [*given.notes, *(notes_on_text(given) if config.separator != SAME else [])]
        notes += [f"warning: the model was trained on {seen[0]}"] if seen else []
        for note in notes:
            print(note, file=sys.stderr)
        text = scan(given.val or given.train, given.separator)
        tokens = write_tokens(text, tokenizer, cache, "text")
        return Texts(tokens, training, given.floor, given.separator_bytes, False)
    assert corpus is not None
    if config.split == "val":
        return Texts(own, training, corpus.floor, corpus.separator_bytes, True)
    files = [path.with_name("held_out.txt") for path in corpus.val]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{corpus.name} has no held_out.txt; leave out --split, or give a --file")
    text = scan(files, corpus.separator)
    tokens = write_tokens(text, tokenizer, cache, "held-out text")
    return Texts(tokens, training, None, corpus.separator_bytes, True)


def separator_for(config: EvaluateConfig, settings: Mapping[str, Any] | None) -> str | None:
    """Return the separator for --file: the one that is given, or that of the run's text."""
    if config.separator != SAME:
        return config.separator
    if config.file in corpora.NAMES and not Path(config.file).exists():
        return None
    if settings is None:
        return corpora.AUTO
    return corpora.BETWEEN if corpora.written(settings["data"]) else settings["separator"]


def training_text(tokens: TokenFile, tokenizer: Tokenizer) -> LongText:
    """Decode its tokens, up to 64 MB; 0xFF, which is in no UTF-8, stands around each document."""
    content, place = bytearray(), 0
    while place < tokens.n_tokens and len(content) < SEARCHED:
        ids = tokens.read(place, min(1 << 16, tokens.n_tokens - place)).tolist()
        place += len(ids)
        content += b"".join(
            b"\xff" if id == tokens.end_of_text else tokenizer.token_bytes(id) for id in ids
        )
    content += b"\xff"
    return LongText(bytes(content[:SEARCHED]))


def judge(config: EvaluateConfig, loaded: Engine) -> dict[str, Any]:
    """All figures, as JSON has them."""
    texts, tokenizer = find_texts(config, loaded), loaded.tokenizer
    model = loaded.model.float().to(choose_device(config.device))
    n_vocab, block = min(tokenizer.n_vocab, model.config.vocab_size), model.config.block_size
    settings = asdict(config)
    settings |= settings.pop("sampling")
    text = read(model, texts.held_out, n_vocab, config.eval_tokens or None)
    bits_per_byte = texts.held_out.bits_per_byte(texts.separator_bytes)
    judged: dict[str, Any] = {
        "model": str(loaded.path),
        "step": loaded.state.get("step"),
        "config": {k: v for k, v in settings.items() if not isinstance(v, Path)},
        "text": {**asdict(text), "single_tokens": None},
        "perplexity": math.exp(text.loss) if text.loss < MOST_LOSS else None,  # None: infinite
        "bits_per_byte": text.loss * bits_per_byte,
        "floor": texts.floor,
        "train_loss": None,
        "run_length": None,
        "n_samples": 0,
        "short": False,  # whole documents of less than 32 tokens are written
        "samples": {},
        "real": {},
    }
    if texts.training is not None and texts.is_own:
        n = max(text.n_tokens, LEAST_READ)
        judged["train_loss"] = read(model, texts.training, n_vocab, n).loss
        judged["text"]["single_tokens"] = single_token_loss(texts.held_out, texts.training, n_vocab)
    if config.count:
        length = config.max_new_tokens or NEW_TOKENS
        real = excerpts(texts.held_out, tokenizer, block, length, config.prompt_lines)
        real = evenly(real, config.count)
        # Documents end by themselves: twice the longest is room for one that does not.
        whole = all(one.rest[-1] == tokenizer.end_of_text for one in real)
        limit = config.max_new_tokens or max(len(one.rest) for one in real) * (2 if whole else 1)
        real = [cut(one, limit, tokenizer) for one in real]  # no longer than a sample may be
        prompts = [*real, *[real[0]] * min(ONE_PROMPT, config.count)]
        written = write(loaded, prompts, config.sampling, limit, config.seed)
        samples, of_one_prompt = written[: len(real)], written[len(real) :]
        short = all(one.is_document for one in real)
        judged |= {"n_samples": len(samples), "short": short}
        training, run = None, 0
        if texts.training is not None:
            print("looking for copies", file=sys.stderr)
            training = training_text(texts.training, tokenizer)
            run = judged["run_length"] = copying_run(training, real)
        for name, some in (("samples", samples), ("real", real)):
            judged[name] = figures(some, training, run)
            judged[name]["entropy"] = mean_entropy(model, some, n_vocab)
        if training is not None and short:
            # A list may have each document once; but who draws from it will draw some again.
            documents = training.content[:DRAWN_FROM].split(b"\xff")[1:-1]
            drawn = drawn_twins([*Counter(documents).values()], len(samples))
            for key in ("identical", "stuck"):
                judged["real"][key] = max(judged["real"][key] or 0.0, drawn)
        if len(of_one_prompt) > 1:
            different = {one.body for one in of_one_prompt}
            judged["samples"]["different"] = len(different) / len(of_one_prompt)
    judged["verdict"] = verdict(judged)
    return judged


def table(judged: Mapping[str, Any]) -> str:
    """What was found, for people."""
    text, train, samples, real = (judged[k] for k in ("text", "train_loss", "samples", "real"))
    floor, bits = judged["floor"], judged["bits_per_byte"]
    lines = [
        f"{judged['model']} on {text['n_tokens']:,} tokens",
        f"loss                {text['loss']:.4f} nats/token = {bits:.4f} bits/byte"
        + ("" if floor is None else f" ({bits / floor - 1:.1%} above the text's entropy)")
        + f", perplexity {math.inf if judged['perplexity'] is None else judged['perplexity']:.2f}",
    ]
    if train is not None:
        lines.append(f"on training text    {train:.4f} nats/token")
    lines.append(f"calibration error   {text['calibration_error']:.2%}")
    if samples:
        lines.append(f"\n{'':50}{'samples':>9}{'real text':>11}")
    for key, (words, form) in FIGURES.items():
        if key in samples:
            ours, theirs = (
                "" if key not in some else "n/a" if some[key] is None else form.format(some[key])
                for some in (samples, real)
            )
            label = words.format(judged["run_length"])
            lines.append(f"{label:50}{ours:>9}{theirs:>11}".rstrip())
    return "\n".join([*lines, "", *judged["verdict"]])


def plot(judged: Mapping[str, Any], path: Path) -> None:
    """Calibration, loss by position, and shares of samples beside those of real text."""
    plt = pyplot()
    text, samples, real = judged["text"], judged["samples"], judged["real"]
    shown = [
        key
        for key, (_, form) in FIGURES.items()
        if "%" in form and None not in (samples.get(key), real.get(key))
    ]
    figure, (one, two, three) = plt.subplots(
        1, 3, figsize=(15, 4.5), dpi=100, width_ratios=(1, 1, 1.2), layout="constrained"
    )
    expected, observed, _ = zip(*text["calibration"], strict=True)
    one.plot((0, 1), (0, 1), color="grey", linestyle=":", label="as it should be")
    one.plot(expected, observed, "o-", markersize=3, label="this model")
    one.set(xlabel="probability that the model gave", ylabel="share of such tokens that came",
            title="calibration")  # fmt: skip
    one.legend()
    two.plot(*zip(*text["by_position"], strict=True), "o-", markersize=3)
    two.set(xlabel="tokens that the model saw before", ylabel="loss in nats/token", ylim=(0, None),
            title="loss by position in the context")  # fmt: skip
    heights = np.arange(len(shown), 0, -1)
    three.barh(heights + 0.2, [samples[key] for key in shown], 0.4, label="samples")
    three.barh(heights - 0.2, [real[key] for key in shown], 0.4, label="real text", color="grey")
    three.set_yticks(heights, [FIGURES[key][0].format(judged["run_length"]) for key in shown])
    three.set(xlim=(0, 1), title="share of samples, and of real text")
    if shown:
        three.legend()
    figure.savefig(path)
    plt.close(figure)


def draw(judged: Mapping[str, Any], path: Path, asked: bool) -> None:
    """`plot`; where nobody asked for it, a failure other than the disk's is only a warning."""
    try:
        plot(judged, path)
    except OSError:
        raise
    except Exception as error:  # whatever matplotlib can do wrong
        if asked:
            raise
        print(f"warning: cannot draw {path}: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EvaluateConfig, argv, words="run")
    for name, least in (
        ("count", 0),
        ("eval_tokens", 0),
        ("max_new_tokens", 1),
        ("prompt_lines", 1),
    ):
        if (given := getattr(config, name)) is not None and given < least:
            raise UserError(f"--{name} is {given}; give {least} or more")
    if config.plot is not None:
        check_ending(config.plot)
    loaded = load(config.run, out_dir=config.out_dir, device=config.device)
    judged = judge(config, loaded)
    # Another's folder is left as it is.
    run = loaded.path.parent if loaded.state else None
    json_path = config.json or (run and run / "evaluation.json")
    plot_path = config.plot or (run and run / "evaluation.png")
    try:  # first, as who reads the table may be gone after its first line
        if json_path:
            json_path.write_text(to_json(judged, indent=1) + "\n", encoding="utf-8")
        if plot_path:
            draw(judged, plot_path, config.plot is not None)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from None
    finally:
        print(table(judged))


if __name__ == "__main__":
    with one_line_errors():
        main()

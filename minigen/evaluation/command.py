"""Judge a generative model: `python -m minigen evaluate tales`

The command answers two questions: how well a model predicts text that it never saw, and how its own
texts compare with real ones. A metric of samples means little by itself, so the same metric of real
held-out text, cut the same way, stands beside it. A large difference shows a fault.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from minigen import corpora
from minigen.cli import parse
from minigen.data import (
    Pairs,
    TokenStream,
    are_pairs,
    notes_on_text,
    prepare,
    prepare_pairs,
    tokens_of_files,
)
from minigen.data.pair_lines import scan_pairs
from minigen.data.pairs import write_pairs
from minigen.errors import UserError, check_range
from minigen.evaluation.answers import AnswerMetrics, answer_metrics
from minigen.evaluation.continuations import (
    evenly_spaced,
    generated_continuations,
    real_continuations,
    truncated,
)
from minigen.evaluation.repetition import TrainingText, expected_duplicates
from minigen.evaluation.report import as_json, plot, table
from minigen.evaluation.samples import SampleMetrics, copy_length, mean_entropy, sample_metrics
from minigen.evaluation.text import text_metrics, unigram_loss
from minigen.evaluation.verdict import Comparison, Judgement
from minigen.files.chat_template import renderer
from minigen.inference.engine import Engine, load
from minigen.sampling import Sampling
from minigen.system.device import choose_device, choose_dtype
from minigen.system.places import data_folder
from minigen.system.plot import check_ending
from minigen.system.strict_json import to_json

SAME = "same"  # value of --separator: the separator of the run's text
NEW_TOKENS = 200  # length of a sample where documents are too long to be written to their end
MAX_OF_ONE_PROMPT = 100  # samples of the first prompt, to see how much they differ
MAX_LISTED = 4 << 20  # bytes of the training text whose short documents are counted
MIN_TRAINING_TOKENS = 10_000  # to score, where the held-out text is shorter


@dataclass(frozen=True)
class EvaluateConfig:
    """Judge a model by its loss on text that it never saw, and by samples of it."""

    # --- the model ---
    # the name or the folder of a run, or a model such as gpt2 (default: the run saved last)
    run: str | None = None
    out_dir: str = "out"  # the folder of the runs
    # --- the text ---
    # a text to judge on (default: the text that the run held out for validation)
    file: str | None = None
    separator: str = SAME  # between documents of --file, as in train.py; same: as in the run's text
    split: Literal["val", "held_out"] = "val"  # held_out: held_out.txt of the corpus, if it has one
    eval_tokens: int | None = None  # tokens of the text to read (default: all)
    # --- samples ---
    count: int = 200  # samples, each with its own prompt from the text; 0: no samples
    # lines of a tale, picture or tune in a prompt; 8: a tune up to the end of its first phrase
    prompt_lines: int = 1
    # length of a sample, in tokens (default: twice the longest document's; 200 if the text has no
    # documents)
    max_new_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337  # start of all random numbers: the same seed gives the same samples
    # --- the machine ---
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest of them on this machine
    # number format of matrix products when the text is read; auto: that of the run's training, if
    # the device computes it fast, else float32
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # --- the output ---
    # file for the figures (default: evaluation.json in the run's folder)
    json: Path | None = None
    # file for a picture of the figures (default: evaluation.png in the run's folder)
    plot: Path | None = None


class Texts(NamedTuple):
    """The text that a model is judged on, and the text that it was trained on."""

    held_out: TokenStream | Pairs
    training: TokenStream | Pairs | None  # None: not known
    entropy: float | None  # of `held_out`, in bits/byte; None: not known
    separator_bytes: int  # bytes of text that END_OF_TEXT stands for
    is_same_corpus: bool  # `held_out` and `training` are parts of one corpus
    other_kinds: Pairs | None = None  # questions of kinds that no training text has


def find_texts(config: EvaluateConfig, loaded: Engine) -> Texts:
    """Return the held-out text of a run, or the text that --file names, and the training text.

    Without --file, raises `UserError` if the run's text is unknown or missing, or has changed.
    """
    settings, tokenizer = loaded.state.get("config"), loaded.tokenizer
    cache = data_folder() / "cache"
    corpus = None
    training: TokenStream | Pairs | None = None
    validation: TokenStream | Pairs
    found: tuple[TokenStream | Pairs, TokenStream | Pairs]
    try:
        if settings is None:
            raise UserError(f"{loaded.path} is no run of train.py, so its text is not known")
        data = corpora.relocate(loaded.state.get("folder", ""), settings["data"])
        links = loaded.state.get("links", False)
        val_data = corpora.relocate(loaded.state.get("folder", ""), settings.get("val_data", ()))
        corpus = corpora.find(data, data_folder(), settings["separator"], links, val_data)
        max_chars = corpus.at_most(loaded.state.get("most_chars", 0))
        if are_pairs((*corpus.train, *corpus.val)):
            loss_on = settings.get("loss_on", "answer")
            template = renderer(loaded.companions, tokenizer)
            found = prepare_pairs(corpus, tokenizer, "", 0, cache, loss_on, template=template)[1:]
        else:
            found = prepare(corpus, tokenizer, "", 0, cache, max_chars=max_chars)[1:]
        training, validation = found
        if loaded.state["content"] != [each.path.stem for each in found]:
            training = None
            raise UserError(f"{corpus.name} is no longer the text that it was trained on")
    except UserError as error:
        if config.file is None:
            raise UserError(f"{error}; give a text to judge on: --file FILE") from None
        print(f"without the training text: {error}", file=sys.stderr)
    if config.file is not None:
        if config.split != "val":
            raise UserError("--file and --split exclude each other; give one")
        judged_on = corpora.find([config.file], data_folder(), separator_for(config, settings))
        trained_on = {file.resolve() for file in corpus.train} if corpus and training else set()
        seen = [file for file in judged_on.val or judged_on.train if file.resolve() in trained_on]
        notes = [*judged_on.notes]
        notes += notes_on_text(judged_on) if config.separator != SAME else []
        notes += [f"warning: the model was trained on {seen[0]}"] if seen else []
        for note in notes:
            print(note, file=sys.stderr)
        tokens = tokenise(judged_on.val or judged_on.train, judged_on, loaded, "text")
        others = other_kinds(judged_on, loaded)
        entropy, separator_bytes = judged_on.entropy, judged_on.separator_bytes
        return Texts(tokens, training, entropy, separator_bytes, False, others)
    assert corpus is not None
    if config.split == "val":
        others = other_kinds(corpus, loaded)
        return Texts(validation, training, corpus.entropy, corpus.separator_bytes, True, others)
    files = corpus.held_out
    if not files:
        raise UserError(f"{corpus.name} has no held-out text; leave out --split, or give a --file")
    tokens = tokenise(files, corpus, loaded, "held-out text")
    return Texts(tokens, training, None, corpus.separator_bytes, True)


def other_kinds(corpus: corpora.Corpus, loaded: Engine) -> Pairs | None:
    """Return the questions of a corpus whose kinds no training text has; None if it has none."""
    if corpus.name != "tasks":
        return None
    tokens = tokenise(corpus.held_out, corpus, loaded, "held-out pairs")
    assert isinstance(tokens, Pairs)
    return tokens


def tokenise(
    files: Sequence[Path], corpus: corpora.Corpus, loaded: Engine, name: str
) -> TokenStream | Pairs:
    """Return the tokens of files of a corpus."""
    cache = data_folder() / "cache"
    if are_pairs(files):
        loss_on = loaded.state.get("config", {}).get("loss_on", "answer")
        pairs = scan_pairs(files, renderer(loaded.companions, loaded.tokenizer))
        return write_pairs(pairs, loaded.tokenizer, cache, name, loss_on)
    return tokens_of_files(files, corpus.separator, loaded.tokenizer, cache, name)


def separator_for(config: EvaluateConfig, settings: Mapping[str, Any] | None) -> str | None:
    """Return --separator for --file, or the separator of the run's text if it is "same"."""
    if config.separator != SAME:
        return config.separator
    if config.file in corpora.NAMES and not Path(config.file).exists():
        return None
    if settings is None:
        return corpora.AUTO
    is_synthetic = corpora.synthetic_names(settings["data"])
    return corpora.BLANK_LINE if is_synthetic else settings["separator"]


def judge(config: EvaluateConfig, loaded: Engine) -> Judgement:
    """Return the metrics of a model's losses and samples."""
    texts, tokenizer = find_texts(config, loaded), loaded.tokenizer
    device = choose_device(config.device)
    model = loaded.model.float().to(device)
    n_vocab = min(tokenizer.n_vocab, model.config.vocab_size)
    block_size, dtype = validation_block_size(loaded), validation_dtype(config, loaded, device)
    limit = config.eval_tokens
    text = text_metrics(model, texts.held_out, n_vocab, block_size, dtype, limit)
    train_loss = loss_of_unigrams = None
    if texts.training is not None and texts.is_same_corpus:
        limit = max(text.n_tokens, MIN_TRAINING_TOKENS)
        train_loss = text_metrics(model, texts.training, n_vocab, block_size, dtype, limit).loss
        if isinstance(texts.held_out, TokenStream) and isinstance(texts.training, TokenStream):
            loss_of_unigrams = unigram_loss(texts.held_out, texts.training, n_vocab)
    compared, answers = None, dict[str, AnswerMetrics]()
    if config.count and isinstance(texts.held_out, Pairs):
        if texts.other_kinds is not None:
            asked = {"known kinds": texts.held_out, "held-out kinds": texts.other_kinds}
        else:
            asked = {"held-out kinds" if config.split == "held_out" else "pairs": texts.held_out}
        answers = {
            name: answer_metrics(loaded, pairs, config.count, config.seed)
            for name, pairs in asked.items()
        }
    elif config.count:
        compared = compare_samples(config, loaded, texts)
    flags = asdict(config)
    flags |= flags.pop("sampling")
    return Judgement(
        model=str(loaded.path),
        step=loaded.state.get("step"),
        flags={k: v for k, v in flags.items() if not isinstance(v, Path)},
        text=text,
        bits_per_byte=text.loss * texts.held_out.bits_per_byte(texts.separator_bytes),
        text_entropy=texts.entropy,
        train_loss=train_loss,
        unigram_loss=loss_of_unigrams,
        comparison=compared,
        answers=answers,
    )


def validation_block_size(loaded: Engine) -> int:
    """Return the context length of a run's validation, which may be shorter than the model's."""
    longest = loaded.model.config.block_size
    trained_on = loaded.state.get("config", {}).get("block_size")
    return min(trained_on, longest) if type(trained_on) is int and trained_on > 0 else longest


def validation_dtype(config: EvaluateConfig, loaded: Engine, device: torch.device) -> str:
    """Return --dtype; "auto": that of the run's validation, unless it is slow on this device."""
    if config.dtype != "auto":
        return config.dtype
    if loaded.state.get("config", {}).get("dtype") != "bfloat16":
        return "float32"
    return choose_dtype("auto", device)


def compare_samples(config: EvaluateConfig, loaded: Engine, sources: Texts) -> Comparison:
    """Let a model continue prompts from the held-out text; measure samples and real text."""
    assert isinstance(sources.held_out, TokenStream)
    model, tokenizer = loaded.model, loaded.tokenizer
    n_vocab, block_size = min(tokenizer.n_vocab, model.config.vocab_size), model.config.block_size
    n_new = config.max_new_tokens or NEW_TOKENS
    real = real_continuations(sources.held_out, tokenizer, block_size, n_new, config.prompt_lines)
    real = evenly_spaced(real, config.count)
    # Real documents end by themselves. Twice the longest shows a sample that does not end.
    all_end = all(one.ids[-1] == tokenizer.end_of_text for one in real)
    limit = config.max_new_tokens or max(len(one.ids) for one in real) * (2 if all_end else 1)
    real = [truncated(one, limit, tokenizer) for one in real]  # like the samples
    prompts = [*real, *[real[0]] * min(MAX_OF_ONE_PROMPT, config.count)]
    generated = generated_continuations(loaded, prompts, config.sampling, limit, config.seed)
    samples, of_one_prompt = generated[: len(real)], generated[len(real) :]
    whole_documents = all(one.is_document for one in real)
    training, length = None, 0
    if isinstance(sources.training, TokenStream):
        print("looking for copies", file=sys.stderr)
        training = TrainingText.decoded(sources.training, tokenizer)
        length = copy_length(training, real)
    of_samples, of_real = (
        sample_metrics(texts, mean_entropy(model, texts, n_vocab), training, length)
        for texts in (samples, real)
    )
    if training is not None and whole_documents:
        of_real = with_expected_duplicates(of_real, training, len(samples))
    if len(of_one_prompt) > 1:
        different = len({one.text for one in of_one_prompt}) / len(of_one_prompt)
        of_samples = replace(of_samples, different=different)
    known_length = None if training is None else length
    return Comparison(of_samples, of_real, len(samples), whole_documents, known_length)


def with_expected_duplicates(
    real: SampleMetrics, training: TrainingText, n_samples: int
) -> SampleMetrics:
    """Return the metrics with at least the duplicates of random draws from the training documents.

    A list of names may have each name once, but random draws from it repeat some. So a
    model that draws names correctly repeats some, too.
    """
    documents = Counter(training.documents(MAX_LISTED))
    expected = expected_duplicates([*documents.values()], n_samples)
    repetition = replace(
        real.repetition,
        identical=max(real.repetition.identical or 0.0, expected),
        stuck=max(real.repetition.stuck, expected),
    )
    return replace(real, repetition=repetition)


def write_files(judged: Judgement, config: EvaluateConfig, run: Path | None) -> None:
    """Write evaluation.json and evaluation.png into a run's folder, or where the flags say.

    Args:
        run: the run's folder; None: the model is no run of train.py, so nothing is written there.
    """
    json_path = config.json or (run and run / "evaluation.json")
    plot_path = config.plot or (run and run / "evaluation.png")
    if json_path:
        json_path.write_text(to_json(as_json(judged), indent=1) + "\n", encoding="utf-8")
    if not plot_path:
        return
    try:
        plot(judged, plot_path)
    except OSError:
        raise
    except Exception as error:  # matplotlib can fail in any way
        if config.plot is not None:
            raise
        print(f"warning: cannot draw {plot_path}: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Judge a model; print a table, and write evaluation.json and evaluation.png."""
    config = parse(EvaluateConfig, argv, words="run")
    check_range("--count", config.count, 0)
    if config.eval_tokens is not None:
        check_range("--eval_tokens", config.eval_tokens, 1)
    check_range("--prompt_lines", config.prompt_lines, 1)
    if config.max_new_tokens is not None:
        check_range("--max_new_tokens", config.max_new_tokens, 1)
    if config.plot is not None:
        check_ending(config.plot)
    loaded = load(config.run, out_dir=config.out_dir, device=config.device)
    judged = judge(config, loaded)
    try:  # before the table: a reader such as `head -1` ends the process after its first line
        write_files(judged, config, loaded.path.parent if loaded.state else None)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from None
    finally:
        print(table(judged))

"""Prepare the text of a run: find it, tokenise it, and hold out a part for validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from minigen import corpora
from minigen.data import (
    Mixture,
    Pairs,
    TokenStream,
    are_pairs,
    notes_on_text,
    opening,
    prepare,
    prepare_pairs,
)
from minigen.data.pair_lines import has_messages, scan_pairs
from minigen.data.pairs import write_pairs
from minigen.data.template import Template, render
from minigen.errors import UserError
from minigen.files.chat_template import renderer
from minigen.files.companions import Companions
from minigen.run.before_after import HELD_OUT, KNOWN
from minigen.system.places import data_folder
from minigen.tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    from train import TrainConfig

# A run with --minutes tokenises only a part of a very long text, because all of it would take too
# much of the time. Two slow cores train on less than 0.1 million characters a second, so on less
# than 6 million a minute. This number is four times as large, and the two cores tokenise that
# number of characters in 2 seconds.
CHARS_A_MINUTE = 25_000_000


class OldText(NamedTuple):
    """The text that a base model knows: to rehearse, and to measure how much is forgotten."""

    train_tokens: TokenStream | Pairs
    val_tokens: TokenStream | Pairs


@dataclass(frozen=True)
class Text:
    """The tokens that a run trains on and is validated on, and facts about their text."""

    tokenizer: Tokenizer
    train_tokens: TokenStream | Pairs
    val_tokens: TokenStream | Pairs
    old: OldText | None  # fine-tuning: the text that the base model knows
    opening: str  # the text that a sample without a prompt continues
    entropy: float | None  # of the validation text, in bits per byte; None: not known
    separator_bytes: int  # bytes of text that one END_OF_TEXT stands for
    name: str  # of the corpus, safe as the name of a folder
    notes: list[str]  # lines to show before training
    # A resumed run must read the same text, so it needs these two:
    max_chars: int  # only about this number of characters was read; 0: all
    links: bool  # whether links to folders were followed
    prompt: str = ""  # of pairs to validate on: samples show its answer
    has_messages: bool = False  # whether the pairs are messages
    questions: Mapping[str, Pairs] = field(default_factory=dict)  # to ask before and after
    old_share: float = 0.0  # of the rows to train on that are of the old text

    @property
    def training(self) -> TokenStream | Pairs | Mixture:
        """The rows to train on: of the text, or with --old_share of the old text, too."""
        if not self.old_share:
            return self.train_tokens
        assert self.old is not None
        return Mixture(self.train_tokens, self.old.train_tokens, self.old_share)

    @property
    def old_cache_name(self) -> str | None:
        """The name in the cache of the old text that is trained on; None: none is."""
        return self.old.train_tokens.path.stem if self.old and self.old_share else None

    @property
    def cache_names(self) -> list[str]:
        """The names of both streams in the cache; another text or tokenizer has other names."""
        return [self.train_tokens.path.stem, self.val_tokens.path.stem]


def find_text(
    config: TrainConfig,
    block_size: int | None,
    tokenizer: Tokenizer | None,
    saved: Mapping[str, Any] | None,
    base_settings: Mapping[str, Any],
    companions: Companions | None = None,
) -> tuple[Text, TrainConfig]:
    """Tokenise the text of a run, and decide on the settings that depend on the text.

    Args:
        block_size: --block_size, if it is given; if not, a short text can make it smaller.
        tokenizer: of the base model or of the run that resumes, or the one that --tokenizer names;
            None: train a new one.
        saved: the state of the checkpoint that resumes; None: the run does not resume.
        base_settings: the configuration that the base model was trained with; empty if unknown.
        companions: of the base model, or of the run that resumes; its chat template writes messages
            as text.

    Returns the text, and the configuration with its separator, block size and vocabulary size.
    Raises `UserError` if the text cannot be read or is too short.
    """
    links = saved is None or bool(saved.get("links", False))  # the first version followed no links
    corpus = corpora.find(config.data, data_folder(), config.separator, links, config.val_data)
    template: Template = render
    if tokenizer is not None and companions is not None:
        template = renderer(companions, tokenizer)
    if are_pairs((*corpus.train, *corpus.val)):
        return _find_pairs(config, corpus, tokenizer, saved, base_settings, links, template)
    if config.loss_on != "answer":
        raise UserError("--loss_on is for pairs of a prompt and an answer; leave it out")
    separator = config.separator
    if separator == corpora.AUTO and corpus.separator == END_OF_TEXT:
        separator = END_OF_TEXT
    max_chars = 0
    if saved is not None:
        max_chars = saved.get("most_chars", 0)
    elif config.max_steps is None and config.device == "cpu":
        max_chars = math.ceil(CHARS_A_MINUTE * config.minutes)
    tokenizer, train_tokens, val_tokens = prepare(
        corpus, tokenizer, config.tokenizer, config.vocab_size, data_folder() / "cache",
        block_size=block_size or 0, max_chars=corpus.at_most(max_chars),
    )  # fmt: skip
    if train_tokens.path == val_tokens.path:
        raise UserError(
            "the validation text is the training text, letter by letter; give another --val_data"
        )
    notes = [] if saved is not None else [*corpus.notes, *notes_on_text(corpus)]
    if train_tokens.stripe_interval > 1 and saved is None:
        n_read, n_all = (train_tokens.n_bytes + val_tokens.n_bytes) / 1e6, corpus.n_bytes / 1e6
        notes.append(
            f"of {n_all:,.0f} MB of text {n_read:,.0f} MB are read, from all over it, which is "
            f"more than {config.minutes:g} minutes can train on; with --max_steps all is read"
        )
    longest = min(train_tokens.n_tokens, val_tokens.n_tokens) - 1  # each token has a next one
    if block_size is None and longest < config.block_size:
        block_size = longest
        notes.append(
            f"a short text, so --block_size is {block_size}: the validation text has no more tokens"
        )
    else:
        block_size = config.block_size
    for tokens in (train_tokens, val_tokens):
        tokens.n_windows(block_size)  # refuse a text that is too short before the run has a folder
    start = opening(train_tokens, tokenizer)
    if config.init_from == "scratch" and tokenizer.kind != "hub":
        tokenizer.bare = bool(start)
    tokenizer.encode_prompt(corpora.unescape(config.sample_prompt))  # refuse unknown characters now
    old = None
    if config.old_data:
        old = _old_text(config, tokenizer, base_settings, max_chars, block_size, template)
    vocab_size = tokenizer.n_vocab if config.vocab_size is None else config.vocab_size
    text = Text(
        tokenizer, train_tokens, val_tokens, old, start, corpus.entropy,
        corpus.separator_bytes, corpus.name, notes, max_chars, links, old_share=config.old_share,
    )  # fmt: skip
    return text, dataclasses.replace(
        config, separator=separator, block_size=block_size, vocab_size=vocab_size
    )


def _find_pairs(
    config: TrainConfig,
    corpus: corpora.Corpus,
    tokenizer: Tokenizer | None,
    saved: Mapping[str, Any] | None,
    base_settings: Mapping[str, Any],
    links: bool,
    template: Template,
) -> tuple[Text, TrainConfig]:
    """Tokenise pairs of a prompt and an answer; all are read. The rest is as in `find_text`."""
    tokenizer, train, val = prepare_pairs(
        corpus, tokenizer, config.tokenizer, config.vocab_size, data_folder() / "cache",
        config.loss_on, template=template,
    )  # fmt: skip
    if train.path == val.path:
        raise UserError("the pairs to validate on are those to train on; give another --val_data")
    notes = []
    if saved is None:
        notes = [*corpus.notes, *(pairs.description(config.block_size) for pairs in (train, val))]
    tokenizer.encode_prompt(corpora.unescape(config.sample_prompt))  # refuse unknown characters now
    old, questions = None, {}
    if config.old_data:
        old = _old_text(config, tokenizer, base_settings, 0, config.block_size, template)
        questions[KNOWN] = val
        if corpus.name == "tasks":
            held_out = scan_pairs(corpus.held_out, template)
            cache = data_folder() / "cache"
            questions[HELD_OUT] = write_pairs(
                held_out, tokenizer, cache, "held-out pairs", config.loss_on
            )
    text = Text(
        tokenizer, train, val, old, "", corpus.entropy, 0, corpus.name, notes, 0, links,
        val.short_prompt(tokenizer), has_messages(corpus.train), questions, config.old_share,
    )  # fmt: skip
    vocab_size = tokenizer.n_vocab if config.vocab_size is None else config.vocab_size
    return text, dataclasses.replace(config, vocab_size=vocab_size)


def _old_text(
    config: TrainConfig,
    tokenizer: Tokenizer,
    base_settings: Mapping[str, Any],
    max_chars: int,
    block_size: int,
    template: Template,
) -> OldText:
    """Return the tokens of --old_data, a text that the base model was trained on.

    Args:
        base_settings: the configuration that the base model was trained with; empty if unknown.
        max_chars: read only about this number of characters of a longer text; 0: read all.
        block_size: T of the rows to train on, with --old_share.
        template: writes messages as text.
    """
    try:
        is_synthetic = corpora.synthetic_names(config.old_data)
        separator = None if is_synthetic else base_settings.get("separator")
        val_data = base_settings.get("val_data", ())
        corpus = corpora.find(config.old_data, data_folder(), separator, val_data=val_data)
        cache = data_folder() / "cache"
        if are_pairs((*corpus.train, *corpus.val)):
            loss_on = base_settings.get("loss_on", "answer")
            pairs = prepare_pairs(corpus, tokenizer, "", 0, cache, loss_on, template=template)
            return OldText(*pairs[1:])
        most = corpus.at_most(max_chars)
        _, train_tokens, val_tokens = prepare(corpus, tokenizer, "", 0, cache, max_chars=most)
        if config.old_share:
            train_tokens.n_windows(block_size)  # refuse a text that is too short
    except UserError as error:
        raise UserError(f"the base model's text: {error}; --old_data names another one") from None
    return OldText(train_tokens, val_tokens)

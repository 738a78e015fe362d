"""The text of a run: found, tokenised, and split into a training and a validation part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minigen import corpora
from minigen.data import TokenStream, notes_on_text, opening, prepare
from minigen.errors import UserError
from minigen.system.places import data_folder
from minigen.tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    from train import TrainConfig

# A run by the clock reads a part of a longer text, as reading all of it would take too much of the
# time. Two slow cores tokenise 12 million characters a second and train on less than 0.1 million,
# so this is four times as much as they train on.
CHARS_A_MINUTE = 25_000_000


@dataclass(frozen=True)
class Text:
    """The tokens that a run trains on and is validated on, and the facts about their text."""

    tokenizer: Tokenizer
    train_tokens: TokenStream
    val_tokens: TokenStream
    old_tokens: TokenStream | None  # to fine-tune: a text that the base model was trained on
    opening: str  # the text that a sample without a prompt continues
    floor: float | None  # bits per byte that no model can beat, where it is known
    separator_bytes: int  # bytes of text that END_OF_TEXT stands for
    name: str  # of the corpus, safe as a folder's name
    notes: list[str]  # lines to show before training
    # How the text is found again when the run resumes:
    most_chars: int  # about this number of characters was read of it; 0: all
    links: bool  # links to folders were followed

    @property
    def content(self) -> list[str]:
        """Names that change with the text and with the tokenizer."""
        return [self.train_tokens.path.stem, self.val_tokens.path.stem]


def find_text(
    config: TrainConfig,
    block_size: int,
    tokenizer: Tokenizer | None,
    saved: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> tuple[Text, TrainConfig]:
    """Tokenise the text of a run, and settle the part of the configuration that depends on it.

    Args:
        block_size: the --block_size that was given; 0: a short text may make it smaller.
        tokenizer: of the base model or of the run that resumes; None: a new one is trained.
        saved: the state of the checkpoint that resumes; None: the run is new.
        settings: the configuration that the base model was trained with; empty: it is not known.

    Returns the text, and the configuration with its separator, block size and dropout.
    Raises `UserError` if the text cannot be read or is too short.
    """
    links = saved is None or bool(saved.get("links", False))  # the first runs followed no links
    corpus = corpora.find(config.data, data_folder(), config.separator, links)
    separator = config.separator
    if separator == corpora.AUTO and corpus.separator == END_OF_TEXT:
        separator = END_OF_TEXT
    most_chars = 0
    if saved is not None:
        most_chars = saved.get("most_chars", 0)
    elif not config.max_steps and config.device == "cpu":
        most_chars = math.ceil(CHARS_A_MINUTE * config.minutes)
    is_new = tokenizer is None
    tokenizer, train_tokens, val_tokens = prepare(
        corpus, tokenizer, config.tokenizer, config.vocab_size, data_folder() / "cache",
        block_size=block_size, max_chars=most_chars,
    )  # fmt: skip
    notes = [] if saved is not None else [*corpus.notes, *notes_on_text(corpus)]
    if train_tokens.stripe_interval > 1 and saved is None:
        read, size = (train_tokens.n_bytes + val_tokens.n_bytes) / 1e6, corpus.n_bytes / 1e6
        notes.append(
            f"of {size:,.0f} MB of text {read:,.0f} MB are read, from all over it, which is more "
            f"than {config.minutes:g} minutes can train on; with --max_steps all is read"
        )
    room = min(train_tokens.n_tokens, val_tokens.n_tokens) - 1
    if block_size or room >= config.block_size:
        room = config.block_size
    else:
        notes.append(f"a short text, so --block_size is {room}: its held-out part fills no more")
    for tokens in (train_tokens, val_tokens):
        tokens.n_windows(room)  # refuse a text that is too short before the run has a folder
    start = opening(train_tokens, tokenizer)
    if start and is_new:
        tokenizer.bare = True
    tokenizer.encode_prompt(corpora.unescape(config.sample_prompt))  # refuse unknown characters now
    old_tokens = None
    if config.old_data:
        old_tokens = _old_tokens(config.old_data, tokenizer, settings, most_chars)
    dropout = config.dropout
    if dropout is None:
        # A short text is read many times; dropout keeps a model from learning it by heart.
        is_short = is_new and train_tokens.n_tokens < 1_000_000
        dropout = 0.1 if is_short and config.size != "tiny" else 0.0
    text = Text(
        tokenizer, train_tokens, val_tokens, old_tokens, start, corpus.floor,
        corpus.separator_bytes, corpus.name, notes, most_chars, links,
    )  # fmt: skip
    return text, dataclasses.replace(config, separator=separator, block_size=room, dropout=dropout)


def _old_tokens(
    old_data: tuple[str, ...], tokenizer: Tokenizer, settings: Mapping[str, Any], most_chars: int
) -> TokenStream:
    """Return the validation part of --old_data: a text that the base model was trained on.

    Args:
        settings: the configuration that the base model was trained with; empty: it is not known.
        most_chars: about this number of characters is read of a longer text; 0: all are.
    """
    try:
        separator = None if corpora.synthetic(old_data) else settings.get("separator")
        old = corpora.find(old_data, data_folder(), separator)
        cache = data_folder() / "cache"
        _, _, val_tokens = prepare(old, tokenizer, "", 0, cache, max_chars=most_chars)
    except UserError as error:
        raise UserError(f"the model's old text: {error}; --old_data names another") from None
    return val_tokens

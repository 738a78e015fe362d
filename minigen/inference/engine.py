"""One object that writes text: a model, its tokenizer, and the fastest backend of this machine.

    >>> engine = minigen.load("out/tales")                              # doctest: +SKIP
    >>> for piece in engine.stream("hero: Sir Fox,"):                   # doctest: +SKIP
    ...     print(piece, end="", flush=True)

`Engine.generate` writes the tokens of several texts at once, `Engine.stream` one text and
`Engine.stream_many` several. The random numbers of a text depend only on the seed and the text's
number. So the text is the same alone and in a batch if its logits are. They have equal bits where
`cpu.Decoder` says so (test_texts_streamed_together_are_the_texts_streamed_alone). Elsewhere they
may differ by rounding. Such a difference changes a token, and with it the rest of the text, only if
the draw depends on it: at a boundary of the random number or of a filter, or at
temperature 0 if the two best logits are nearly equal.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minigen.errors import UserError
from minigen.files import adapter as adapter_files
from minigen.files import chat_template, checkpoint, huggingface, lora
from minigen.files.chat_template import ChatTemplate, Message
from minigen.files.companions import Companions
from minigen.inference.cpu import Decoder
from minigen.inference.cuda_graph import GraphDecoder
from minigen.inference.stop_strings import StopStrings
from minigen.model import GPT, KVCache
from minigen.sampling import Sampling, Token, generate
from minigen.system.device import choose_device
from minigen.tokenizer import Tokenizer


@dataclass(eq=False)
class Engine:
    """A model in evaluation mode, its tokenizer, and facts about both.

    The backend, which computes the logits, is chosen at the first token. Until then the model is a
    plain module that may be trained or changed. Afterwards it belongs to the backend, which may
    move it to another device and keep its weights in another format.

    Raises `UserError` if the device is not on this machine, and for int8 on a GPU.
    """

    model: GPT
    tokenizer: Tokenizer
    path: Path = field(default_factory=Path)  # the folder that the model was loaded from
    state: Mapping[str, Any] = field(default_factory=dict)  # state.json of a checkpoint; else empty
    companions: Companions = field(default_factory=Companions)  # other files of the model's folder
    device: str = "auto"  # cuda, mps, cpu; auto: the fastest on this machine
    # Format of the weights: float32, bfloat16, int8. None: bfloat16 if the file has it, else
    # float32.
    dtype: str | None = None
    block_size: int = 0  # tokens of context; 0: the model's
    # None: choose the decoder in C on a CPU, a CUDA graph on a GPU. The model itself is a backend,
    # too: it computes each token from its current weights, so a model in training can write.
    backend: Decoder | GraphDecoder | GPT | None = None

    def __post_init__(self) -> None:
        where = choose_device(self.device)
        if where.type != "cpu" and self.dtype == "int8":
            raise UserError(f"--dtype int8 is for CPUs; on {where}, give --dtype bfloat16")

    @property
    def n_vocab(self) -> int:
        """The number of ids that can be drawn: those of both the tokenizer and the model."""
        return min(self.tokenizer.n_vocab, self.model.config.vocab_size)

    @property
    def description(self) -> str:
        """The model's path, and for a checkpoint its step and its validation loss."""
        if not self.state:
            return f"{self.path}: not a checkpoint of train.py"
        loss = self.state.get("val_loss")
        loss_text = "" if loss is None else f", validation loss {loss:.3f} nats/token"
        return f"{self.path}: step {self.state['step']}{loss_text}"

    def encode(self, prompt: str) -> list[int]:
        """Return the ids that the model reads to continue a prompt.

        The name of a control token in the prompt becomes that token. An empty prompt becomes the
        ids that the documents of the training text begin with.
        """
        return self.tokenizer.encode_prompt(prompt, self.state.get("opening", ""))

    def encode_chat(
        self, messages: Sequence[Message], more: Mapping[str, Any] = chat_template.NOTHING
    ) -> list[int]:
        """Return the ids that a chat model reads to answer messages, by its chat template.

        Args:
            messages: such as {"role": "user", "content": "Hi"}. A control token that a message
                spells is read as letters.
            more: other names that the template reads, such as enable_thinking.

        Raises `UserError` as `find_chat_template` does, and if the template refuses the messages.
        """
        ids = self.find_chat_template().encode(messages, self.tokenizer, more=more)
        if not ids:
            raise UserError("the model's chat template writes nothing for these messages")
        return ids

    def find_chat_template(self) -> ChatTemplate:
        """Return the model's chat template. Raises `UserError` if it has none."""
        template = chat_template.find(self.companions)
        if template is None:
            raise UserError(
                f"{self.path} has no chat template: it continues a text and answers no messages; "
                "give it the beginning of a text, or a model that was trained on messages"
            )
        return template

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        end_of_text: Collection[int] | None = None,
        seed: int = 0,
        samples: Sequence[int] | None = None,
        finished: set[int] | None = None,
    ) -> Iterator[list[Token | None]]:
        """Continue each prompt; yield, at each step, one new token per row.

        The arguments not named here are those of `minigen.sampling.generate`.

        Args:
            prompts: the ids of each row, at least one, as `encode` returns them.
            end_of_text: the ids that end a row; None: the tokenizer's `stop_ids`; (): no id does.

        >>> for [token] in engine.generate([[1]], Sampling(), max_new_tokens=9):  # doctest: +SKIP
        ...     print(token.id)
        """
        backend = self.ready()
        block_size = self.block_size or self.model.config.block_size
        capacity = min(block_size, max(map(len, prompts), default=1) + max_new_tokens)
        return generate(
            backend,
            lambda rows: self.new_cache(rows, capacity),
            prompts,
            sampling,
            n_vocab=self.n_vocab,
            max_new_tokens=max_new_tokens,
            end_of_text=self.tokenizer.stop_ids if end_of_text is None else end_of_text,
            seed=seed,
            samples=samples,
            finished=finished,
        )

    def ready(self) -> Decoder | GraphDecoder | GPT:
        """Return the backend; the first call chooses it, and moves the model there."""
        if self.backend is None:
            self.backend = self._fastest()
        return self.backend

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Return an empty cache for `rows` texts of up to `capacity` tokens, for the backend."""
        backend, weight = self.ready(), self.model.embedding.weight
        dtype = backend.cache_dtype if isinstance(backend, Decoder) else weight.dtype
        return KVCache(self.model.config, rows, capacity, weight.device, dtype)

    def _fastest(self) -> Decoder | GraphDecoder | GPT:
        """Move the model to the fastest backend of the device; return the backend."""
        where, dtype = choose_device(self.device), self.dtype
        if dtype is None:
            half = self.model.embedding.weight.dtype == torch.bfloat16
            dtype = "bfloat16" if half else "float32"
        if where.type == "cpu":
            return Decoder(self.model, dtype)
        self.model.to(where, getattr(torch, dtype))
        return GraphDecoder(self.model) if where.type == "cuda" else self.model

    def stream(
        self,
        prompt: str = "",
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int = 500,
        stop_strings: Sequence[str] = (),
        end_of_text: Collection[int] | None = None,
        seed: int = 0,
        sample: int = 0,
    ) -> Iterator[Piece]:
        """Continue a prompt. Yield the new text piece by piece, one piece for each token.

        Args:
            sampling: how to draw tokens; None: `Sampling()`.
            stop_strings: the text ends before the first of these strings.
            end_of_text: ids that end the text; None: the tokenizer's `stop_ids`; (): no id does.
            seed: the same seed gives the same text.
            sample: the number of the text; texts with other numbers have other random numbers.

        Raises `UserError`, at the first token, for settings out of range.

        >>> engine = minigen.load("out/tales")                          # doctest: +SKIP
        >>> "".join(engine.stream("hero:", Sampling(temperature=0)))    # doctest: +SKIP
        ' Sir Fox, friend: little Owl, ...'
        >>> for piece in engine.stream("hero:"):                        # doctest: +SKIP
        ...     if piece.token:  # and how probable it was
        ...         print(piece, piece.token.logits.softmax(dim=-1)[piece.token.id].item())
        """
        steps = self.stream_many(
            [self.encode(prompt)],
            sampling or Sampling(),
            max_new_tokens=max_new_tokens,
            stop_strings=stop_strings,
            end_of_text=end_of_text,
            seed=seed,
            samples=[sample],
        )
        for [piece] in steps:
            if piece is not None:
                yield piece

    def stream_many(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop_strings: Sequence[str] = (),
        end_of_text: Collection[int] | None = None,
        seed: int = 0,
        samples: Sequence[int] | None = None,
    ) -> Iterator[list[Piece | None]]:
        """Continue several prompts at once. Yield, at each step, a list with one piece per text.

        A text that has ended has None instead of a piece. After the last step, a text that was cut
        off at max_new_tokens gets one more piece, without a token. The arguments not named here
        are those of `stream`.

        Args:
            prompts: the ids of each text, as `encode` returns them.
            samples: the number of each text; None: 0, 1, 2, ...
        """
        ends = self.tokenizer.stop_ids if end_of_text is None else end_of_text
        texts = [PieceDecoder(self.tokenizer, ends, stop_strings) for _ in prompts]
        finished = set[int]()
        for step in self.generate(
            prompts,
            sampling,
            max_new_tokens=max_new_tokens,
            end_of_text=ends,
            seed=seed,
            samples=samples,
            finished=finished,
        ):
            pieces = [
                None if token is None else Piece(text.push(token.id), token, text.ended)
                for text, token in zip(texts, step, strict=True)
            ]
            for row, piece in enumerate(pieces):
                if piece is not None and piece.last:
                    finished.add(row)
            yield pieces
        if len(finished) < len(texts):
            yield [
                None if row in finished else Piece(text.cut(), None, True)
                for row, text in enumerate(texts)
            ]


class Piece(str):
    """A piece of a text, with the token that completed it.

    A piece is empty if its token holds only part of a character, or may begin a stop string.
    """

    token: Token | None  # None: the text was cut off at max_new_tokens; the piece was held back
    last: bool  # whether the text ends with this piece

    def __new__(cls, text: str, token: Token | None, last: bool) -> Piece:
        piece = super().__new__(cls, text)
        piece.token, piece.last = token, last
        return piece


class PieceDecoder:
    """A decoder of one text: ids in, pieces out, without stop strings and end-of-text tokens.

    Attributes:
        ended: whether a stop string or an end-of-text token has ended the text.
        n_characters: the characters that the tokens so far complete, pieces held back included.
    """

    def __init__(
        self, tokenizer: Tokenizer, ends: Collection[int], stop_strings: Sequence[str]
    ) -> None:
        self.ends, self.hidden = ends, tokenizer.controls.keys() & ends
        self.decoder, self.stop = tokenizer.stream(), StopStrings(stop_strings)
        self.ended, self.n_characters = False, 0

    def push(self, id: int) -> str:
        """Return the piece that a token completes."""
        shown = "" if id in self.hidden else self.decoder.push(id)
        self.n_characters += len(shown)
        text = self.stop.push(shown)
        self.ended = id in self.ends or self.stop.stopped
        return text + self.cut() if self.ended else text

    def offset(self, id: int) -> int:
        """Return the index of a token's first character in the text, before it is pushed."""
        return self.n_characters + self.decoder.breaks(id)

    def cut(self) -> str:
        """Return the text that was held back: part of a character or the start of a stop string."""
        return self.stop.push(self.decoder.finish()) + self.stop.finish()


def load(
    source: str | Path | None = None,
    dropout: float | None = None,
    out_dir: str | Path = "out",
    device: str = "auto",
    dtype: str | None = None,
    adapter: str | Path | None = None,
) -> Engine:
    """Load a model and its tokenizer, to write with or to train. An adapter (LoRA) is merged in.

    Args:
        source: the name or the folder of a run (`tales`, `out/tales`), of which the best checkpoint
            is loaded; the folder of a checkpoint; any other folder with a GPT-2, Llama or Qwen3
            model; or a name on the hub such as `gpt2`. `checkpoint.find` decides which of these
            `source` is. None: the best checkpoint of the run in out_dir that was saved last, or if
            that checkpoint is damaged, the next best.
        dropout: for training; None: the dropout of the model's config.json.
        out_dir: the folder that holds the runs.
        device: where `Engine` computes: cuda, mps, cpu, or auto.
        dtype: the format of the weights: float32, bfloat16 or int8; None: bfloat16 if the file has
            that, else float32.
        adapter: the run, checkpoint or folder of an adapter, which is merged into the model
            `source`, its base model. The result is that of `load(adapter)`, which takes the base
            model that the adapter names; `source` may be another place of that model. None: no
            other adapter than that of `source`.

    Raises `UserError` if there is no such model, or if it is damaged; also if `adapter` is no
    adapter, or does not fit `source`. An adapter of minigen has a hash of its base model's weights;
    of any other adapter, a note on standard error says that it names another base model.

    >>> engine = minigen.load("out/tales")                            # doctest: +SKIP
    >>> engine.model(torch.tensor([engine.encode("hero:")])).shape    # doctest: +SKIP
    torch.Size([1, 4, 1481])
    """
    about: dict[str, Any] = {"device": device, "dtype": dtype}
    base: str | Path | None = None
    if adapter is not None:
        base = None if source is None else _find_base(source, out_dir)
        source = find_adapter(adapter, out_dir)
    if source is None:
        saved = checkpoint.load_best(checkpoint.find_run(out_dir))
    else:
        place = _find(source, out_dir)
        if isinstance(place, str) or not checkpoint.is_checkpoint(place):
            other = huggingface.load(place, dropout, base)
            if other.tokenizer is None:
                raise UserError(
                    f"{other.path} has no tokenizer.json; save the model's tokenizer there"
                )
            about |= {"path": other.path, "companions": other.companions}
            return Engine(other.model, other.tokenizer, **about)
        saved = checkpoint.load(place, to_train=False)
    model = saved.model(dropout, base)
    lora.merge(model)
    about |= {"path": saved.path, "state": saved.state, "companions": saved.companions}
    return Engine(model, saved.tokenizer, **about)


def _find(source: str | Path, out_dir: str | Path) -> Path | str:
    """Return the model that `source` means: a folder, of a run the best checkpoint's, or a name."""
    place = checkpoint.find(source, out_dir)
    if isinstance(place, Path) and checkpoint.steps(place):
        return checkpoint.best_first(place)[0]  # if it is damaged, an error: the run was named
    return place


def find_adapter(name: str | Path, out_dir: str | Path = "out") -> Path:
    """Return the folder of the adapter that `name` means, as `load` finds a model.

    Raises `UserError` if there is no such folder, or if it holds no adapter.
    """
    folder = huggingface.fetch(_find(name, out_dir))
    if not adapter_files.is_adapter(folder):
        raise UserError(
            f"{folder} is not an adapter: it has no {adapter_files.CONFIG}; give a run that was "
            "trained with --lora_rank, or an adapter of peft"
        )
    return folder


def _find_base(source: str | Path, out_dir: str | Path) -> Path | str:
    """Return the base model that `source` means, as `_find` does; `UserError` for an adapter."""
    place = _find(source, out_dir)
    if adapter_files.is_adapter(huggingface.fetch(place)):
        raise UserError(
            f"{place} is an adapter itself, and cannot be the base model of another one; name its "
            "base model, or one adapter alone"
        )
    return place


def note_context_overflow(block_size: int) -> None:
    """Print a note on standard error: a text is longer than the model's context."""
    print(
        f"\nnote: the text is longer than the model's context of {block_size} tokens; "
        f"the model continues from the latest {max(1, block_size // 2)} to {block_size} tokens",
        file=sys.stderr,
    )

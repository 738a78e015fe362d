"""Write text with a trained model: `python sample.py --prompt "Once upon a time"`."""

from __future__ import annotations

from minigen.system import early  # first: Ctrl-C is quiet while PyTorch is imported

# isort: split

import contextlib
import dataclasses
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minigen import corpora
from minigen.cli import parse
from minigen.corpora import first_line, genre, saving
from minigen.errors import UserError, check_range
from minigen.files import checkpoint
from minigen.files.chat_template import Message
from minigen.inference.engine import Engine, find_adapter, load
from minigen.inference.explain import explain
from minigen.inference.printing import GrowingText, Printer
from minigen.sampling import ROWS, Sampling
from minigen.system import streams
from minigen.system.streams import one_line_errors

RULE = "-" * 60  # between samples, where documents have no separator of their own


@dataclass(frozen=True)
class SampleConfig:
    """Write text with a trained model; by default with the best checkpoint of the newest run.

    The text goes to standard output, all else to standard error. Control tokens in a prompt, such
    as <|endoftext|>, are read as such. The flags decide how to draw. From a model's
    generation_config.json, only the tokens that end a text are taken.
    """

    # --- the model ---
    out_dir: str = "out"  # the folder of the runs
    # the name or the folder of a run (default: the run that was saved last)
    run: str | None = None
    # best: the checkpoint with the lowest validation loss; last: the newest one; or a model: its
    # folder, or a name such as gpt2
    checkpoint: str = "best"
    # runs, checkpoints or folders of adapters (LoRA), each of which is added to that model, or if
    # none is named, to its own base model; several write one after the other (default: none)
    adapter: tuple[str, ...] = ()
    # --- the prompt ---
    # start of the text, where \n is a newline and \\n is \ and n (default: as a document starts)
    prompt: str | None = None
    prompt_file: str | None = None  # a file with the prompt; - is standard input (default: none)
    interactive: bool = False  # continue each line that you type; an empty line ends
    # the prompt is a message, and the model answers it, by its own chat template; with
    # --interactive, each line is a message of one conversation
    chat: bool = False
    # instead of a prompt, a condition on the text, such as mood=sad (default: none)
    condition: str | None = None
    help_conditions: bool = False  # list the conditions that this model knows, and exit
    # --- the output ---
    num_samples: int = 1  # number of texts, each with its own random numbers
    # length of each text, in tokens (default: 500; 20 with --show_probs)
    max_new_tokens: int | None = None
    # end the text before the first of these strings, where \n is a newline (default: none)
    stop_strings: tuple[str, ...] = ()
    ignore_end_of_text: bool = False  # where the model ends a document, start another
    show_probs: bool = False  # show for each token the probabilities that it was drawn from
    # write the text to this file, too: .txt; a picture as .png; a tune as .abc, .wav or .png
    # (default: no file)
    save: Path | None = None
    # --- sampling ---
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337  # start of all random numbers: the same seed gives the same text
    # --- the machine ---
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest of them on this machine
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # number format of the weights


def main(argv: Sequence[str] | None = None) -> None:
    """Write texts as the flags `argv` ask for; None: those of this process."""
    config = parse(SampleConfig, argv, words="prompt")
    text = read_prompt(config)
    check_range("--num_samples", config.num_samples, 1)
    if config.max_new_tokens is not None:
        check_range("--max_new_tokens", config.max_new_tokens, 1)
    streams.as_utf8()
    if config.save:  # write the file even if the reader of standard output quits
        sys.stdout = streams.ignore_write_errors(sys.stdout)
    if not config.adapter:
        return sample(config, find_model(config), text)
    # Find all adapters before the first one writes. Then load one after the other, so that only one
    # model is in memory.
    adapters = [find_adapter(name, config.out_dir) for name in config.adapter]
    for number, adapter in enumerate(adapters):
        if number:
            print(RULE, flush=True)
        sample(config, find_model(config, adapter), text)


def sample(config: SampleConfig, engine: Engine, text: str) -> None:
    """Write texts with one model, as the flags ask for.

    Args:
        text: that a person typed.
    """
    genres = genre.genres_of_model(engine.state)
    if config.help_conditions:
        return print(first_line.describe(genres))
    if config.save:
        saving.check_path(config.save, genres)
    rng = random.Random(f"prompt/{config.seed}")
    prompt, ids = begin(config, engine, text, rng)
    print(engine.description, file=sys.stderr)
    settings = dataclasses.asdict(config.sampling)
    settings["do_sample"] = config.sampling.temperature > 0
    if others := engine.companions.list_differing(settings):
        print(
            f"note: the model's generation_config.json asks for {others}; the flags decide",
            file=sys.stderr,
        )
    if config.interactive:
        return converse(config, engine, rng)
    samples = write(config, engine, prompt, ids)
    texts = [sample.text for sample in samples]
    first_line.report(texts, {n for n, sample in enumerate(samples) if sample.cut_off})
    if config.save:
        saving.save(texts, config.save, saving.separator_of(engine.state) or "\n\n")


def begin(
    config: SampleConfig,
    engine: Engine,
    text: str,
    rng: random.Random,
    conversation: Sequence[Message] = (),
) -> tuple[str, list[int]]:
    """Return the beginning of a text, as it is printed, and the ids that the model reads.

    Args:
        text: that a person typed.
        conversation: with --chat, the messages before `text`, which is a message, too. Only the
            answer is printed.

    Raises `UserError` for a text that the model cannot read.
    """
    if config.chat:
        return "", engine.encode_chat([*conversation, {"role": "user", "content": text}])
    genres = genre.genres_of_model(engine.state)
    if config.condition is not None:
        prompt = genre.condition(genres, streams.decoded(config.condition), rng)
    else:
        prompt = genre.prompt(genres, text, rng)
    return prompt, engine.encode(prompt)


def write(
    config: SampleConfig, engine: Engine, prompt: str, ids: Sequence[int], first: int = 0
) -> list[GrowingText]:
    """Print --num_samples texts that begin with `prompt`; return them.

    Up to ROWS texts are computed at once.

    Args:
        ids: the tokens of the prompt.
        first: the number of the first text, which decides its random numbers; the next text has
            the next number.
    """
    # Each text already ends with a newline.
    separator = (saving.separator_of(engine.state) or f"\n{RULE}\n").removeprefix("\n")
    # Print a text only at its end if tables interrupt it (--show_probs), or if it is a picture.
    genres = genre.genres_of_model(engine.state)
    in_colours = streams.shows_colours() and any(each.SHOWN_WHEN_COMPLETE for each in genres)
    printer = Printer(
        prompt,
        config.num_samples,
        separator,
        at_end=config.show_probs or in_colours,
        block_size=engine.model.config.block_size,
    )
    with contextlib.closing(printer):
        for start in range(0, config.num_samples, ROWS):
            numbers = range(start, min(start + ROWS, config.num_samples))
            for step in engine.stream_many(
                [ids] * len(numbers),
                config.sampling,
                max_new_tokens=config.max_new_tokens or (20 if config.show_probs else 500),
                stop_strings=[corpora.unescape(stop) for stop in config.stop_strings],
                end_of_text=() if config.ignore_end_of_text else None,
                seed=config.seed,
                samples=[first + number for number in numbers],
            ):
                for number, piece in zip(numbers, step, strict=True):
                    if piece is None:  # this text ended in an earlier step
                        continue
                    table = ""
                    if config.show_probs and piece.token:
                        context = printer.texts[number].text or engine.state.get("opening", "")
                        table = explain(piece.token, context, engine.tokenizer, config.sampling)
                        table += "\n\n"
                    printer.push(number, piece, table)
                printer.flush()
    return printer.texts


def converse(config: SampleConfig, engine: Engine, rng: random.Random) -> None:
    """Continue or answer each typed line. Ctrl-C ends a text; an empty line or Ctrl-D ends all.

    With --chat, the lines are one conversation. An answer that Ctrl-C ends is no part of it.
    """
    what = "a message" if config.chat else "the beginning of a text"
    hint = f"Type {what}, then Enter. Ctrl-C ends a text; an empty line ends all."
    conversation = list[Message]()
    for turn, line in enumerate(streams.typed_lines(hint)):
        try:
            prompt, ids = begin(config, engine, line, rng, conversation)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        try:  # other random numbers each turn, so that the same line gets another text
            answer, *_ = write(config, engine, prompt, ids, first=turn * config.num_samples)
            conversation += [
                {"role": "user", "content": line},
                {"role": "assistant", "content": answer.text},
            ]
        except KeyboardInterrupt:
            print()


def read_prompt(config: SampleConfig) -> str:
    """Return the prompt; if it comes from a file, each of its lines ends with `\\n`.

    Raises `UserError` for flags that exclude each other, and for a file that is not UTF-8 text.
    """
    prompts = [config.prompt, config.prompt_file, config.condition, config.interactive or None]
    if len(prompts) - prompts.count(None) > 1:
        raise UserError(
            "--prompt, --prompt_file, --condition and --interactive exclude each other; give one"
        )
    if config.chat and (config.condition is not None or not any(prompts)):
        raise UserError("--chat answers a message; give it as --prompt, or give --interactive")
    if config.interactive and config.save:
        raise UserError("--interactive and --save exclude each other; give --prompt")
    if len(config.adapter) > 1 and (config.interactive or config.save or config.help_conditions):
        raise UserError("--interactive, --save and --help_conditions take one --adapter; give one")
    name = config.prompt_file
    if name is None:
        return corpora.unescape(config.prompt or "")
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"cannot read --prompt_file {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--prompt_file {name} is not UTF-8: {error}") from None


def find_model(config: SampleConfig, adapter: Path | None = None) -> Engine:
    """Load the model that --run, --checkpoint and --out_dir name, with the adapter added to it."""
    source: str | Path | None = config.checkpoint
    if source == "best":
        source = config.run
    elif source == "last":
        source = checkpoint.steps(checkpoint.find_run(config.out_dir, config.run))[-1]
    elif config.run is not None:
        raise UserError("--run and the path of a --checkpoint exclude each other; give one")
    return load(
        source, out_dir=config.out_dir, device=config.device, dtype=config.dtype, adapter=adapter
    )


if __name__ == "__main__":
    early.end()
    with one_line_errors():
        main()

"""Write text with a trained model: `python sample.py --prompt "Once upon a time"`."""

from __future__ import annotations

import signal

if __name__ == "__main__":  # Ctrl-C ends the slow imports without a word
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import dataclasses
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minigen import corpora
from minigen.cli import parse
from minigen.corpora import first_line, saving, task
from minigen.errors import UserError, check_range
from minigen.files import checkpoint
from minigen.inference.engine import Engine, Piece, load, note_forgetting
from minigen.inference.explain import explain
from minigen.sampling import ROWS, Sampling
from minigen.system import streams
from minigen.system.streams import one_line_errors

RULE = "-" * 60  # between samples, where documents have no separator of their own


@dataclass(frozen=True)
class SampleConfig:
    """Write text with a trained model; by default with the best checkpoint of the newest run.

    The text goes to standard output, all else to standard error. Control tokens in a prompt, such
    as <|endoftext|>, are read as such. The flags say how to draw, not the model's
    generation_config.json; of it only the tokens are taken that end a text.
    """

    # --- which model ---
    out_dir: str = "out"  # where the runs are
    run: str | None = None  # a run, its name or its folder; none: the run that was saved last
    checkpoint: str = "best"  # best (lowest validation loss), last, or a model: a folder, or gpt2
    # --- what to write ---
    prompt: str | None = None  # how it begins; \n: a newline, \\n: \ and n; none: as the text does
    prompt_file: str | None = None  # a file that holds the prompt; - is standard input
    interactive: bool = False  # continue each line that you type; an empty one ends
    condition: str | None = None  # instead of a prompt: what the text is to be like, as mood=sad
    help_conditions: bool = False  # say what this model's texts can be asked to be, and end
    num_samples: int = 1  # texts to write, each with random numbers of its own
    max_new_tokens: int | None = None  # longest text; none: 500, or 20 with --show_probs
    stop_strings: tuple[str, ...] = ()  # end the text before the first of these; \n is a newline
    ignore_end_of_text: bool = False  # start a new document where the model ends one
    show_probs: bool = False  # show what each token was drawn from
    save: Path | None = None  # also as a file: .txt, a picture's .png, a tune's .wav, .png or .abc
    # --- how to draw ---
    sampling: Sampling = field(default_factory=Sampling)  # how to draw the next token
    seed: int = 1337  # the same seed writes the same text
    # --- where ---
    device: str = "auto"  # cuda, mps, cpu, or auto
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # of the weights


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(SampleConfig, argv, words="prompt")
    text = read_prompt(config)
    check_range("--num_samples", config.num_samples, 1)
    if config.max_new_tokens is not None:
        check_range("--max_new_tokens", config.max_new_tokens, 1)
    streams.as_utf8()
    if config.save:  # the file is wanted, even if nobody reads on here
        sys.stdout = streams.unheard(sys.stdout)
    engine = find_model(config)
    tasks = task.trained_on(engine.state)
    if config.help_conditions:
        return print(first_line.describe(tasks))
    if config.save:
        saving.check_path(config.save, tasks)
    rng = random.Random(f"prompt/{config.seed}")
    if config.condition is not None:
        prompt = task.condition(tasks, streams.decoded(config.condition), rng)
    else:
        prompt = task.prompt(tasks, text, rng)
    ids = engine.encode(prompt)
    loss = engine.state.get("val_loss")
    known = "" if loss is None else f", validation loss {loss:.3f} nats/token"
    step = f"step {engine.state['step']}" if engine.state else "a model of others"
    print(f"{engine.path}: {step}{known}", file=sys.stderr)
    used = {**dataclasses.asdict(config.sampling), "do_sample": config.sampling.temperature > 0}
    if asked := engine.companions.asked_otherwise(used):
        print(f"note: its generation_config.json asks for {asked}; flags decide", file=sys.stderr)
    if config.interactive:
        return converse(config, engine, rng)
    samples = write(config, engine, prompt, ids)
    texts = [sample.text for sample in samples]
    first_line.report(texts, {n for n, sample in enumerate(samples) if sample.cut_off})
    if config.save:
        saving.save(texts, config.save, saving.joint(engine.state) or "\n\n")


def read_prompt(config: SampleConfig) -> str:
    """Return the text to begin with; of a file, with `\\n` at the ends of lines."""
    given = [config.prompt, config.prompt_file, config.condition, config.interactive or None]
    if len(given) - given.count(None) > 1:
        raise UserError(
            "--prompt, --prompt_file, --condition and --interactive exclude each other; give one"
        )
    if config.interactive and config.save:
        raise UserError("--interactive and --save exclude each other; give --prompt")
    name = config.prompt_file
    if name is None:
        return corpora.typed(config.prompt or "")
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"cannot read --prompt_file {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--prompt_file {name} is not UTF-8: {error}") from None


def find_model(config: SampleConfig) -> Engine:
    source: str | Path | None = config.checkpoint
    if source == "best":
        source = config.run
    elif source == "last":
        source = checkpoint.steps(checkpoint.find_run(config.out_dir, config.run))[-1]
    elif config.run is not None:
        raise UserError("--run and the path of a --checkpoint exclude each other; give one")
    return load(source, out_dir=config.out_dir, device=config.device, dtype=config.dtype)


# ---- writing ----


@dataclass
class Sample:
    """One text, and the part of it that is to be printed next."""

    text: str  # with the prompt
    unprinted: str
    held: bool  # it is printed as a whole, at its end
    ended: bool = False
    cut_off: bool = False  # by --max_new_tokens

    def push(self, piece: Piece) -> None:
        self.text += piece
        self.unprinted += "" if self.held else piece
        if piece.last:
            self.ended, self.cut_off = True, piece.token is None
            if self.held:
                kind = task.detect(self.text) if streams.shows_colours() else None
                self.unprinted += kind.show(self.text) if kind else self.text
            self.unprinted += "\n"


def write(
    config: SampleConfig, engine: Engine, prompt: str, ids: Sequence[int], first: int = 0
) -> list[Sample]:
    """Print --num_samples texts that begin with `prompt`, whose tokens are ids; return them.

    Up to ROWS are computed together. The first that has not ended is printed as it grows, then the
    next. Their random numbers are those of samples number `first` and after.
    """
    # Between tables a text would be in pieces; and some are only understood as a whole.
    whole = any(one.WHOLE for one in task.trained_on(engine.state)) and streams.shows_colours()
    held = config.show_probs or whole
    # Each text ends its own line.
    before = (saving.joint(engine.state) or f"\n{RULE}\n").removeprefix("\n")
    begin = "" if held else prompt
    samples = [Sample(prompt, before + begin, held) for _ in range(config.num_samples)]
    samples[0].unprinted = begin
    noted = False  # that a text outgrows the context
    # Where the terminal shows the texts, they themselves show how far it is.
    hidden = config.num_samples == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
    with streams.progress_bar(
        total=config.num_samples, unit=" samples", disable=hidden, leave=False
    ) as bar:
        for start in range(0, config.num_samples, ROWS):
            batch = samples[start : start + ROWS]
            for step in engine.stream_many(
                [ids] * len(batch),
                config.sampling,
                max_new_tokens=config.max_new_tokens or (20 if config.show_probs else 500),
                stop_strings=[corpora.typed(one) for one in config.stop_strings],
                end_of_text=() if config.ignore_end_of_text else None,
                seed=config.seed,
                samples=range(first + start, first + start + len(batch)),
            ):
                for sample, piece in zip(batch, step, strict=True):
                    if piece is None:
                        continue
                    if piece.token and piece.token.forgotten and not noted:
                        noted = True
                        note_forgetting(engine.model.config.block_size)
                    if config.show_probs and piece.token:
                        read = sample.text or engine.state.get("opening", "")
                        table = explain(piece.token, read, engine.tokenizer, config.sampling)
                        sample.unprinted += f"{table}\n\n"
                    sample.push(piece)
                    if piece.last:
                        bar.update()
                show(batch)
    return samples


def show(samples: Sequence[Sample]) -> None:
    """Print what is new, up to the first sample that has not ended."""
    for sample in samples:
        print(sample.unprinted, end="", flush=True)
        sample.unprinted = ""
        if not sample.ended:
            return


def converse(config: SampleConfig, engine: Engine, rng: random.Random) -> None:
    """Continue each line typed. Ctrl-C ends one text; Ctrl-D or an empty line, the program."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with contextlib.suppress(Exception):  # Windows has its own, and others a broken one
            import readline  # noqa: F401  makes `input` know the arrow keys and earlier lines
        print(
            "Type how a text begins, then Enter. Ctrl-C ends a text; an empty line ends all.",
            file=sys.stderr,
        )
    for turn in itertools.count():
        try:
            line = input("> " if at_terminal else "")
        except EOFError:
            return
        if not line:
            return
        try:
            prompt = task.prompt(task.trained_on(engine.state), line, rng)
            ids = engine.encode(prompt)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        try:  # with other random numbers each turn, so that asking again helps
            write(config, engine, prompt, ids, first=turn * config.num_samples)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on, KeyboardInterrupt
    with one_line_errors():
        main()

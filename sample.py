"""Write text with a trained model: `python sample.py --prompt "Once upon a time"`."""

from __future__ import annotations

import signal

if __name__ == "__main__":  # Ctrl-C ends the slow imports without a word
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import minigen  # noqa: F401  its first import measures, from here on, how busy the machine is

# isort: split

import contextlib
import dataclasses
import itertools
import math
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from minigen import corpora
from minigen.cli import parse
from minigen.corpora import task
from minigen.corpora.task import Task
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference.engine import Loaded, for_writing, from_checkpoint, load, note_forgetting
from minigen.sampling import ROWS, Sampling, StopStrings, Token, filtered, generate, pick
from minigen.system import streams
from minigen.system.streams import one_line_errors
from minigen.tokenizer import Tokenizer

RULE = "-" * 60  # between samples, where documents have no separator of their own
MOST_NAMED = 10  # texts whose fault is named, and kinds of faults of the others


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
    interactive: bool = False  # go on behind each line that you type; an empty one ends
    condition: str | None = None  # instead of a prompt: what the text is to be like, as mood=sad
    help_conditions: bool = False  # say what this model's texts can be asked to be, and end
    num_samples: int = 1  # texts to write, each with random numbers of its own
    max_new_tokens: int | None = None  # longest text; none: 500, or 20 with --show_probs
    stop_strings: tuple[str, ...] = ()  # end the text before the first of these; \n is a newline
    ignore_end_of_text: bool = False  # go on with a new document where the model ends one
    show_probs: bool = False  # show what each token was drawn from
    save: Path | None = None  # also as a file: .txt, a picture's .png, a tune's .wav, .png or .abc
    # --- how to draw ---
    temperature: float = 0.8  # below 1 is safer, above 1 bolder; 0 takes the most probable token
    top_k: int | None = None  # draw from the k most probable tokens only
    top_p: float = 1.0  # draw from the fewest tokens that together reach this probability
    min_p: float = 0.1  # draw from tokens at least this fraction as probable as the best
    repetition_penalty: float = 1.0  # above 1 makes tokens that are already there less probable
    seed: int = 1337  # the same seed writes the same text
    # --- where ---
    device: str = "auto"  # cuda, mps, cpu, or auto
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # of the weights


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(SampleConfig, argv, words="prompt")
    text = read_prompt(config)
    if config.num_samples < 1:
        raise UserError(f"num_samples is {config.num_samples}; it must be 1 or more")
    if config.max_new_tokens is not None and config.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {config.max_new_tokens}; it must be 1 or more")
    sampling = Sampling(
        config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty
    )
    streams.as_utf8()
    if config.save:  # the file is wanted, even if nobody reads on here
        sys.stdout = streams.unheard(sys.stdout)
    loaded = find_model(config)
    media = task.trained_on(loaded.state)
    if config.help_conditions:
        return print(conditions(media))
    check_saving(config, media)
    writer = Writer(config, sampling, loaded)
    prompt = writer.asked(text)
    ids = writer.tokenizer.encode_prompt(prompt, writer.opening)
    loss = loaded.state.get("val_loss")
    known = "" if loss is None else f", validation loss {loss:.3f} nats/token"
    step = f"step {loaded.state['step']}" if loaded.state else "a model of others"
    print(f"{loaded.path}: {step}{known}", file=sys.stderr)
    used = {**dataclasses.asdict(sampling), "do_sample": sampling.temperature > 0}
    if asked := loaded.companions.asked_otherwise(used):
        print(f"note: its generation_config.json asks for {asked}; flags decide", file=sys.stderr)
    if config.interactive:
        return converse(writer)
    samples = writer.write(ids, prompt)
    texts = [sample.text for sample in samples]
    checked(texts, {n for n, sample in enumerate(samples) if sample.cut_off})
    if config.save:
        save(texts, config.save, writer.joint or "\n\n")


def read_prompt(config: SampleConfig) -> str:
    """The text to begin with, a file's with `\\n` at the ends of lines."""
    given = [config.prompt, config.prompt_file, config.condition, config.interactive or None]
    if len(given) - given.count(None) > 1:
        raise UserError(
            "--prompt, --prompt_file, --condition and --interactive exclude each other; give one"
        )
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


def find_model(config: SampleConfig) -> Loaded:
    if config.checkpoint not in ("best", "last"):
        if config.run is not None:
            raise UserError("--run and the path of a --checkpoint exclude each other; give one")
        return load(config.checkpoint, out_dir=config.out_dir)
    if config.checkpoint == "last":
        return load(checkpoint.steps(checkpoint.find_run(config.out_dir, config.run))[-1])
    # A run that was named is taken as it is; without a name, a damaged checkpoint is passed over.
    if config.run is not None:
        return load(config.run, out_dir=config.out_dir)
    return from_checkpoint(checkpoint.load_best(checkpoint.find_run(config.out_dir)))


def conditions(media: Sequence[Task]) -> str:
    """What a first line can say, for a reader."""
    if not media:
        raise UserError("this model has read no tales, pictures or tunes; give it any --prompt")
    lines = []
    for one in media:
        lines.append(f"a {one.NOUN} has, in its first line,")
        lines += [f"  {field:14}{', '.join(values)}" for field, values in one.FIELDS.items()]
        example = ",".join(f"{field}={one.FIELDS[field][0]}" for field in list(one.FIELDS)[:2])
        lines.append(f"so for example --condition {example}; what is not said is drawn")
    return "\n".join(lines)


def check_saving(config: SampleConfig, media: Sequence[Task]) -> None:
    """Refuse a --save that cannot work, before anything is written."""
    path = config.save
    if path is None:
        return
    if config.interactive:
        raise UserError("--interactive and --save exclude each other; give --prompt")
    # A model of other texts may write tunes or pictures, too: that is seen when they are written.
    able = media or [task.get(name) for name in task.BEGINNINGS]
    endings = sorted({".txt"}.union(*(one.ENDINGS for one in able)))
    if path.suffix.lower() not in endings:
        raise UserError(f"cannot save as {path}; give a name that ends in {', '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"there is no folder {path.absolute().parent} for --save; make it first")


def checked(texts: Sequence[str], cut_off: Collection[int] = ()) -> None:
    """Say on standard error how many texts are as their first line says, and what the others lack.

    Texts that are no medium promise nothing. Of many faulty ones the first are named, and the
    faults of the others are counted.

    Args:
        cut_off: the texts, counted from 0, that --max_new_tokens ended. What they lack may have
            been to come, so they are counted apart.
    """
    media = [task.detect(text) for text in texts]
    verdicts = [one and one.check(text) for one, text in zip(media, texts, strict=True)]
    n_checked = len(verdicts) - verdicts.count(None)
    if not n_checked:
        return
    faulty = [n for n, verdict in enumerate(verdicts) if verdict and not verdict.obeys]
    blamed = [n for n in faulty if n not in cut_off]
    said = f"{n_checked - len(faulty)} of {n_checked} obey their first line"
    if n_cut := len(faulty) - len(blamed):
        said += f"; {n_cut} {'was' if n_cut == 1 else 'were'} cut off by --max_new_tokens"
    print(said, file=sys.stderr)
    kinds = Counter[str]()
    n_unreadable = 0
    for place, n in enumerate(blamed):
        one, verdict = media[n], verdicts[n]
        assert one and verdict
        n_unreadable += not verdict.well_formed
        if place < MOST_NAMED:
            print(f"  {n + 1}: {verdict.complaints[0]}", file=sys.stderr)
        else:
            kinds[kind_of(verdict.complaints[0], one)] += 1
    for kind, times in kinds.most_common(MOST_NAMED):
        print(f"  {times} more: {kind}", file=sys.stderr)
    if rest := kinds.total() - sum(times for _, times in kinds.most_common(MOST_NAMED)):
        print(f"  {rest} more: other faults", file=sys.stderr)
    if 2 * n_unreadable > n_checked - n_cut:
        print("most of them are not well-formed: train longer", file=sys.stderr)


def kind_of(complaint: str, one: Task) -> str:
    """A complaint without the numbers, the quotes and the medium's words that tell it from others.

    >>> kind_of("the red thing at row 11 has no known shape", task.get("pictures"))
    'the ... thing at row ... has no known shape'
    """
    words = sorted({w for options in one.FIELDS.values() for w in options} - {"a"}, key=len)[::-1]
    own = "|".join(map(re.escape, words))
    return re.sub(rf"\"[^\"]*\"|'[^']*'|\b(?:{own})\b|\d[\d/]*", "...", complaint)


def joint(state: Mapping[str, Any]) -> str | None:
    """The end of a text and what stands before the next, as in the training text.

    None where files were documents, or for tales, pictures and tunes: a rule shows best where one
    ends.
    """
    separator = corpora.separates(state.get("config", {}).get("separator"))
    if separator is None:
        return None
    return f"\n{inner}\n" if (inner := separator.strip("\n")) else separator


def save(texts: Sequence[str], path: Path, joint: str = "\n\n") -> None:
    """Write the texts as the file that the ending of `path` says, as text with `joint` between."""
    kinds = {task.for_saving(text) for text in texts} - {None}
    if path.suffix.lower() == ".txt":
        task.save_text(texts, path, joint)
    elif len(kinds) > 1:
        raise UserError(f"these are not all of one kind; save them as {path.with_suffix('.txt')}")
    elif (kind := kinds.pop() if kinds else None) and path.suffix.lower() in kind.ENDINGS:
        kind.save(texts, path)
    else:
        noun = kind.NOUN if kind else "text that is no picture, and no tune from X: to K: and notes"
        raise UserError(f"a {noun} is not saved as {path}; take {path.with_suffix('.txt')}")


class Writer:
    """A loaded model, and the settings that it writes with."""

    def __init__(self, config: SampleConfig, sampling: Sampling, loaded: Loaded) -> None:
        self.config, self.sampling, self.tokenizer = config, sampling, loaded.tokenizer
        self.media = task.trained_on(loaded.state)
        self.noted = False  # that a text outgrew the context
        self.opening, self.joint = loaded.state.get("opening", ""), joint(loaded.state)
        self.rng = random.Random(f"prompt/{config.seed}")
        self.model, self.cache_for = for_writing(loaded.model, config.device, config.dtype)

    def asked(self, text: str) -> str:
        """What was typed, or --condition, as the model has it in its first lines."""
        if self.config.condition is not None:
            return task.condition(self.media, streams.decoded(self.config.condition), self.rng)
        return task.prompt(self.media, text, self.rng)

    def write(self, ids: Sequence[int], prompt: str, first: int = 0) -> list[Sample]:
        """Print num_samples texts that begin with `prompt`, whose tokens are ids; returns them.

        Up to ROWS grow together. The first that has not ended is shown as it grows, then the next.
        Their random numbers are those of samples number `first` and on.
        """
        config, samples, self.noted = self.config, list[Sample](), False
        # Each text ends its own line.
        before = (self.joint or f"\n{RULE}\n").removeprefix("\n")
        # Where the terminal shows the texts, they themselves show how far it is.
        hidden = config.num_samples == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
        with streams.progress_bar(
            total=config.num_samples, unit=" samples", disable=hidden, leave=False
        ) as bar:
            while len(samples) < config.num_samples:
                n = min(ROWS, config.num_samples - len(samples))
                batch = [Sample(self, prompt, before if i or samples else "") for i in range(n)]
                self.grow(batch, ids, first + len(samples), bar)
                samples += batch
        return samples

    def grow(
        self, samples: Sequence[Sample], ids: Sequence[int], first: int, bar: tqdm[Any]
    ) -> None:
        """Write some of the texts, all at once."""
        config = self.config
        limit = config.max_new_tokens or (20 if config.show_probs else 500)
        finished: set[int] = set()
        for step in generate(
            self.model,
            self.cache_for(len(ids) + limit),
            [ids] * len(samples),
            self.sampling,
            n_vocab=min(self.tokenizer.n_vocab, self.model.config.vocab_size),
            max_new_tokens=limit,
            end_of_text=None if config.ignore_end_of_text else self.tokenizer.stops,
            seed=config.seed,
            samples=range(first, first + len(samples)),
            finished=finished,
        ):
            for row, token in enumerate(step):
                if token is None:
                    continue
                if token.forgotten and not self.noted:
                    self.noted = True
                    note_forgetting(self.model.config.block_size)
                samples[row].push(token)
                if samples[row].ended:
                    finished.add(row)
                    bar.update()
            show(samples)
        for sample in samples:
            if not sample.ended:
                sample.cut_off = True
                sample.end()
                bar.update()
        show(samples)


class Sample:
    """One text: tokens in, what is to be printed out."""

    def __init__(self, writer: Writer, prompt: str, before: str) -> None:
        self.config, self.sampling = writer.config, writer.sampling
        self.tokenizer, self.decoder = writer.tokenizer, writer.tokenizer.stream()
        self.stop = StopStrings([corpora.typed(one) for one in writer.config.stop_strings])
        self.text, self.opening = "", writer.opening
        # Between tables it would be in pieces; and some texts are seen as a whole only.
        colours = streams.shows_colours() and any(one.WHOLE for one in writer.media)
        self.held = writer.config.show_probs or colours
        self.unprinted = before
        self.ended = self.cut_off = False  # cut_off: by --max_new_tokens
        self._add(prompt)

    def push(self, token: Token) -> None:
        if self.config.show_probs:
            read = self.text or self.opening
            self.unprinted += explain(token, read, self.tokenizer, self.sampling) + "\n\n"
        ends = token.id in self.tokenizer.stops and not self.config.ignore_end_of_text
        if not (ends and token.id in self.tokenizer.controls):
            self._add(self.stop.push(self.decoder.push(token.id)))
        if ends or self.stop.stopped:
            self.end()

    def end(self) -> None:
        """No more tokens come: what was held back in the hope of more is due."""
        if not self.ended:
            self._add(self.stop.push(self.decoder.finish()) + self.stop.finish())
            if self.held:
                kind = task.detect(self.text) if streams.shows_colours() else None
                self.unprinted += kind.show(self.text) if kind else self.text
            self.unprinted += "\n"
            self.ended = True

    def _add(self, text: str) -> None:
        self.text += text
        if not self.held:
            self.unprinted += text


def show(samples: Sequence[Sample]) -> None:
    """Print what is new, up to the first sample that has not ended."""
    for sample in samples:
        print(sample.unprinted, end="", flush=True)
        sample.unprinted = ""
        if not sample.ended:
            return


def converse(writer: Writer) -> None:
    """Go on behind each line typed. Ctrl-C ends one text; Ctrl-D or an empty line, the program."""
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
            prompt = writer.asked(line)
            ids = writer.tokenizer.encode_prompt(prompt)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        try:  # with other random numbers each turn, so that asking again helps
            writer.write(ids, prompt, first=turn * writer.config.num_samples)
        except KeyboardInterrupt:
            print()


def explain(token: Token, text: str, tokenizer: Tokenizer, sampling: Sampling) -> str:
    """How `token` came to follow `text`: what the model predicted, what was cut, what was drawn."""
    predicted = token.logits.softmax(dim=-1)
    shown = predicted.topk(min(8, len(predicted))).indices.tolist()
    if token.id not in shown:
        shown.append(token.id)
    cut_by: dict[int, str] = {}
    for name, logits in filtered(token.logits[None], [token.text], sampling):
        for id in shown:
            if logits[0, id] == -math.inf:
                cut_by.setdefault(id, f"cut by {name}")
    left = logits[0].softmax(dim=-1)  # by the last of the filters

    lines = [f"after {fit(repr(text[-40:]), 90)}".rstrip() if text else "at the very beginning"]
    lines.append(f"{'':24}{'predicted':30}after temperature {sampling.temperature:g} and filters")
    marks = dict(zip(shown, "abcdefghi", strict=False))
    for id, mark in marks.items():
        name, before, after = spelled(id, tokenizer), share(predicted[id]), share(left[id])
        drawn = " <- drawn" if id == token.id else ""
        lines.append(f" {mark}  {fit(name, 20)}{before:30}{cut_by.get(id, after)}{drawn}".rstrip())
    others = torch.ones(len(predicted), dtype=torch.bool).scatter(0, torch.tensor(shown), False)
    if others.any():
        n, n_cut = int(others.sum()), int((left[others] == 0).sum())
        name, before, after = f"{n:,} others", *(share(p[others].sum()) for p in (predicted, left))
        after = "cut" if n_cut == n else f"{after} ({n_cut:,} cut)" if n_cut else after
        lines.append(f" .  {fit(name, 20)}{before:30}{after}".rstrip())

    # The line from 0 to 1, each cell marked with the token that its middle belongs to.
    width = 72
    line = [marks.get(pick(left, (cell + 0.5) / width), ".") for cell in range(width)]
    at = int(token.u * width)
    line[at] = marks[token.id]
    lines.append(f"    0 |{''.join(line)}| 1")
    lines.append(f"       {' ' * at}^ {token.u:.4f} was drawn, so {marks[token.id]}")
    return "\n".join(lines)


def share(probability: Tensor) -> str:
    """As per cent, and as a bar of up to 20 columns."""
    return f"{float(probability):6.1%} {'█' * round(20 * float(probability))}"


def spelled(id: int, tokenizer: Tokenizer) -> str:
    """A token in quotes; where its bytes are only part of a character, as bytes."""
    if id == tokenizer.end_of_text:
        return "(end of text)"
    try:
        return repr(tokenizer.token_bytes(id).decode("utf-8"))
    except UnicodeDecodeError:
        return repr(tokenizer.token_bytes(id))


def fit(text: str, width: int) -> str:
    """Cut or fill `text` to so many columns of a terminal, where East Asian characters take two."""
    fitted = ""
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > width:
            break
        fitted, width = fitted + character, width - columns
    return fitted + " " * width


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on, KeyboardInterrupt
    with one_line_errors():
        main()

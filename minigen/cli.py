"""Flags from a dataclass: each field is a flag, and the comment at the field is its help text.

    # --- the model ---
    n_layer: int | None = None  # number of blocks (default: from --size)

A comment between `---` is the heading of a group in --help. If the default is None, the comment
names the value that the program chooses, as above; any other default is shown as it is.

A `-` in a flag may be written `_`, as in nanoGPT, and the other way round. A wrong command line is
a `UserError` of one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import io
import itertools
import re
import shutil
import sys
import textwrap
import types
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import HelptextFromCommentsOff, OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

import minigen
from minigen.errors import UserError
from minigen.system import shell
from minigen.system.streams import wide_enough

Config = TypeVar("Config")

DASHES = "-\u2013\u2014"  # a text processor replaces - by one of the longer two
MAX_WIDTH = 100  # columns of --help, even in a wider terminal: long lines are hard to read
INDENT = 24  # columns before the help text of a flag

# How --help names a value of a type, and how an error names one.
KINDS: dict[type, tuple[str, str]] = {
    int: ("INT", "a whole number"),
    float: ("FLOAT", "a number"),
    str: ("TEXT", "text"),
    Path: ("PATH", "a path"),
}


def parse(
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    words: str | None = None,
    note: str | None = None,
) -> Config:
    """Return an instance of the dataclass `config_class` with the values that argv gives.

    Args:
        config_class: its fields are bool, int, float, str, Path, Literal, one of these or None, a
            tuple of them, or a dataclass of such fields. A `tyro.conf.Positional` has no flag.
        argv: the flags; by default those of this process.
        words: the name of the field that takes the words without a flag, as a tuple or as one text
            in which a space separates them. None: such words are an error.
        note: a sentence for --help, after the docstring of `config_class`.

    Raises `UserError` for a wrong command line, with the nearest flag for one that does not exist.
    --help and --version print and raise `SystemExit`.

    >>> parse(SampleConfig, ["--temperature", "0.5", "--top-k=40"])  # doctest: +SKIP
    SampleConfig(..., temperature=0.5, top_k=40, ...)
    >>> parse(SampleConfig, ["once", "upon", "--seed=1"], words="prompt")  # doctest: +SKIP
    SampleConfig(..., prompt='once upon', ..., seed=1)
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--version" in argv:
        print(f"minigen {minigen.__version__}")
        raise SystemExit(0)
    if "--help" in argv or "-h" in argv:
        print(help_text(config_class, words, note))
        raise SystemExit(0)
    if name := _flag_without_values(argv, config_class):
        raise UserError(f"--{name} has no value; give one; --help lists all flags")
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), wide_enough(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tyro warns of None as the default of an int
            config, unknown = tyro.cli(
                config_class,
                prog=shell.program(),
                args=argv,
                return_unknown_args=True,
                use_underscores=True,
                add_help=False,
                config=(OmitArgPrefixes, HelptextFromCommentsOff),  # a nested flag has no prefix
                registry=_registry(),
            )
    except SystemExit:
        raise UserError(_error(box.getvalue(), config_class)) from None
    if not unknown:
        return config
    if error := _unknown_word(unknown, argv, config_class, words):
        raise UserError(error)
    assert words is not None
    value: Any = tuple(unknown) if isinstance(getattr(config, words), tuple) else " ".join(unknown)
    replaced: Config = dataclasses.replace(typing.cast(Any, config), **{words: value})
    return replaced


# ---- the help text ----


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag, as --help shows it."""

    name: str
    type: Any  # of its value; if it takes several values, the type of each
    is_tuple: bool  # whether it takes several values
    is_positional: bool  # whether its value is typed without the name of the flag
    default: Any  # dataclasses.MISSING: the flag must be given
    heading: str  # of its group
    comment: str  # at its field

    @property
    def metavar(self) -> str:
        """The placeholder of the value in --help, such as INT; empty for a switch."""
        if self.type is bool:
            return ""
        if typing.get_origin(self.type) is Literal:
            name = "{" + ",".join(typing.get_args(self.type)) + "}"
        else:
            name = KINDS[self.type][0]
        return f"{name} ..." if self.is_tuple else name

    @property
    def usage(self) -> str:
        """The flag with its value, as it is typed."""
        if self.is_positional:
            return f"{self.name.upper()} ..." if self.is_tuple else self.name.upper()
        return f"--[no_]{self.name}" if self.type is bool else f"--{self.name} {self.metavar}"

    @property
    def description(self) -> str:
        """The comment, completed by the choices of a positional flag, and by the default."""
        text = self.comment
        if self.is_positional and typing.get_origin(self.type) is Literal:
            text += f": {' or '.join(typing.get_args(self.type))}"
        if self.default is dataclasses.MISSING or "(default: " in text:
            return text
        if isinstance(self.default, bool):
            shown = "on" if self.default else "off"
        elif isinstance(self.default, tuple):
            shown = " ".join(map(str, self.default))
        else:
            shown = "" if self.default is None else str(self.default)
        return f"{text} (default: {shown or 'none'})".lstrip()


def flags(config_class: type[Any]) -> list[Flag]:
    """Return the flags of a dataclass, and of dataclasses inside it, in the order of its fields."""
    all_flags = list[Flag]()
    comments = _comments(config_class)
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        heading, comment = comments[field.name]
        kind, is_positional = hints[field.name], False
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            all_flags += [dataclasses.replace(flag, heading=heading) for flag in flags(kind)]
            continue
        if typing.get_origin(kind) is Annotated:  # by tyro.conf.Positional
            kind, is_positional = typing.get_args(kind)[0], True
        kind = _without_none(kind)
        is_tuple = typing.get_origin(kind) is tuple
        if is_tuple:
            kind = typing.get_args(kind)[0]
        all_flags.append(
            Flag(field.name, kind, is_tuple, is_positional, field.default, heading, comment)
        )
    return all_flags


def _without_none(kind: Any) -> Any:
    """Return the type T for `T | None`, and any other type as it is."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    (other,) = (one for one in typing.get_args(kind) if one is not type(None))
    return other


def _comments(config_class: type[Any]) -> dict[str, tuple[str, str]]:
    """Return for each field of a dataclass the heading above it, and the comment at it.

    The comment stands after the field on its line, or in the lines above.
    """
    comments, heading, above = dict[str, tuple[str, str]](), "flags", list[str]()
    for line in textwrap.dedent(inspect.getsource(config_class)).splitlines():
        if rule := re.fullmatch(r"    # --- (.*) ---", line):
            heading, above = rule[1], []
        elif comment := re.fullmatch(r"    # (.*)", line):
            above.append(comment[1])
        elif field := re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line):
            comments[field[1]] = heading, field[2] or " ".join(above)
            above = []
    return comments


def help_text(config_class: type[Any], words: str | None, note: str | None) -> str:
    """Return the text that --help prints; for the arguments see `parse`."""
    with wide_enough():
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    paragraphs = [*inspect.cleandoc(config_class.__doc__ or "").split("\n\n"), note]
    paragraphs += [f"Words without a flag mean --{words}." if words else None]
    paragraphs += ["The flag --version prints the version."]
    lines = [usage(config_class, words)]
    for paragraph in filter(None, paragraphs):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), width, break_on_hyphens=False)]
    indent = " " * min(INDENT, width // 4)
    heading = ""
    for flag in flags(config_class):
        if flag.heading != heading:
            heading = flag.heading
            lines += ["", f"{heading}:"]
        first = f"  {flag.usage}  "
        if len(first) > len(indent):
            lines.append(first.rstrip())
            first = indent
        lines += textwrap.wrap(
            flag.description.replace("(default: ", "(default:\xa0"),  # stays with its first word
            width,
            initial_indent=first.ljust(len(indent)),
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
    return "\n".join(lines).replace("\xa0", " ")


def usage(config_class: type[Any], words: str | None) -> str:
    """Return the line that shows how the command is called."""
    all_flags = flags(config_class)
    positional = [
        flag.usage if flag.default is dataclasses.MISSING else f"[{flag.usage}]"
        for flag in all_flags
        if flag.is_positional
    ]
    positional += [f"[{flag.name.upper()} ...]" for flag in all_flags if flag.name == words]
    return " ".join(["usage:", shell.program(), *positional, "[--flags]"])


# ---- errors ----


def _error(box: str, config_class: type[Any]) -> str:
    """Return one line for the command line that tyro has refused.

    Args:
        box: tyro's error: a title and an explanation, in a frame or, where stdout is not UTF-8,
            between rules.
    """
    rows = [line.strip("│ ") for line in box.splitlines()]
    text = [row for row in rows if row and row[0] not in "╭╰"]
    if "╭" not in box:
        text = text[2:]
    end = next((n for n, row in enumerate(text) if not row.strip("─-")), len(text))
    message = " ".join(text[:end])
    if message.startswith("Missing from"):
        required = [flag for flag in flags(config_class) if flag.default is dataclasses.MISSING]
        missing = required[-message.count("(required)") :]
        names = " and ".join(f"{flag.usage} ({flag.description})" for flag in missing)
        verb = "is" if len(missing) == 1 else "are"
        return f"{names} {verb} missing; {usage(config_class, None)}"
    if flag := re.match(r"Missing value for argument '(\S+)'", message):
        return f"{flag[1]} has no value; give one; --help lists all flags"
    message = re.sub(r"^Error parsing (?:(--\S+: )|\S*: )", r"\1", message)
    return f"{message.rstrip('.')}; --help lists all flags"


def _flag_without_values(argv: Sequence[str], config_class: type[Any]) -> str | None:
    """Return the name of a flag that takes several values and has none, which tyro would accept."""
    takes_several = {flag.name for flag in flags(config_class) if flag.is_tuple}
    for word, following in itertools.pairwise([*argv, "--"]):
        name = word[2:].replace("-", "_")
        if word.startswith("--") and name in takes_several and following.startswith("--"):
            return name
    return None


def _unknown_word(
    unknown: Sequence[str], argv: Sequence[str], config_class: type[Any], words: str | None
) -> str | None:
    """Return the error for words that belong to no flag; None if they are the value of --words."""
    is_switch = {flag.name: flag.type is bool for flag in flags(config_class)}
    names = [word[2:].split("=")[0].replace("-", "_") if word[:2] == "--" else "" for word in argv]
    for name, word, following in zip(names, argv, [*argv[1:], ""], strict=True):
        value = word.partition("=")[2] or following
        if is_switch.get(name.removeprefix("no_")) and value.lower() in ("true", "false"):
            mend = "a switch takes no value: --name is on, --no_name off"
            return f"{value!r} belongs to no flag; {mend}"
    for word in unknown:
        name = word.split("=")[0].strip(DASHES)
        if word.startswith("-") or (word.startswith(tuple(DASHES)) and name in is_switch):
            if near := difflib.get_close_matches(name, is_switch, n=1):
                return f"unknown flag {word}; did you mean --{near[0]}?"
            mend = f"for a value that begins with -, give --{words}=VALUE; " if words else ""
            return f"unknown flag {word}; {mend}--help lists all flags"
    if words is None:
        return f"{unknown[0]!r} belongs to no flag; put a value that has spaces in quotes"
    if words in names:
        return (
            f"{unknown[0]!r} has no flag, which means --{words}, but --{words} is given too; put a "
            "value that has spaces in quotes, or give one of the two"
        )
    return None


def _registry() -> ConstructorRegistry:
    """Return the rules by which tyro reads a value: `T | None` like T, with a clear error."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def plain(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kind = _without_none(info.type)
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        if not choices and kind not in KINDS:
            return None
        metavar, noun = ("", f"one of {', '.join(choices)}") if choices else KINDS[kind]

        def read(values: list[str]) -> Any:
            try:
                if choices and values[0] not in choices:
                    raise ValueError
                return values[0] if choices else kind(values[0])
            except ValueError:
                raise ValueError(f"{values[0]!r} is not {noun}") from None

        def is_instance(value: Any) -> bool:
            return value in choices if choices else isinstance(value, kind)

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda value: value is None or is_instance(value),  # None: not given
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry

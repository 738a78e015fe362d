"""Flags from a dataclass: each field is a flag, and the comment after it is the help text.

A `-` in a flag may be written `_`, as in nanoGPT, and the other way round. A wrong command line is
a `UserError` of one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

import minigen
from minigen.errors import UserError
from minigen.system import shell
from minigen.system.streams import wide_enough

Config = TypeVar("Config")

DASHES = "-\u2013\u2014"  # text processors make longer ones of them

# How --help names a value, and how a line says that it does not fit.
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
        words: the field with a flag that words without one are for, too: a tuple of them, or a
            text, in which one space separates them. None: there is no such field.
        note: a sentence for --help, after the docstring of `config_class`.

    Raises `UserError`, with the nearest flag for one that does not exist; --help and --version
    print and raise `SystemExit`.

    >>> parse(SampleConfig, ["--temperature", "0.5", "--top-k=40"])  # doctest: +SKIP
    SampleConfig(..., temperature=0.5, top_k=40, ...)
    >>> parse(SampleConfig, ["once", "upon", "--seed=1"], words="prompt")  # doctest: +SKIP
    SampleConfig(..., prompt='once upon', ..., seed=1)
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--version" in argv:
        print(f"minigen {minigen.__version__}")
        raise SystemExit(0)
    description = [inspect.cleandoc(config_class.__doc__ or ""), note]
    description += [f"Words without a flag mean --{words}." if words else None]
    description += ["The flag --version prints the version."]
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), wide_enough():
            config, unknown = tyro.cli(
                config_class,
                prog=shell.program(),
                description="\n\n".join(filter(None, description)),
                args=argv,
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),  # flags of a dataclass inside have no prefix
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_first_paragraph(box.getvalue())}; --help lists all flags") from None
    if not unknown:
        return config
    if fault := _fault(unknown, argv, _flags(config_class), words):
        raise UserError(fault)
    assert words is not None
    value: Any = tuple(unknown) if isinstance(getattr(config, words), tuple) else " ".join(unknown)
    replaced: Config = dataclasses.replace(typing.cast(Any, config), **{words: value})
    return replaced


def _flags(config_class: type[Any]) -> dict[str, bool]:
    """Return the names of the flags, and of each whether it is a switch, which takes no value."""
    flags = dict[str, bool]()
    for field in dataclasses.fields(config_class):
        if isinstance(field.default_factory, type) and dataclasses.is_dataclass(
            field.default_factory
        ):
            flags |= _flags(field.default_factory)
        else:
            flags[field.name] = isinstance(field.default, bool)
    return flags


def _fault(
    unknown: Sequence[str], argv: Sequence[str], flags: Mapping[str, bool], words: str | None
) -> str | None:
    """Return what is wrong with words that belong to no flag; None if they may mean --words."""
    given = [word[2:].split("=")[0].replace("-", "_") if word[:2] == "--" else "" for word in argv]
    for name, word, following in zip(given, argv, [*argv[1:], ""], strict=True):
        value = word.partition("=")[2] or following
        if flags.get(name.removeprefix("no_")) and value in ("True", "False", "true", "false"):
            mend = "a switch takes no value: --name is on, --no_name off"
            return f"{value!r} belongs to no flag; {mend}"
    for word in unknown:
        name = word.split("=")[0].strip(DASHES)
        if word.startswith("-") or (word.startswith(tuple(DASHES)) and name in flags):
            if near := difflib.get_close_matches(name, flags, n=1):
                return f"unknown flag {word}; did you mean --{near[0]}?"
            mend = f"for a value that begins with -, give --{words}=VALUE; " if words else ""
            return f"unknown flag {word}; {mend}--help lists all flags"
    if words is None:
        return f"{unknown[0]!r} belongs to no flag; put a value that has spaces in quotes"
    if words in given:
        return (
            f"{unknown[0]!r} has no flag, which means --{words}, but --{words} is given too; put a "
            "value that has spaces in quotes, or give one of the two"
        )
    return None


def _first_paragraph(box: str) -> str:
    """Return the text above the first rule of tyro's box, as one line."""
    rows = [line.strip("│ ") for line in box.splitlines()]
    text = [row for row in rows if row and row[0] not in "╭╰"]
    if "╭" not in box:  # stdout is not UTF-8: a title and a rule instead of a frame
        text = text[2:]
    end = next((n for n, row in enumerate(text) if not row.strip("─-")), len(text))
    return re.sub(r"^Error parsing (?:(--\S+: )|\S+: )", r"\1", " ".join(text[:end])).rstrip(".")


def _registry() -> ConstructorRegistry:
    """Return rules by which tyro shows an optional value like any other, and names a wrong one."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def plain(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        optional = info.type_origin in (typing.Union, types.UnionType)
        kinds = [t for t in typing.get_args(info.type) if t is not type(None)] if optional else []
        kind = kinds[0] if len(kinds) == 1 else info.type
        if kind not in KINDS:
            return None
        metavar, noun = KINDS[kind]

        def read(values: list[str]) -> Any:
            try:
                return kind(values[0])
            except ValueError:
                raise ValueError(f"{values[0]!r} is not {noun}") from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda value: (value is None and optional) or isinstance(value, kind),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry

"""Flags from a dataclass: each field is a flag, and the comment behind it is the help text.

A `-` in a flag may be written `_`, as nanoGPT does, and the other way round. What is wrong with a
command becomes one line, as all that a user can mend does here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from minigen.errors import UserError

Config = TypeVar("Config")

# How --help names a value, and how a line says that it does not fit.
KINDS: dict[type, tuple[str, str]] = {
    int: ("INT", "a whole number"),
    float: ("FLOAT", "a number"),
    str: ("TEXT", "text"),
    Path: ("PATH", "a path"),
}


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """An instance of the dataclass `config_class` with the values that argv gives to its fields.

    Args:
        config_class: its fields have defaults and are bool, int, float, str, Path, Literal,
            one of these or None, or a tuple of them.
        argv: the flags; by default those of this process.

    Raises `UserError`, with the nearest flag for one that does not exist; --help prints the help
    and raises `SystemExit`.

    >>> parse(SampleConfig, ["--temperature", "0.5", "--top-k=40"])  # doctest: +SKIP
    SampleConfig(..., temperature=0.5, top_k=40, ...)
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            config, unknown = tyro.cli(
                config_class,
                args=argv,
                return_unknown_args=True,
                use_underscores=True,
                registry=_registry(),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UserError(f"{_first_paragraph(box.getvalue())}; --help lists all flags") from None
    if unknown:
        raise UserError(_about(unknown[0], config_class))
    return config


def _about(word: str, config_class: type[Any]) -> str:
    """What to say of a word of the command line that belongs nowhere."""
    names = [field.name for field in dataclasses.fields(config_class)]
    if word in ("True", "False", "true", "false"):
        return f"{word!r} belongs to no flag; a switch takes no value: --name is on, --no_name off"
    if not word.startswith("-"):
        return f"{word!r} belongs to no flag; put a value that has spaces in quotes"
    name = word.split("=")[0].strip("-")
    near = difflib.get_close_matches(name, names, n=1)
    return f"unknown flag {word}; " + (
        f"did you mean --{near[0]}?" if near else "--help lists all flags"
    )


def _first_paragraph(box: str) -> str:
    """What tyro's box says above its first rule, as one line."""
    rows = [line.strip("│ ") for line in box.splitlines()]
    said = [row for row in rows if row and not row.startswith(("╭", "╰"))]
    end = next((i for i, row in enumerate(said) if row.startswith("──")), len(said))
    return re.sub(r"^Error parsing (\S+): ", r"\1: ", " ".join(said[:end])).rstrip(".")


def _registry() -> ConstructorRegistry:
    """Teaches tyro to show an optional value like any other, and to say what does not fit."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def plain(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        optional = info.type_origin in (typing.Union, types.UnionType)
        kinds = [t for t in typing.get_args(info.type) if t is not type(None)] if optional else []
        kind = kinds[0] if len(kinds) == 1 else info.type
        if kind not in KINDS:
            return None
        metavar, words = KINDS[kind]

        def read(values: list[str]) -> Any:
            try:
                return kind(values[0])
            except ValueError:
                raise ValueError(f"{values[0]!r} is not {words}") from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda value: (value is None and optional) or isinstance(value, kind),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return registry

"""Flags from a dataclass: each field is a flag, and the comment behind it is the help text.

A `-` in a flag may be written `_`, as nanoGPT does, and the other way round. What is wrong with a
command becomes one line, as all that a user can mend does here.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

import minigen
from minigen.errors import UserError
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
    config_class: type[Config], argv: Sequence[str] | None = None, words: str | None = None
) -> Config:
    """An instance of the dataclass `config_class` with the values that argv gives to its fields.

    Args:
        config_class: its fields have defaults and are bool, int, float, str, Path, Literal,
            one of these or None, a tuple of them, or a dataclass of such fields (as `Sampling`).
        argv: the flags; by default those of this process.
        words: the field that words without a flag are for: a tuple of them, or a text, in which
            one space separates them; None: there may be none.

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
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), wide_enough():
            config, unknown = tyro.cli(
                config_class,
                args=argv,
                description=_description(config_class, words),
                return_unknown_args=True,
                use_underscores=True,
                registry=_registry(),
                config=(tyro.conf.OmitArgPrefixes,),  # flags of a dataclass inside have no prefix
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UserError(f"{_first_paragraph(box.getvalue())}; --help lists all flags") from None
    if not unknown:
        return config
    given = _switch_value(config_class, argv)
    if given is None:
        given = next((word for word in unknown if _is_flag(word, _names(config_class))), None)
    if given is not None or words is None:
        raise UserError(_about(given or unknown[0], config_class, words))
    if words in map(_name, argv):
        raise UserError(
            f"{unknown[0]!r} has no flag, which means --{words}, but --{words} is given too; put a "
            "value that has spaces in quotes, or give one of the two"
        )
    value: Any = tuple(unknown) if isinstance(getattr(config, words), tuple) else " ".join(unknown)
    replaced: Config = dataclasses.replace(typing.cast(Any, config), **{words: value})
    return replaced


def _description(config_class: type[Any], words: str | None) -> str:
    """The docstring, and then all that is no flag."""
    lines = [inspect.cleandoc(config_class.__doc__ or "")]
    if words is not None:
        lines.append(f"Words without a flag mean --{words}.")
    return "\n\n".join([*lines, "--version prints the version."])


def _names(config_class: type[Any]) -> list[str]:
    """The names of the fields, and instead of a dataclass among them, those of its fields."""
    names = list[str]()
    for field in dataclasses.fields(config_class):
        inside = field.default_factory
        names += _names(inside) if dataclasses.is_dataclass(inside) else [field.name]
    return names


def _name(word: str) -> str | None:
    """The field that a word of the command line names, if it has the form of a flag."""
    return word[2:].split("=")[0].replace("-", "_") if word.startswith("--") else None


def _switch_value(config_class: type[Any], argv: Sequence[str]) -> str | None:
    """The value that a switch was given: it takes none."""
    switches = [f.name for f in dataclasses.fields(config_class) if isinstance(f.default, bool)]
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, value = _name(word), word.split("=")[1] if "=" in word else following
        if (
            name
            and name.removeprefix("no_") in switches
            and value in ("True", "False", "true", "false")
        ):
            return value
    return None


def _is_flag(word: str, names: Sequence[str]) -> bool:
    """Whether a word is meant as a flag, also with the long dash of a text processor."""
    name = word.split("=")[0]
    return word.startswith("-") or (name[:1] in DASHES and name.strip(DASHES) in names)


def _about(word: str, config_class: type[Any], words: str | None) -> str:
    """What to say of a word of the command line that belongs nowhere."""
    names = _names(config_class)
    if word in ("True", "False", "true", "false"):
        return f"{word!r} belongs to no flag; a switch takes no value: --name is on, --no_name off"
    if not _is_flag(word, names):
        return f"{word!r} belongs to no flag; put a value that has spaces in quotes"
    near = difflib.get_close_matches(word.split("=")[0].strip(DASHES), names, n=1)
    if near:
        return f"unknown flag {word}; did you mean --{near[0]}?"
    value = f"; for a value that begins with -, give --{words}=VALUE" if words else ""
    return f"unknown flag {word}{value}; --help lists all flags"


def _first_paragraph(box: str) -> str:
    """What tyro's box says above its first rule, as one line."""
    rows = [line.strip("│ ") for line in box.splitlines()]
    said = [row for row in rows if row and not row.startswith(("╭", "╰"))]
    end = next((i for i, row in enumerate(said) if row.startswith("──")), len(said))
    return re.sub(r"^Error parsing (?:(--\S+: )|\S+: )", r"\1", " ".join(said[:end])).rstrip(".")


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

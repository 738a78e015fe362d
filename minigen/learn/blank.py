"""Find a function in the source of a file, and blank its body.

Everything else of the file stays as it is, byte for byte, so that the numbers of lines before the
function are those of minigen's own file.
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass

COMMENT = "# Your code comes here, in place of the next line."
STATEMENT = "raise NotImplementedError"


@dataclass(frozen=True)
class Place:
    """The lines of a function, counted from 1; each range includes its last line."""

    begin: int  # of the first decorator, or of `def`
    body: int  # the first line after the signature and the docstring
    end: int  # the last line of the body
    indent: str  # of the body


def find(source: bytes, qualname: str) -> Place | None:
    """Return the place of a function such as "MLP.forward"; None if the file has none.

    Raises `SyntaxError` if the source is no Python.
    """
    found: ast.AST = ast.parse(source)
    for name in qualname.split("."):
        defined = [
            node
            for node in getattr(found, "body", ())
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        ]
        if not defined:
            return None
        found = defined[-1]  # Python, too, takes the last of several
    if not isinstance(found, ast.FunctionDef):
        return None
    first, end = found.body[0], found.end_lineno
    assert end is not None
    if ast.get_docstring(found) is None:
        last_of_header = _end_of_signature(source, found.lineno)
    else:
        assert first.end_lineno is not None
        last_of_header = first.end_lineno
    begin = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return Place(begin, last_of_header + 1, end, " " * first.col_offset)


def _end_of_signature(source: bytes, line: int) -> int:
    """Return the line on which the signature ends that begins at `line`."""
    rest = b"".join(source.splitlines(keepends=True)[line - 1 :])
    tokens = tokenize.tokenize(io.BytesIO(rest).readline)
    rows = (token.end[0] for token in tokens if token.type == tokenize.NEWLINE)
    return line - 1 + next(rows)


def blank(source: bytes, qualname: str) -> tuple[bytes, int]:
    """Return the source with a comment and a `raise` in place of a function's body, and the line.

    The decorators, the signature and the docstring stay. The line is that of the comment.

    Raises `ValueError` if the file has no such function.
    """
    place = find(source, qualname)
    if place is None:
        raise ValueError(f"no function {qualname}")
    lines = source.splitlines(keepends=True)
    newline = b"\r\n" if lines[place.end - 1].endswith(b"\r\n") else b"\n"
    hole = [place.indent.encode() + text.encode() + newline for text in (COMMENT, STATEMENT)]
    return b"".join([*lines[: place.body - 1], *hole, *lines[place.end :]]), place.body

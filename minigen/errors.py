"""The one exception for what a user can mend, and how scripts show it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, and what to do."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show a `UserError` as one line on stderr and exit with code 2; let bugs keep their traceback.

    What stdout's encoding has no character for, such as a Korean name, is printed as an escape.

    >>> with one_line_errors():                                       # doctest: +SKIP
    ...     raise UserError("--top_k is 0; give 1 or more")
    error: --top_k is 0; give 1 or more
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        with contextlib.suppress(OSError):  # as on a full disk
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

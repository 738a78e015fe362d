"""Read the documents of a Parquet file: the texts of its column `text`, or `content`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minigen.data.json_lines import MAX_LINE, WrongRow, one_line_end, text_field
from minigen.errors import UserError
from minigen.system.shell import install
from minigen.system.text_file import unreadable

ENDING = ".parquet"
OLDEST = 15  # version of pyarrow; some earlier ones run code in a file (CVE-2023-47248)
STRINGS = ("string", "large_string", "string_view")  # types of columns
BUFFER = 1 << 20  # bytes to read at once, however large a row group is


def is_parquet(path: Path) -> bool:
    """Return whether a file is a table in Parquet's format, by its name."""
    return path.suffix.lower() == ENDING


def read_parquet(path: Path) -> Iterator[str]:
    """Yield the text of each row; one that is empty, or null, is no document.

    Raises `UserError` if the package pyarrow is missing or too old, if the file is damaged, or if
    it has no column of texts.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet

        if int(pyarrow.__version__.partition(".")[0]) < OLDEST:
            raise ImportError
    except ImportError:
        raise UserError(f"to read {path}, first: {install('parquet')}") from None
    try:
        with path.open("rb") as file:
            table = parquet.ParquetFile(
                file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
            )
            names = table.schema_arrow.names
            try:
                column = text_field(names)
            except WrongRow as reason:
                some = ", ".join(repr(name[:40]) for name in names[:9])
                raise UserError(f"{path} {reason}; its columns are {some or 'none'}") from None
            kind = table.schema_arrow.field(column).type
            if pyarrow.types.is_dictionary(kind):
                kind = kind.value_type
            if str(kind) not in STRINGS:
                found = repr(str(kind)[:40])
                raise UserError(
                    f"{path} has a column {column} of type {found}, which is no text; rename it"
                )
            # A row at a time: a table of 2 KB can have hundreds of rows with the same 50 MB.
            rows = table.iter_batches(1, columns=[column], use_threads=False)
            for number, row in enumerate(rows, start=1):
                text = one_line_end(row.column(0)[0].as_py() or "").strip("\n")
                if len(text) > MAX_LINE:
                    raise UserError(
                        f"{path}, row {number} has more than {MAX_LINE:,} characters; remove it"
                    )
                if text:
                    yield text
    except UserError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise UserError(f"{path} is damaged: it is no Parquet; get it again") from None

"""Read the documents of a Parquet file: the texts of its column `text`, or `content`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minigen.data.json_lines import FIELDS, as_document, why_no_field
from minigen.errors import UserError
from minigen.system.shell import install
from minigen.system.text_file import unreadable

ENDING = ".parquet"
ROWS = 64  # rows to decode at once, each of which may be a book
BUFFER = 1 << 20  # bytes to read at once, however large a row group is


def is_parquet(path: Path) -> bool:
    """Return whether a file is a table in Parquet's format, by its name."""
    return path.suffix.lower() == ENDING


def read_parquet(path: Path) -> Iterator[str]:
    """Yield the text of each row; one that is empty, or null, is no document.

    Raises `UserError` if the package pyarrow is missing, if the file is damaged, or if it has no
    column of texts.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"to read {path}, first: {install('parquet')}") from None
    try:
        with path.open("rb") as file:
            table = parquet.ParquetFile(
                file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
            )
            names = table.schema_arrow.names
            column = next((name for name in FIELDS if name in names), None)
            if column is None:
                raise UserError(
                    f"{path} {why_no_field(names)}; its columns are {', '.join(names) or 'none'}"
                )
            kind = table.schema_arrow.field(column).type
            if pyarrow.types.is_dictionary(kind):
                kind = kind.value_type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise UserError(
                    f"{path} has a column {column} of {kind}, which is no text; rename it"
                )
            for batch in table.iter_batches(ROWS, columns=[column], use_threads=False):
                for value in batch.column(0):
                    if text := as_document(value.as_py() or ""):
                        yield text
    except UserError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise UserError(f"{path} is damaged: it is no Parquet; get it again") from None

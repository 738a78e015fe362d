"""Pictures as images: a PNG, a contact sheet, or colours in a terminal.

The text of a picture is a caption and rows of cells; see `minigen.corpora.pictures`. A model can
write a faulty picture. Its image shows the faults: an unknown character is magenta.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import UserError
from minigen.system.plot import drawing, new_figure

if TYPE_CHECKING:  # imported late, as a terminal needs no NumPy
    import numpy as np
    import numpy.typing as npt

CELL = 16  # pixels along the side of a cell
SIDE = 13  # cells along the side of a picture
# The most cells along a side, and the most lines of a caption, in an image. These limits exist
# because a model may write a text of any length.
MAX_CELLS, MAX_LINES = 64, 3

# For each character, the colour of its cell, and the colour of a small mark in the middle of the
# cell, if it has one.
PALETTE: dict[str, tuple[str, str | None]] = {
    # things: a light and a dark tone
    "r": ("#e5484d", None), "R": ("#b3252f", None),
    "o": ("#f5893b", None), "O": ("#cc5f14", None),
    "y": ("#fbd34d", None), "Y": ("#e0a914", None),
    "g": ("#4cb05a", None), "G": ("#2b7f3d", None),
    "b": ("#4a7fe8", None), "B": ("#2a55b5", None),
    "p": ("#9b6be0", None), "P": ("#6f3fb8", None),
    "k": ("#f591c0", None), "K": ("#db5c98", None),
    "n": ("#a5714a", None), "N": ("#77492b", None),
    # night: stars; dark bushes
    ".": ("#1d2247", None), "*": ("#1d2247", "#fff3c4"),
    ":": ("#12302f", None), ";": ("#0c2322", None),
    # day: clouds; tufts of grass
    "-": ("#bfe3f7", None), "=": ("#ffffff", None),
    ",": ("#a9d98b", None), '"': ("#a9d98b", "#7fb963"),
    # sunset: haze; waves
    "/": ("#fbc9a4", None), "|": ("#fde3cb", None),
    "~": ("#54688f", None), "^": ("#8296b8", None),
    # winter: flakes; hollows in the snow
    "<": ("#a8b9cc", None), "+": ("#a8b9cc", "#ffffff"),
    "_": ("#f4f8fb", None), "%": ("#dde7f0", None),
    # desert: haze; ripples in the sand
    "(": ("#d9ecec", None), ")": ("#edf6f4", None),
    "#": ("#ecd9a8", None), "@": ("#dcc38a", None),
}  # fmt: skip
UNKNOWN = ("#ff00ff", None)  # for a character that is not in the palette
PAPER = "#ffffff"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def cells_of(row: str) -> str:
    """Return the cells of a row, without the blanks and the number."""
    return re.sub(r"[\s\d]", "", row)


def pixels(text: str, cell: int = CELL) -> npt.NDArray[np.uint8]:
    """Return the image of a picture: (rows * cell, columns * cell, 3), or (0, 0, 3) without rows.

    A character that is not in the palette is magenta, and a missing cell is white. Rows and columns
    after the first MAX_CELLS are cut off.

    Args:
        cell: pixels along the side of a cell.
    """
    import numpy as np

    _, *rows = text.strip("\n").split("\n")
    rows = [cells_of(row)[:MAX_CELLS] for row in rows[:MAX_CELLS]]
    n_columns = max(map(len, rows), default=0)
    image = np.full((len(rows) * cell, n_columns * cell, 3), _rgb(PAPER), dtype=np.uint8)
    margin = cell * 5 // 16  # around a mark
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            colour, mark = PALETTE.get(letter, UNKNOWN)
            square = image[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
            square[:] = _rgb(colour)
            if mark:
                square[margin : cell - margin, margin : cell - margin] = _rgb(mark)
    return image


@drawing()
def save(texts: Sequence[str], path: Path, cell: int = CELL, columns: int = 0) -> None:
    """Save a picture as a PNG of its cells, or several as a contact sheet with their captions.

    If all pictures have one caption, it stands once, above the pictures. On a sheet, each picture
    has the space of the most common size. A larger picture is cut to that size.

    Args:
        cell: pixels along the side of a cell.
        columns: of the contact sheet; 0 for a sheet that is about square.

    Raises `UserError` if no text has a picture, or if the file cannot be written.
    """
    from matplotlib.image import imsave

    images = [pixels(text, cell) for text in texts]
    if not any(image.size for image in images):
        raise UserError("there is no picture in this text, only a caption")
    try:
        if len(images) == 1:
            imsave(path, images[0], format="png")
            return
        gap, line_height, dpi = 16, 15, 100  # pixels; pixels; pixels per inch
        height, width, _ = _common_shape(images, cell)
        images = [image[:height, :width] for image in images]
        columns = columns or math.ceil(math.sqrt(len(images)))
        n_rows = math.ceil(len(images) / columns)
        captions = [text.strip("\n").split("\n")[0].removeprefix("picture: ") for text in texts]
        shared = captions[0] if len(set(captions)) == 1 else ""
        captions = [wrap(caption, max(1, width // 7)) for caption in captions]
        n_lines = 0 if shared else max(1 + caption.count("\n") for caption in captions)
        row_height = height + n_lines * line_height + gap
        top = gap + line_height if shared else gap
        sheet_width, sheet_height = gap + columns * (width + gap), top + n_rows * row_height
        figure = new_figure(
            figsize=(sheet_width / dpi, sheet_height / dpi), dpi=dpi, facecolor=PAPER
        )

        def write(text: str, x: int, y: int) -> None:
            # Without parse_math=False, a $ in a caption would begin a formula.
            figure.text(x / sheet_width, 1 - y / sheet_height, text, va="top", fontsize=8,
                        color="#333333", parse_math=False)  # fmt: skip

        write(wrap(shared, max(1, sheet_width // 7), 1), gap, gap // 2)
        for n, (image, caption) in enumerate(zip(images, captions, strict=True)):
            x, y = gap + n % columns * (width + gap), top + n // columns * row_height
            if image.size:  # matplotlib counts y from the bottom
                figure.figimage(image, x, sheet_height - y - image.shape[0], origin="upper")
            if not shared:
                write(caption, x, y + height + 4)
        figure.savefig(path, format="png")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None


def _common_shape(images: Sequence[npt.NDArray[np.uint8]], cell: int) -> tuple[int, ...]:
    """Return the most common shape of the images, or the shape of a correct picture.

    The shape of a correct picture is returned if fewer than half of the images have the most common
    shape, or if that shape is smaller than half a picture or as large as an image can be: then the
    pictures are faulty.
    """
    (shape, n), *_ = Counter(image.shape for image in images).most_common(1)
    side = SIDE * cell
    if 2 * n < len(images) or not all(side // 2 <= size < MAX_CELLS * cell for size in shape[:2]):
        return side, side, 3
    return shape


def wrap(caption: str, width: int, n_lines: int = MAX_LINES) -> str:
    """Return the first `n_lines` lines of a caption, wrapped at `width` characters."""
    printable = "".join(letter if " " <= letter <= "~" else "?" for letter in caption)
    return "\n".join(textwrap.wrap(printable, width)[:n_lines])


def terminal(text: str) -> str:
    """Return the caption, and each cell as two columns in 24-bit colours of a terminal."""
    caption, *rows = text.strip("\n").split("\n")
    lines = [caption]
    for row in rows:
        line = ""
        for letter in cells_of(row):
            colour, mark = PALETTE.get(letter, UNKNOWN)
            line += "\x1b[48;2;{};{};{}m".format(*_rgb(colour))
            line += "\x1b[38;2;{};{};{}m{} ".format(*_rgb(mark), letter) if mark else "  "
        lines.append(line + "\x1b[0m")
    return "\n".join(lines)

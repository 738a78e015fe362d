"""The text of a picture as an image: a PNG, a contact sheet of many, or colours in a terminal.

A picture's text is a caption and rows of cells, each cell a letter; see
`minigen.corpora.pictures`. What a model draws may be faulty, and is shown as it is.
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
from minigen.system.plot import pyplot

if TYPE_CHECKING:  # a terminal needs neither
    import numpy as np
    import numpy.typing as npt

CELL = 16  # pixels along the side of a cell
SIDE = 13  # cells along the sides of a picture, where most on a sheet are of no common size
MAX_CELLS, MAX_LINES = 64, 3  # of a side, and of a caption; what is beyond them is cut off

# For each letter the colour of its cell, and of a small mark in the middle of it, if it has one.
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
UNKNOWN = ("#ff00ff", None)
PAPER = "#ffffff"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def cells_of(row: str) -> str:
    """The letters of a row, without the blanks and the number."""
    return re.sub(r"[\s\d]", "", row)


def pixels(text: str, cell: int = CELL) -> npt.NDArray[np.uint8]:
    """The image (rows * cell, columns * cell, 3) of a picture; (0, 0, 3) of a caption alone.

    Letters that the palette lacks are magenta, and what is missing in a row is white. Rows and
    columns beyond MAX_CELLS, which only a broken picture has, are cut off.
    """
    import numpy as np

    _, *rows = text.strip("\n").split("\n")
    rows = [cells_of(row)[:MAX_CELLS] for row in rows[:MAX_CELLS]]
    n_columns = max(map(len, rows), default=0)
    image = np.full((len(rows) * cell, n_columns * cell, 3), _rgb(PAPER), dtype=np.uint8)
    edge = cell * 5 // 16  # of a mark
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            ground, mark = PALETTE.get(letter, UNKNOWN)
            square = image[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
            square[:] = _rgb(ground)
            if mark:
                square[edge : cell - edge, edge : cell - edge] = _rgb(mark)
    return image


def save(texts: Sequence[str], path: Path, cell: int = CELL, columns: int = 0) -> None:
    """Write a PNG: of one picture its cells, of several a contact sheet with the captions.

    A caption that all share is written once, above them. On a sheet, each has the place of a
    picture of the usual size; what a broken one has beyond that is cut off.

    Args:
        columns: of a contact sheet; 0 for a sheet that is about square.

    Raises UserError if there is nothing to draw, or the file cannot be written.
    """
    plt = pyplot()
    images = [pixels(text, cell) for text in texts]
    if not any(image.size for image in images):
        raise UserError("there is no picture in this text, only a caption")
    try:
        if len(images) == 1:
            plt.imsave(path, images[0], format="png")
            return
        gap, line, dpi = 16, 15, 100  # pixels, and how many of them an inch has
        (usual, times), *_ = Counter(image.shape for image in images).most_common(1)
        side, least, most = SIDE * cell, SIDE * cell // 2, MAX_CELLS * cell
        if 2 * times < len(images) or not all(least <= size < most for size in usual[:2]):
            usual = side, side, 3
        height, width, _ = usual
        images = [image[:height, :width] for image in images]
        columns = columns or math.ceil(math.sqrt(len(images)))
        n_rows = math.ceil(len(images) / columns)
        captions = [text.strip("\n").split("\n")[0].removeprefix("picture: ") for text in texts]
        shared = captions[0] if len(set(captions)) == 1 else ""
        captions = [short(caption, max(1, width // 7)) for caption in captions]
        n_lines = 0 if shared else max(1 + caption.count("\n") for caption in captions)
        step = height + n_lines * line + gap
        top = gap + line if shared else gap
        across, down = gap + columns * (width + gap), top + n_rows * step
        figure = plt.figure(figsize=(across / dpi, down / dpi), dpi=dpi, facecolor=PAPER)

        def write(text: str, x: int, y: int) -> None:
            figure.text(x / across, 1 - y / down, text, va="top", fontsize=8, color="#333333",
                        parse_math=False)  # fmt: skip

        write(short(shared, max(1, across // 7), 1), gap, gap // 2)
        for n, (image, caption) in enumerate(zip(images, captions, strict=True)):
            x, y = gap + n % columns * (width + gap), top + n // columns * step
            if image.size:  # matplotlib counts from below
                figure.figimage(image, x, down - y - image.shape[0], origin="upper")
            if not shared:
                write(caption, x, y + height + 4)
        figure.savefig(path, format="png")
        plt.close(figure)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None


def short(caption: str, width: int, n_lines: int = MAX_LINES) -> str:
    """The caption in lines of so many characters, the first few of them."""
    printable = "".join(letter if " " <= letter <= "~" else "?" for letter in caption)
    return "\n".join(textwrap.wrap(printable, width)[:n_lines])


def terminal(text: str) -> str:
    """The caption, and each cell as two columns of 24-bit colour."""
    caption, *rows = text.strip("\n").split("\n")
    lines = [caption]
    for row in rows:
        line = ""
        for letter in cells_of(row):
            ground, mark = PALETTE.get(letter, UNKNOWN)
            line += "\x1b[48;2;{};{};{}m".format(*_rgb(ground))
            line += "\x1b[38;2;{};{};{}m{} ".format(*_rgb(mark), letter) if mark else "  "
        lines.append(line + "\x1b[0m")
    return "\n".join(lines)

"""Set up matplotlib to draw into files, with labels of any text."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from types import ModuleType

from minigen.errors import UserError

ENDINGS = (".png", ".pdf", ".svg")

# matplotlib's own font has no Chinese, Japanese or Korean characters. These fonts, which come with
# the common operating systems, have them.
FONTS = (
    "Noto Sans CJK JP",
    "NanumGothic",
    "Malgun Gothic",
    "Microsoft YaHei",
    "Apple SD Gothic Neo",
    "Hiragino Sans",
    "PingFang SC",
)


def pyplot() -> ModuleType:
    """Import `matplotlib.pyplot`, and set it up to draw into files; the import takes a second.

    A label may be the name of a run or the caption of a picture, so "$" does not begin a formula in
    it, and a character that no font has is drawn as a box, without a warning. A matplotlibrc is
    ignored, and so is a notebook's MPLBACKEND, whose module may not be installed here.

    Raises `UserError` if matplotlib cannot be imported.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    level = logging.getLogger("matplotlib").level
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no report of a damaged matplotlibrc
    try:
        import matplotlib
        from matplotlib import font_manager, pyplot
    except Exception as error:  # a broken installation can raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"matplotlib cannot be used ({reason}); reinstall it") from None
    finally:
        logging.getLogger("matplotlib").setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in FONTS if name in installed]
    matplotlib.rcParams["font.family"] = ["sans-serif", *fonts]
    matplotlib.rcParams["text.parse_math"] = False
    warnings.filterwarnings("ignore", r"Glyph .* missing from")
    return pyplot


def check_ending(path: Path) -> None:
    """Raise `UserError` unless a file name ends in .png, .pdf or .svg."""
    if path.suffix.lower() not in ENDINGS:
        *others, last = ENDINGS
        raise UserError(f"--plot {path}: give a name that ends in {', '.join(others)} or {last}")

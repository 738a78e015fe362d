"""matplotlib, which `pyplot` sets up to draw into files and to show any text unchanged."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from types import ModuleType

from minigen.errors import UserError

ENDINGS = (".png", ".pdf", ".svg")

# matplotlib's own font lacks Chinese, Japanese and Korean; these fonts of Linux, Windows and macOS
# have them.
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
    """Import `matplotlib.pyplot`, which takes a second, and set it up to draw into files.

    The name of a run or the caption of a picture can be any text: "$" does not begin a formula, and
    a character that no font has becomes a box, without a warning. A user's matplotlibrc is ignored,
    and so is a notebook's MPLBACKEND, whose module may be missing here.

    Raises `UserError` if matplotlib cannot be imported.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    level = logging.getLogger("matplotlib").level
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no warning of a bad matplotlibrc
    try:
        import matplotlib
        from matplotlib import font_manager, pyplot
    except Exception as error:  # a broken installation can fail in any way
        message = (str(error).splitlines() or [""])[0]
        raise UserError(f"matplotlib cannot be used ({message}); reinstall it") from None
    finally:
        logging.getLogger("matplotlib").setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    names = {font.name for font in font_manager.fontManager.ttflist}
    matplotlib.rcParams["font.family"] = ["sans-serif", *(name for name in FONTS if name in names)]
    matplotlib.rcParams["text.parse_math"] = False
    warnings.filterwarnings("ignore", r"Glyph .* missing from")
    return pyplot


def check_ending(path: Path) -> None:
    """Raise `UserError` unless a file has the ending of a format that can be written."""
    if path.suffix.lower() not in ENDINGS:
        *others, last = ENDINGS
        raise UserError(f"--plot {path}: give a name that ends in {', '.join(others)} or {last}")

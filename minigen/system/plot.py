"""matplotlib, set up by `pyplot` to draw into files and to take any text as it is."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from types import ModuleType

from minigen.errors import UserError

ENDINGS = (".png", ".pdf", ".svg")

# matplotlib's own font has no Chinese, Japanese or Korean; the fonts of the systems that have.
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

    The name of a run or the caption of a picture may hold anything: "$" does not begin a formula,
    and a character that no font has becomes a box, without a warning. A matplotlibrc and a
    notebook's MPLBACKEND, whose module may be missing here, are ignored.

    Raises `UserError` if matplotlib cannot be imported.
    """
    given = os.environ.pop("MPLBACKEND", None)
    level = logging.getLogger("matplotlib").level
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports a damaged matplotlibrc
    try:
        import matplotlib
        from matplotlib import font_manager, pyplot
    except Exception as error:  # whatever an installation that is broken can do
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"matplotlib cannot be used ({said}); reinstall it") from None
    finally:
        logging.getLogger("matplotlib").setLevel(level)
        if given is not None:
            os.environ["MPLBACKEND"] = given
    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    known = {font.name for font in font_manager.fontManager.ttflist}
    matplotlib.rcParams["font.family"] = ["sans-serif", *(name for name in FONTS if name in known)]
    matplotlib.rcParams["text.parse_math"] = False
    warnings.filterwarnings("ignore", r"Glyph .* missing from")
    return pyplot


def check_ending(path: Path) -> None:
    """Raise `UserError` unless the name of a file ends as one of a picture that can be written."""
    if path.suffix.lower() not in ENDINGS:
        *others, last = ENDINGS
        raise UserError(f"--plot {path}: give a name that ends in {', '.join(others)} or {last}")

"""Draw into files with matplotlib, with labels of any text, and leave its settings as they were."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


LOCK = threading.RLock()  # matplotlib's settings are those of the whole process


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw figures with matplotlib's defaults; then put the program's own settings back.

    A notebook keeps its backend and its style (test_drawing_leaves_matplotlib_as_it_was). A label
    may be the name of a run or the caption of a picture, so "$" does not begin a formula in it, and
    a character that no font has is drawn as a box, without a warning. A matplotlibrc is ignored,
    and so is a notebook's MPLBACKEND, whose module may not be installed here. The import takes a
    second.

    Raises `UserError` if matplotlib cannot be imported.
    """
    with LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        matplotlib = _matplotlib()
        from matplotlib import font_manager

        installed = {font.name for font in font_manager.fontManager.ttflist}
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            fonts = [name for name in FONTS if name in installed]
            matplotlib.rcParams["font.family"] = ["sans-serif", *fonts]
            matplotlib.rcParams["text.parse_math"] = False
            yield


def _matplotlib() -> Any:
    """Import matplotlib with any MPLBACKEND, and any matplotlibrc."""
    is_new = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None)
    level = logging.getLogger("matplotlib").level
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no report of a damaged matplotlibrc
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.image
    except Exception as error:  # a broken installation can raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"matplotlib cannot be used ({reason}); reinstall it") from None
    finally:
        logging.getLogger("matplotlib").setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if is_new and backend is not None:
        with contextlib.suppress(Exception):  # the backend that its import would have set
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def new_figure(**options: Any) -> Any:
    """Return a figure to save in a file; `options` are those of matplotlib's `Figure`.

    Figures of pyplot belong to the program's backend, which may show them on a screen.
    """
    from matplotlib.figure import Figure

    return Figure(**options)


def check_ending(path: Path) -> None:
    """Raise `UserError` unless a file name ends in .png, .pdf or .svg."""
    if path.suffix.lower() not in ENDINGS:
        *others, last = ENDINGS
        raise UserError(f"--plot {path}: give a name that ends in {', '.join(others)} or {last}")

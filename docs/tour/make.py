"""Run the blocks of the tour, write their outputs into its pages, and make the notebook.

    python docs/tour/make.py

The pages are the source. After each block of Python stands a block with its output, and a link to a
function, such as [`MLP.forward`](../../minigen/model.py#L311), ends in the number of the line where
the function begins. This script writes the outputs, the numbers of the lines and docs/tour.ipynb,
so edit the words and the Python of a page only. The Korean pages in ko/ get the blocks and the
numbers of the English ones. The tests are in tests/test_tour.py and tests/test_korean.py.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = sorted(HERE.glob("0*.md"))
NOTEBOOK = HERE.parent / "tour.ipynb"

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", flags=re.M | re.S)
LINK = re.compile(r"\[`([\w.]+)`\]\(([\w./]+\.py)#L\d+\)")  # to a function or a class

INSTALL = """\
# If minigen is not installed, install it: from the repository of the line below, from the one from
# which Colab opened this notebook, or from the folder around docs/.
import importlib.util
import os
import re
from contextlib import suppress
from urllib import parse, request

repository = ""  # such as https://github.com/OWNER/REPO

if importlib.util.find_spec("minigen") is None:
    with suppress(KeyError, OSError):  # only Colab has this server, which knows the place
        sessions = "http://{COLAB_JUPYTER_IP}:{KMP_TARGET_PORT}/api/sessions".format(**os.environ)
        opened = parse.unquote(request.urlopen(sessions, timeout=9).read().decode())
        place = r'fileId=(https?://[^/]+/[^/]+/[^/]+)/blob/([^"]+)/docs/tour.ipynb'
        for address, branch in re.findall(place, opened):
            repository = repository or f"{address}@{branch}"
    if repository:
        %pip install --quiet git+{repository}
    elif os.path.isfile("../pyproject.toml"):
        %pip install --quiet ..
    if importlib.util.find_spec("minigen") is None:
        raise SystemExit(
            'minigen is not installed: fill in the line repository = "", and run the cell again; '
            "or clone minigen's repository, and open docs/tour.ipynb of the clone"
        )"""


def line_of(name: str, path: Path) -> int:
    """Return the line on which a function or a class begins; `name` may be Class.method.

    Raises `SystemExit` if the file has no such function.
    """
    body, line = ast.parse(path.read_text(encoding="utf-8")).body, 0
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        ]
        if not found:
            raise SystemExit(f"no {name} in {path}; correct the link of the page")
        body, line = found[0].body, found[0].lineno
    return line


def with_lines(text: str, folder: Path = HERE) -> str:
    """Return the text of a page of `folder`, each link to a function with the function's line."""

    def link(match: re.Match[str]) -> str:
        name, path = match.groups()
        return f"[`{name}`]({path}#L{line_of(name, folder / path)})"

    return LINK.sub(link, text)


def with_outputs(text: str, outputs: Sequence[str]) -> str:
    """Return the text of a page in which these outputs follow its blocks of Python."""
    rest = iter(outputs)

    def block(match: re.Match[str]) -> str:
        code, output = match[1], next(rest)
        return f"```python\n{code}```\n" + (f"\n```\n{output}```\n" if output else "")

    return BLOCK.sub(block, text)


def translated(korean: str, english: str) -> str:
    """Return the text of a Korean page with the code and the outputs of the English one.

    Raises `StopIteration` if the Korean page has more blocks.
    """
    blocks = (match[0] for match in BLOCK.finditer(english))
    return with_lines(BLOCK.sub(lambda _: next(blocks), korean), HERE / "ko")


def outputs_of(text: str) -> list[str]:
    """Return the output of each block of Python as the page shows it; "" where it shows none."""
    return [match[2] or "" for match in BLOCK.finditer(text)]


def make_notebook(pages: Sequence[str]) -> NotebookNode:
    """Return the notebook of these pages: a cell for each block, with the output on the page."""
    cells = [v4.new_code_cell(INSTALL)]
    for page in pages:
        # The notebook lies in docs/, one folder above the pages.
        page = re.sub(r"\]\((?=\d\d-|README)", "](tour/", page).replace("](../", "](")
        # Alternately words, code, output, words, ... and words at the end.
        *parts, last = BLOCK.split(page)
        for words, code, output in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if words.strip():
                cells.append(v4.new_markdown_cell(words.strip()))
            shown = [v4.new_output("stream", text=output)] if output else []
            cells.append(v4.new_code_cell(code.rstrip("\n"), outputs=shown))
        cells.append(v4.new_markdown_cell(last.strip()))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # by default random, but the same pages make the same file
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook: NotebookNode = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    return notebook


def run(notebook: NotebookNode) -> list[str]:
    """Run a notebook in its folder; return the printed text of each block of the pages.

    Raises nbclient's `CellExecutionError` if a cell fails.
    """
    # The kernel shall find this project, also where it is not installed.
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    client = NotebookClient(notebook, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(places)})
    _, *blocks = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    printed = ["".join(output.get("text", "") for output in block["outputs"]) for block in blocks]
    return [re.sub(" +$", "", text, flags=re.M) for text in printed]


def main() -> None:
    """Rewrite the pages and the notebook."""
    texts = [with_lines(page.read_text(encoding="utf-8")) for page in PAGES]
    outputs = iter(run(make_notebook(texts)))
    texts = [with_outputs(text, [next(outputs) for _ in outputs_of(text)]) for text in texts]
    for page, text in zip(PAGES, texts, strict=True):
        page.write_text(text, encoding="utf-8")
        korean = HERE / "ko" / page.name
        korean.write_text(translated(korean.read_text(encoding="utf-8"), text), encoding="utf-8")
    nbformat.write(make_notebook(texts), NOTEBOOK)


if __name__ == "__main__":
    main()

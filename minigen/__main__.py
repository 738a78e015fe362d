"""Run any command: `python -m minigen COMMAND`, or `minigen COMMAND` if minigen is installed.

    python -m minigen                        # the commands, with a line for each
    python -m minigen evaluate out/tales
    python -m minigen evaluate --help        # the flags of a command

Slow modules are imported once the command is known, so that the list of commands appears at once
(test_nothing_slow_is_imported_before_the_command_is_known).
"""

from __future__ import annotations

import difflib
import importlib
import runpy
import sys

import minigen
from minigen.errors import UserError
from minigen.system import early, shell

# For each command the module with its `main`, and its purpose. The commands in shell.SCRIPTS have
# no module: their files are run, as each starts a clock and handles signals before slow imports.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("", "train a transformer on a text"),
    "sample": ("", "write text with a trained model"),
    "evaluate": ("minigen.evaluation.command", "judge a trained model"),
    "compare": ("minigen.run.compare", "draw the losses of several runs on one plot"),
    "check": ("minigen.inference.parity", "compare a model's logits with those of transformers"),
    "export": ("minigen.files.export", "write a model as a folder for transformers, or as GGUF"),
    "merges": ("minigen.files.merges", "show how byte-pair encoding makes tokens of a word"),
    "serve": ("minigen.serve.command", "show a model on a page, and serve an API"),
    "learn": ("minigen.learn.command", "learn by writing functions of minigen yourself"),
    "corpus": ("minigen.corpora.command", "print or check documents of a synthetic corpus"),
    "experiment": ("minigen.learn.experiments", "change a small model, and see what it costs"),
}


def main() -> None:
    """Run the command that is the first word of the command line; exit with its exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    program = "python -m minigen" if sys.argv[0].endswith("__main__.py") else "minigen"
    sys.argv = [f"{program} {name}", *words]  # the name of the command in its --help
    early.begin()  # Ctrl-C is quiet while PyTorch is imported
    if name in shell.SCRIPTS:
        runpy.run_path(str(shell.script(name)), run_name="__main__")
        return
    from minigen.system.streams import one_line_errors

    command = importlib.import_module(COMMANDS[name][0]) if name in COMMANDS else None
    early.end()
    with one_line_errors():
        if command is not None:
            sys.exit(command.main())
        elif name in ("-h", "--help"):
            print(listing(program))
        elif name == "--version":
            print(f"minigen {minigen.__version__}")
        else:
            raise UserError(unknown(name))


def listing(program: str) -> str:
    """Return the list of commands, one in a line."""
    lines = [f"usage: {program} COMMAND [--flags]", ""]
    lines += [f"  {name:12}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join([*lines, "", f"The flags of a command: {program} COMMAND --help"])


def unknown(name: str) -> str:
    """Return the error for a word that is not a command, with the most similar command."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    mend = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {mend}"


if __name__ == "__main__":
    main()

"""The one command line: `python -m minigen COMMAND`, or `minigen COMMAND` where it is installed.

    python -m minigen                        # the commands, with a line for each
    python -m minigen evaluate out/tales
    python -m minigen evaluate --help        # the flags of a command

Nothing slow is imported before the command is known.
"""

from __future__ import annotations

import difflib
import importlib
import runpy
import sys

import minigen
from minigen.errors import UserError
from minigen.system import early, shell

# The module of each command, which has a `main`, and what the command does. Those of shell.SCRIPTS
# are run as files, which begin with their own clock and signals.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("", "train a transformer on a text"),
    "sample": ("", "write text with a trained model"),
    "evaluate": ("minigen.evaluation.command", "judge a trained model"),
    "compare": ("minigen.run.compare", "draw the losses of several runs on one plot"),
    "check": ("minigen.inference.parity", "compare its logits with those of transformers"),
    "export": ("minigen.files.export", "write a model as a folder for transformers"),
    "merges": ("minigen.files.merges", "show how byte-pair encoding joins a word's pieces"),
    "corpus": ("minigen.corpora.command", "print documents of a synthetic corpus, or check some"),
}


def main() -> None:
    """Run the command that the command line begins with, and end the process with its exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    program = "python -m minigen" if sys.argv[0].endswith("__main__.py") else "minigen"
    sys.argv = [f"{program} {name}", *words]  # as --help names the command
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
    """Return the commands, a line each."""
    lines = [f"usage: {program} COMMAND [--flags]", ""]
    lines += [f"  {name:10}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join([*lines, "", f"The flags of a command: {program} COMMAND --help"])


def unknown(name: str) -> str:
    """Return what is wrong with a word that is no command, with the nearest command."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    mend = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {mend}"


if __name__ == "__main__":
    main()

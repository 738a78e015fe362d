"""What a learner has done so far: the file progress.json in the folder of the exercises."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from minigen.errors import UserError
from minigen.system.disk import write_atomically

# The exit code of a check in which everything holds. An answer may end the check's process with 0,
# the code of `os._exit(0)`, before anything was checked.
PASSED = 10


@dataclass
class Progress:
    """The exercises that passed, the one begun last, and the hints that were shown."""

    passed: dict[str, str] = field(default_factory=dict)  # name -> SHA-256 of the file that passed
    last: str = ""  # the name of the exercise begun last; "": none
    hints: dict[str, int] = field(default_factory=dict)  # name -> number of hints that were shown

    @classmethod
    def load(cls, folder: Path) -> Progress:
        """Read the progress in a folder; without a file, nothing is done yet.

        Raises `UserError` if the file cannot be read.
        """
        path = folder / "progress.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            progress = cls(dict(found["passed"]), found["last"], dict(found["hints"]))
            if not isinstance(progress.last, str):
                raise TypeError
            if not all(isinstance(digest, str) for digest in progress.passed.values()):
                raise TypeError
            if not all(isinstance(number, int) for number in progress.hints.values()):
                raise TypeError
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from None
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path} is damaged; delete it: only the marks are lost, and a check sets them anew"
            ) from None
        return progress

    def save(self, folder: Path) -> None:
        """Write the progress into a folder, which is made if it is missing.

        Raises `UserError` if the file cannot be written.
        """
        with write_atomically(folder / "progress.json") as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def is_passed(self, name: str, path: Path) -> bool:
        """Return whether an exercise passed, and its file is still the one that passed."""
        return path.is_file() and self.passed.get(name) == digest(path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""The names of tokens in answers: different tokens have different names."""

from __future__ import annotations

from collections import Counter
from weakref import WeakKeyDictionary

from minigen.inference.engine import Engine

# Weak, so that a checkpoint that the server has given up does not stay in memory for its names.
NAMES: WeakKeyDictionary[Engine, list[str]] = WeakKeyDictionary()


def token_names(engine: Engine) -> list[str]:
    """Return the names of the ids of a model, which are made once."""
    if engine not in NAMES:
        NAMES[engine] = make_names(engine)
    return NAMES[engine]


def make_names(engine: Engine) -> list[str]:
    """Return the name of each id of a model: its text; or, of part of a character, its bytes.

    Names are keys of JSON objects, so each names one id only: where several tokens would have the
    same name, each but the first gets its id, too.
    """
    names = list[str]()
    for id in range(engine.n_vocab):
        data = engine.tokenizer.token_bytes(id)
        try:
            names.append(data.decode())
        except UnicodeDecodeError:
            names.append("bytes:" + "".join(f"\\x{byte:02x}" for byte in data))
    counts = Counter(names)
    taken = set(names)
    seen = set[str]()
    for id, name in enumerate(names):
        if counts[name] > 1 and name in seen:
            names[id] = unused(f"{name}<id {id}>", taken)
        seen.add(name)
    return names


def unused(name: str, taken: set[str]) -> str:
    """Return a name that is not in `taken`, and add it."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name

"""Measure how exactly llama.cpp computes exported models: token ids, logits, text, perplexity.

    pip install llama-cpp-python
    python -m bench.gguf --text tinyshakespeare.txt

Each line of the table is a model: nine are trained for a few steps on the text, and three have
random weights, in shapes for which train.py has no flags. GPT-2's vocabulary is that of tiktoken.

    ids     of 10,000 random strings and 200 pieces of the text: those with other ids
    tokens  in the vocabulary that are text: those that llama.cpp does not encode to themselves
    logits  the largest difference of a logit in float32, in a whole context
    greedy  the number of most probable tokens after a prompt that are the same, of 128
    ppl     minigen's perplexity of the text's end, and how much another one differs in llama.cpp
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.common import ROOT, environment, options, peer, record, table
from minigen.files import checkpoint
from minigen.files.export import export_gguf
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import Tokenizer, train_tokenizer

BLOCK = 192
SHAPE = f"--n_layer 2 --n_head 4 --n_embd 64 --block_size {BLOCK} --max_steps {{steps}}"
TRAINED = {
    f"{architecture} {kind}": f"--architecture {architecture} --tokenizer {kind} --vocab_size 1024"
    for architecture in ("gpt2", "modern")
    for kind in ("bpe", "byte", "char", "gpt2")
} | {"gpt2 without biases": "--architecture gpt2 --no_bias --tokenizer bpe --vocab_size 1024"}
RANDOM: dict[str, dict[str, Any]] = {
    "modern, fewer keys": {"n_kv_head": 2, "tie_embeddings": True},
    "modern, narrow heads": {"head_dim": 16},
    "llama": {"qk_norm": False, "n_kv_head": 2},
}

Logits = npt.NDArray[np.float32]


def main() -> None:
    """Print a line for each model."""
    parser = options(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--text", type=Path, required=True, help="to train on, and to encode")
    parser.add_argument("--steps", type=int, default=100, help="of training")
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8")
    header = ("model", "ids", "tokens", "logits", "greedy", "ppl", "float32", "bfloat16", "q8_0")
    rows = []
    for name in [*TRAINED, *RANDOM]:
        run = make(name, text, given)
        rows.append([name, *measure(run, text)])
        table(header, rows[-1:])
    print()
    table(header, rows)
    record("gguf", rows, given)


def make(name: str, text: str, given: argparse.Namespace) -> Path:
    """Return a run with the model of that name, trained or made now if the cache has none."""
    run: Path = given.cache / "gguf" / name
    if checkpoint.steps(run):
        return run
    if name in RANDOM:
        tokenizer = train_tokenizer("bpe", [text], 1024)
        config = GPTConfig.modern(tokenizer.n_vocab, BLOCK, 2, 4, 64, **RANDOM[name])
        torch.manual_seed(1)
        model = GPT(config)
        for p in model.parameters():  # also those of zeros, with which a block adds nothing
            torch.nn.init.normal_(p, mean=1.0 if p.ndim == 1 else 0.0, std=0.1)
        checkpoint.save(run, model, tokenizer, {}, {"step": 0})
        return run
    words = [*shlex.split(f"{TRAINED[name]} {SHAPE.format(steps=given.steps)}"), "--device", "cpu"]
    words += ["--data", str(given.text), "--out_dir", str(run.parent), "--name", name]
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, "--compile", "no"],
        env=environment(given.threads), check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return run


def measure(run: Path, text: str) -> list[str]:
    """Return the cells of a model after its name."""
    loaded = checkpoint.load_best(run)
    model, tokenizer = loaded.model().eval(), loaded.tokenizer
    prompt = tokenizer.encode_prompt(text[:20])
    ends = tokenizer.encode(text[-len(text) // 10 :])[: 16 * BLOCK]
    windows = [ends[i : i + BLOCK] for i in range(0, len(ends) - BLOCK + 1, BLOCK)]

    def own(ids: Sequence[int]) -> Logits:
        with torch.no_grad():
            logits: Logits = model(torch.tensor([ids]))[0].numpy()
        return logits

    ppl = perplexity(own, windows)
    changes = []
    for dtype in ("float32", "bfloat16", "q8_0"):
        with exported(run, dtype) as other:
            if dtype == "float32":
                ids, tokens = different_ids(tokenizer, other, text)
                logits = abs(own(windows[0]) - logits_of(other, windows[0])).max()
                same = n_same(own, other, prompt)
            changes.append(perplexity(lambda ids: logits_of(other, ids), windows) / ppl - 1)
    cells = [str(ids), str(tokens), f"{logits:.0e}", str(same), f"{ppl:.2f}"]
    return [*cells, *(f"{change:+.4%}" for change in changes)]


@contextlib.contextmanager
def exported(run: Path, dtype: str) -> Iterator[Any]:
    """Yield a run's model in llama.cpp, which computes in float32 besides the weights."""
    llama_cpp = peer("llama_cpp")
    path = run.parent / f"{run.name} {dtype}.gguf"
    for old in (path, path.with_suffix(".Modelfile")):
        old.unlink(missing_ok=True)
    export_gguf(run, path, dtype)
    exact = {"type_k": 0, "type_v": 0, "flash_attn": False, "n_gpu_layers": 0}
    model = llama_cpp.Llama(str(path), n_ctx=BLOCK, logits_all=True, verbose=False, **exact)
    yield model
    model.close()


def logits_of(other: Any, ids: Sequence[int]) -> Logits:
    """Return llama.cpp's logits after each token."""
    other.reset()
    other.eval(ids)
    return np.array(other.scores[: len(ids)])


def perplexity(logits: Callable[[Sequence[int]], Logits], windows: list[list[int]]) -> float:
    """Return exp(the mean loss) of the tokens in each window after its first."""
    losses = []
    for ids in windows:
        predicted = torch.from_numpy(logits(ids)[:-1]).double()
        losses.append(torch.nn.functional.cross_entropy(predicted, torch.tensor(ids[1:])).item())
    return math.exp(sum(losses) / len(losses))


def n_same(own: Callable[[Sequence[int]], Logits], other: Any, prompt: list[int]) -> int:
    """Return how many of the 128 most probable tokens after a prompt are the same."""
    other.reset()
    other.eval(prompt)
    ids = list(prompt)
    for n in range(128):
        ids.append(int(own(ids)[-1].argmax()))
        if int(other.scores[other.n_tokens - 1].argmax()) != ids[-1]:
            return n
        other.eval(ids[-1:])
    return 128


def different_ids(tokenizer: Tokenizer, other: Any, text: str) -> tuple[int, int]:
    """Return the number of strings, and of tokens, that llama.cpp encodes differently."""
    rng = random.Random(1)
    letters = sorted(set(text))
    pieces = (
        [*letters, "'ll", "  ", "\n\n", " the", "12", "aa"] if tokenizer.kind != "char" else letters
    )
    strings = []
    for n in range(10_000):
        length = rng.randrange(1, 60)
        if n % 2 and tokenizer.kind != "char":  # of all of Unicode, but for surrogates
            points = [rng.randrange(0x10F800) for _ in range(length)]
            strings.append("".join(chr(p + 0x800 * (p >= 0xD800)) for p in points))
        else:
            strings.append("".join(rng.choices(pieces, k=length)))
    starts = [rng.randrange(len(text) - 300) for _ in range(200)]
    strings += [text[start : start + rng.randrange(1, 300)] for start in starts]

    def ids(text: str) -> list[int]:
        encoded: list[int] = other.tokenize(text.encode(), add_bos=False)
        return encoded

    tokens = 0
    for id, token in enumerate(tokenizer.tokens[:-1]):
        with contextlib.suppress(UnicodeDecodeError):  # a part of a character is no text
            tokens += ids(token.decode()) != [id]
    return sum(ids(string) != tokenizer.encode(string) for string in strings), tokens


if __name__ == "__main__":
    main()

"""The check of a model beside transformers: are parameters, logits, loss and texts the same?"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, huggingface
from minigen.files.huggingface import Pretrained, hugging_face_shapes, zero_biases
from minigen.files.safetensors_file import plain
from minigen.model import GPT, KVCache
from minigen.sampling import Sampling, generate
from minigen.system.shell import install
from minigen.tokenizer import Tokenizer

TEXT = """The quick brown fox jumps over the lazy dog. It's 3.14, isn't it?
def f(x):\n    return {"a": x ** 2}  # 한국어, 日本語, Ελληνικά, 🙂🇰🇷
"""
LINES = [
    *TEXT.splitlines(), TEXT, " \t  \n\n x   ", "'S 'll DON'T", "½ ² Ⅷ ١٢٣ e\u0301",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "1984 12345678 3.14", "a\r\n\r\n \n  b !\n\n", " a",
    40 * TEXT,  # some thousand tokens
]  # fmt: skip
TOLERANCE = 1e-5  # in float32: of a logit, as a share of the largest; of the loss, in nats/token
BF16_TOLERANCE = 1.5  # our rounding errors, compared with theirs
N_GREEDY = 200  # tokens of the continuation that must be the same


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    ours: str
    theirs: str
    verdict: str
    agrees: bool


@torch.no_grad()
def check(source: str | Path) -> list[Finding]:
    """Compare the model of a folder, or of a name on the hub, with what transformers makes of it.

    Each position of a full context is compared, up to 1,024 tokens, and in bfloat16 the first 32.
    `UserError` if the folder cannot be loaded or transformers is not installed.
    """
    transformers = _transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loaded = huggingface.load(source)
    ours, tokenizer = loaded.model.float(), loaded.tokenizer
    theirs = transformers.AutoModelForCausalLM.from_pretrained(loaded.path, dtype=torch.float32)
    theirs.eval()
    n_theirs = sum(p.numel() for name, p in theirs.named_parameters() if ".lora_" not in name)
    shapes = [*hugging_face_shapes(ours.config).values(), *dict(zero_biases(ours.config)).values()]

    T = min(ours.config.block_size, 1024)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(ours.config.vocab_size, (1, T), generator=generator)
    if tokenizer is not None and tokenizer.kind != "char":  # a text, over and over
        text = tokenizer.encode(TEXT)
        ids = torch.tensor([(text * (T // len(text) + 1))[:T]])

    exact = theirs(ids).logits[0]  # (T, V)
    texts = [] if tokenizer is None else _compare_texts(loaded, theirs)
    found = [
        _finding("parameters", f"{sum(map(math.prod, shapes)):,}", f"{n_theirs:,}"),
        _compare_logits(ours(ids)[0], exact),
        _compare_loss(ours(ids)[0], exact, ids[0]),
        _compare_greedy(ours, theirs, ids[:, : min(16, (T + 1) // 2)]),
    ]
    found += texts
    few = ids[:, :32]  # many processors take minutes for a full context in bfloat16
    a, b = ours.bfloat16()(few)[0], theirs.bfloat16()(few).logits[0]
    return [*found, _compare_errors(a, b, exact[: len(a)])]


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"to compare with transformers, first: {install('hf')}") from None


def _compare_logits(ours: Tensor, theirs: Tensor) -> Finding:
    difference = (ours - theirs).abs().amax(dim=-1)  # (T, V) -> (T,)
    worst = (difference / theirs.abs().amax(dim=-1)).max().item()
    return Finding(
        f"float32: logits, {len(ours)} positions",
        f"off by {difference.max().item():.1e}",
        f"up to {theirs.abs().max().item():.1f}",
        f"relative {worst:.1e}, at most {TOLERANCE:.0e}",
        worst <= TOLERANCE,
    )


def _compare_loss(ours: Tensor, theirs: Tensor, ids: Tensor) -> Finding:
    a, b = (F.cross_entropy(x[:-1].double(), ids[1:]).item() for x in (ours, theirs))
    verdict = f"off by {abs(a - b):.1e}, at most {TOLERANCE:.0e}"
    return Finding("nats/token", f"{a:.6f}", f"{b:.6f}", verdict, abs(a - b) <= TOLERANCE)


def _compare_errors(ours: Tensor, theirs: Tensor, exact: Tensor) -> Finding:
    """bfloat16 has three digits; two ways to compute may differ as much as each does from exact."""
    a, b = (((x - exact).norm() / exact.norm()).item() for x in (ours.float(), theirs.float()))
    verdict = f"against float32; ours at most {BF16_TOLERANCE:g} times theirs"
    return Finding(
        "bfloat16: error", f"{a:.1e}", f"{b:.1e}", verdict, a <= BF16_TOLERANCE * b + TOLERANCE
    )


def _finding(what: str, ours: str, theirs: str) -> Finding:
    return Finding(what, ours, theirs, "same" if ours == theirs else "differ", ours == theirs)


def _compare_greedy(ours: GPT, theirs: Any, prompt: Tensor) -> Finding:
    """The most probable token, again and again, with the cache of each; prompt (1, T)."""
    n = min(N_GREEDY, ours.config.block_size - prompt.shape[1])
    tokens = generate(
        ours,
        lambda rows: KVCache(ours.config, rows, prompt.shape[1] + n, prompt.device),
        prompt.tolist(),
        Sampling(temperature=0),
        n_vocab=ours.config.vocab_size,
        max_new_tokens=n,
    )
    mine = [token.id for (token,) in tokens if token]
    # Everything that `generate` would take from its own defaults, the model's or the pipeline's.
    plain = _transformers().GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=n, min_new_tokens=n, use_cache=True,
        temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
        eos_token_id=None, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    theirs.generation_config = plain
    mask = torch.ones_like(prompt)
    written = theirs.generate(prompt, attention_mask=mask, generation_config=plain)
    yours = written[0, prompt.shape[1] :].tolist()
    same = next((i for i, (a, b) in enumerate(zip(mine, yours, strict=True)) if a != b), n)
    verdict = "same" if mine == yours else f"the same up to token {same}"
    return Finding(f"greedy, {n} tokens", str(mine[-1]), str(yours[-1]), verdict, mine == yours)


def _compare_texts(loaded: Pretrained, theirs: Any) -> list[Finding]:
    """Ids of texts and prompts, the ends of a text, and a text as both pipelines write it."""
    ours, transformers = loaded.tokenizer, _transformers()
    assert ours is not None
    reads = transformers.AutoTokenizer.from_pretrained(loaded.path)
    same = [_reads_alike(ours, reads, text) for text in (*LINES, *_spelled(ours))]
    sizes = f"{ours.n_vocab:,}", f"{len(reads):,}"
    verdict = f"{sum(same)} of {len(same)} texts agree"
    found = [Finding("tokenizer, size", *sizes, verdict, all(same))]
    ends = theirs.generation_config.eos_token_id
    ends = sorted(ends if isinstance(ends, list) else [] if ends is None else [ends])
    found.append(_finding("ends of a text", str(sorted(ours.ends)), str(ends)))
    prompt = "The quick"
    if ours.kind == "char":
        prompt = ours.decode(range(min(9, ours.end_of_text)))
    n = min(40, loaded.model.config.block_size - len(ours.encode_prompt(prompt)))
    if n > 0:
        from minigen.inference.engine import (
            Engine,  # not at the top of the file: it imports this one
        )
        from minigen.inference.pipeline import TextGeneration

        ask: dict[str, Any] = {"do_sample": False, "max_new_tokens": n, "return_full_text": False}
        engine = Engine(loaded.model, ours, companions=loaded.companions, device="cpu")
        [mine] = TextGeneration(engine)(prompt, **ask)
        pipe = transformers.pipeline("text-generation", model=theirs, tokenizer=reads, device="cpu")
        [yours] = pipe(prompt, **ask)
        mine, yours = (each["generated_text"] for each in (mine, yours))  # theirs may say more
        a, b = (repr(plain(text[-9:])) for text in (mine, yours))
        verdict = "same" if mine == yours else "differ"
        found.append(Finding(f"{n} tokens, its settings", a, b, verdict, mine == yours))
    return found


def _spelled(tokenizer: Tokenizer) -> list[str]:
    """Texts that spell control tokens, as the template of a chat has them."""
    names = [*tokenizer.controls.values()][:20]
    return [*(f"a {name} b{name}\n" for name in names), "".join(names)]


def _reads_alike(ours: Tokenizer, theirs: Any, text: str) -> bool:
    """Whether a text has the same ids, as such and as a prompt, and they the same text."""
    try:
        mine = ours.encode(text, special=True), ours.encode_prompt(text)
    except UserError:  # a character that a char tokenizer has not
        mine = None
    try:
        yours = theirs(text, add_special_tokens=False)["input_ids"], theirs(text)["input_ids"]
    except Exception:  # the same, as `tokenizers` puts it
        yours = None
    if mine is None or yours is None:
        return mine == yours
    return mine == yours and ours.decode(mine[0]) == theirs.decode(yours[0])


@dataclass(frozen=True)
class CheckConfig:
    """Compare a model, as minigen and as transformers compute it: `minigen check gpt2`."""

    model: Positional[str]  # a run, a folder, or a name such as gpt2 or Qwen/Qwen3-0.6B


def main(argv: Sequence[str] | None = None) -> int:
    model = checkpoint.find(parse(CheckConfig, argv).model)
    if isinstance(model, Path) and checkpoint.steps(model):
        model = checkpoint.best_first(model)[0]
    found = check(model)
    rows = [("", "minigen", "transformers", "")]
    rows += [(f.what, f.ours, f.theirs, f.verdict + ("" if f.agrees else "  <-- !")) for f in found]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0 if all(f.agrees for f in found) else 1

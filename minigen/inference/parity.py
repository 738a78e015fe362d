"""Compare a model in minigen with the same model in transformers: weights, logits, loss, texts."""

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
from minigen.inference.engine import Engine
from minigen.inference.pipeline import TextGeneration
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
# The largest difference in float32: of a logit, relative to the largest logit of its position; of
# the loss, in nats/token.
TOLERANCE = 1e-5
BF16_TOLERANCE = 1.5  # the largest ratio of minigen's rounding error to that of transformers
N_GREEDY = 200  # tokens of the greedy continuation that must be the same


@dataclass(frozen=True)
class Finding:
    """One line of the table: a property of the model, and its value in both programs."""

    what: str
    minigen: str
    transformers: str
    verdict: str
    agrees: bool


@torch.no_grad()
def check(source: str | Path) -> list[Finding]:
    """Load a model in minigen and in transformers; return the findings of the comparison.

    The logits are compared at each position of a full context, of at most 1,024 tokens; in
    bfloat16, at the first 32.

    Args:
        source: a folder, or a name on the hub.

    Raises `UserError` if the model cannot be loaded, or if transformers is not installed.
    """
    transformers = _transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loaded = huggingface.load(source)
    model, tokenizer = loaded.model.float(), loaded.tokenizer
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(loaded.path, dtype=torch.float32)
    hf_model.eval()
    hf_parameters = [p for name, p in hf_model.named_parameters() if ".lora_" not in name]
    shapes = [
        *hugging_face_shapes(model.config).values(),
        *dict(zero_biases(model.config)).values(),
    ]

    T = min(model.config.block_size, 1024)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, T), generator=generator)
    if tokenizer is not None and tokenizer.kind != "char":  # TEXT, repeated to T tokens
        text = tokenizer.encode(TEXT)
        ids = torch.tensor([(text * (T // len(text) + 1))[:T]])

    exact = hf_model(ids).logits[0]  # (T, V)
    n_parameters, n_hf = sum(map(math.prod, shapes)), sum(p.numel() for p in hf_parameters)
    text_findings = [] if tokenizer is None else _compare_texts(loaded, hf_model)
    findings = [
        _finding("parameters", f"{n_parameters:,}", f"{n_hf:,}"),
        _compare_logits(model(ids)[0], exact),
        _compare_loss(model(ids)[0], exact, ids[0]),
        _compare_greedy(model, hf_model, ids[:, : min(16, (T + 1) // 2)]),
        *text_findings,
    ]
    few = ids[:, :32]  # many processors take minutes for a full context in bfloat16
    rounded, hf_rounded = model.bfloat16()(few)[0], hf_model.bfloat16()(few).logits[0]
    return [*findings, _compare_errors(rounded, hf_rounded, exact[: len(rounded)])]


def _transformers() -> Any:
    """Import transformers. Raises `UserError` if it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"to compare with transformers, first: {install('hf')}") from None


def _compare_logits(logits: Tensor, hf_logits: Tensor) -> Finding:
    """Compare the logits (T, V) of each position, relative to the largest one of the position."""
    difference = (logits - hf_logits).abs().amax(dim=-1)  # (T, V) -> (T,)
    worst = (difference / hf_logits.abs().amax(dim=-1)).max().item()
    return Finding(
        f"float32: logits, {len(logits)} positions",
        f"off by {difference.max().item():.1e}",
        f"up to {hf_logits.abs().max().item():.1f}",
        f"relative {worst:.1e}, at most {TOLERANCE:.0e}",
        worst <= TOLERANCE,
    )


def _compare_loss(logits: Tensor, hf_logits: Tensor, ids: Tensor) -> Finding:
    """Compare the mean loss in nats per token of logits (T, V) on ids (T,)."""
    loss, hf_loss = (
        F.cross_entropy(each[:-1].double(), ids[1:]).item() for each in (logits, hf_logits)
    )
    error = abs(loss - hf_loss)
    verdict = f"off by {error:.1e}, at most {TOLERANCE:.0e}"
    return Finding("nats/token", f"{loss:.6f}", f"{hf_loss:.6f}", verdict, error <= TOLERANCE)


def _compare_errors(rounded: Tensor, hf_rounded: Tensor, exact: Tensor) -> Finding:
    """Compare how far the bfloat16 logits (T, V) of both programs are from the float32 logits.

    bfloat16 has three digits, so two correct programs may differ from each other as much as each
    differs from float32. Hence the errors are compared, and not the logits.
    """
    error, hf_error = (
        ((each.float() - exact).norm() / exact.norm()).item() for each in (rounded, hf_rounded)
    )
    verdict = f"against float32; minigen at most {BF16_TOLERANCE:g} times transformers"
    agrees = error <= BF16_TOLERANCE * hf_error + TOLERANCE
    return Finding("bfloat16: error", f"{error:.1e}", f"{hf_error:.1e}", verdict, agrees)


def _finding(what: str, minigen: str, transformers: str) -> Finding:
    """Return the finding about two values that must be equal."""
    same = minigen == transformers
    return Finding(what, minigen, transformers, "same" if same else "differ", same)


def _compare_greedy(model: GPT, hf_model: Any, prompt: Tensor) -> Finding:
    """Compare the greedy continuations of prompt (1, T), each computed with a cache."""
    n = min(N_GREEDY, model.config.block_size - prompt.shape[1])
    tokens = generate(
        model,
        lambda rows: KVCache(model.config, rows, prompt.shape[1] + n, prompt.device),
        prompt.tolist(),
        Sampling(temperature=0),
        n_vocab=model.config.vocab_size,
        max_new_tokens=n,
    )
    ids = [token.id for (token,) in tokens if token]
    # Each setting that `generate` would otherwise take from its defaults, or from the model's.
    greedy = _transformers().GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=n, min_new_tokens=n, use_cache=True,
        temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
        eos_token_id=None, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    hf_model.generation_config = greedy
    mask = torch.ones_like(prompt)
    hf_texts = hf_model.generate(prompt, attention_mask=mask, generation_config=greedy)
    hf_ids = hf_texts[0, prompt.shape[1] :].tolist()
    n_same = next((i for i, (a, b) in enumerate(zip(ids, hf_ids, strict=True)) if a != b), n)
    verdict = "same" if ids == hf_ids else f"the same up to token {n_same}"
    return Finding(f"greedy, {n} tokens", str(ids[-1]), str(hf_ids[-1]), verdict, ids == hf_ids)


def _compare_texts(loaded: Pretrained, hf_model: Any) -> list[Finding]:
    """Compare the ids of texts, the end tokens, and a text that both pipelines write."""
    tokenizer, transformers = loaded.tokenizer, _transformers()
    assert tokenizer is not None
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(loaded.path)
    texts = *LINES, *_texts_with_control_tokens(tokenizer)
    same = [_encode_alike(tokenizer, hf_tokenizer, text) for text in texts]
    sizes = f"{tokenizer.n_vocab:,}", f"{len(hf_tokenizer):,}"
    verdict = f"{sum(same)} of {len(same)} texts agree"
    findings = [Finding("tokenizer, size", *sizes, verdict, all(same))]
    ends = hf_model.generation_config.eos_token_id
    ends = sorted(ends if isinstance(ends, list) else [] if ends is None else [ends])
    findings.append(_finding("ends of a text", str(sorted(tokenizer.ends)), str(ends)))
    prompt = "The quick"
    if tokenizer.kind == "char":
        prompt = tokenizer.decode(range(min(9, tokenizer.end_of_text)))
    n = min(40, loaded.model.config.block_size - len(tokenizer.encode_prompt(prompt)))
    if n > 0:
        ask: dict[str, Any] = {"do_sample": False, "max_new_tokens": n, "return_full_text": False}
        engine = Engine(loaded.model, tokenizer, companions=loaded.companions, device="cpu")
        [result] = TextGeneration(engine)(prompt, **ask)
        pipe = transformers.pipeline(
            "text-generation", model=hf_model, tokenizer=hf_tokenizer, device="cpu"
        )
        [hf_result] = pipe(prompt, **ask)
        # Compare this entry only, as transformers may add others.
        text, hf_text = result["generated_text"], hf_result["generated_text"]
        verdict = "same" if text == hf_text else "differ"
        end, hf_end = (repr(plain(each[-9:])) for each in (text, hf_text))
        what = f"{n} tokens, its settings"
        findings.append(Finding(what, end, hf_end, verdict, text == hf_text))
    return findings


def _texts_with_control_tokens(tokenizer: Tokenizer) -> list[str]:
    """Return texts that contain the names of control tokens, as the template of a chat does."""
    names = [*tokenizer.controls.values()][:20]
    return [*(f"a {name} b{name}\n" for name in names), "".join(names)]


def _encode_alike(tokenizer: Tokenizer, hf_tokenizer: Any, text: str) -> bool:
    """Return whether both encode a text alike, also as a prompt, and decode its ids alike."""
    try:
        ids = tokenizer.encode(text, special=True), tokenizer.encode_prompt(text)
    except UserError:  # a char tokenizer without one of the characters
        ids = None
    try:
        hf_plain, hf_prompt = hf_tokenizer(text, add_special_tokens=False), hf_tokenizer(text)
        hf_ids = hf_plain["input_ids"], hf_prompt["input_ids"]
    except Exception:  # the error of `tokenizers` for an unknown character
        hf_ids = None
    if ids is None or hf_ids is None:
        return ids == hf_ids
    return ids == hf_ids and tokenizer.decode(ids[0]) == hf_tokenizer.decode(hf_ids[0])


@dataclass(frozen=True)
class CheckConfig:
    """Compare a model in minigen with the same model in transformers: `minigen check gpt2`."""

    model: Positional[str]  # a run, a folder, or a name such as gpt2 or Qwen/Qwen3-0.6B


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of findings; return 0 if all of them agree, else 1."""
    model = checkpoint.find(parse(CheckConfig, argv).model)
    if isinstance(model, Path) and checkpoint.steps(model):
        model = checkpoint.best_first(model)[0]
    findings = check(model)
    rows = [("", "minigen", "transformers", "")]
    for one in findings:
        verdict = one.verdict if one.agrees else f"{one.verdict}  <-- !"
        rows.append((one.what, one.minigen, one.transformers, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0 if all(one.agrees for one in findings) else 1

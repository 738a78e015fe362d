"""GPT-2's, Llama's and Qwen3's weights in, ours out: what each tensor is called on either side.

A folder as Hugging Face has them (config.json, model.safetensors, tokenizer.json) becomes a `GPT`,
and a `GPT` becomes such a folder. One table of names per architecture serves both directions.

    python -m minigen.files.huggingface check gpt2  # ours beside transformers': the same?
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import minigen
from minigen.errors import UserError
from minigen.files import adapter, companions, tokenizer_files
from minigen.files.companions import Companions
from minigen.files.config_file import model_type, read_config, say_of_dropout
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.files.weight_files import Weights, open_weights, to_float
from minigen.model import GPT, GPTConfig, KVCache, rope_frequencies
from minigen.sampling import Sampling, generate
from minigen.system.shell import install
from minigen.system.streams import one_line_errors
from minigen.tokenizer import END_OF_TEXT, Tokenizer

# Theirs, ours; {} is the number of the block. Each stands for a .weight and, if there is one, a
# .bias. Where ours are several, theirs has them stacked in one matrix. GPT-2 stores its matrices
# transposed, (in, out), because it was written with a convolution ("^T").
NAMES = {
    "gpt2": """
        transformer.wte                 embedding
        transformer.wpe                 position
        transformer.h.{}.ln_1           blocks.{}.attention_norm
        transformer.h.{}.attn.c_attn^T  blocks.{}.attention.query .key .value
        transformer.h.{}.attn.c_proj^T  blocks.{}.attention.output
        transformer.h.{}.ln_2           blocks.{}.mlp_norm
        transformer.h.{}.mlp.c_fc^T     blocks.{}.mlp.up
        transformer.h.{}.mlp.c_proj^T   blocks.{}.mlp.down
        transformer.ln_f                norm
        lm_head                         head
        """,
    "llama": """
        model.embed_tokens                         embedding
        model.layers.{}.input_layernorm            blocks.{}.attention_norm
        model.layers.{}.self_attn.q_proj           blocks.{}.attention.query
        model.layers.{}.self_attn.k_proj           blocks.{}.attention.key
        model.layers.{}.self_attn.v_proj           blocks.{}.attention.value
        model.layers.{}.self_attn.o_proj           blocks.{}.attention.output
        model.layers.{}.post_attention_layernorm   blocks.{}.mlp_norm
        model.layers.{}.mlp.gate_proj              blocks.{}.mlp.gate
        model.layers.{}.mlp.up_proj                blocks.{}.mlp.up
        model.layers.{}.mlp.down_proj              blocks.{}.mlp.down
        model.norm                                 norm
        lm_head                                    head
        """,
}
NAMES["qwen3"] = (
    NAMES["llama"]
    + """
        model.layers.{}.self_attn.q_norm           blocks.{}.attention.query_norm
        model.layers.{}.self_attn.k_norm           blocks.{}.attention.key_norm
        """
)

HEAD = "lm_head.weight"
# Old files hold these too: what is computed anyway, and is no parameter.
BUFFERS = re.compile(r"\.attn\.(bias|masked_bias)$|(^|\.)rotary_emb\.inv_freq$")

HUB_NAMES = {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large")}
HUB_NAMES["gpt2-xl"] = "openai-community/gpt2-xl"
HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json",
             "vocab.json", "merges.txt", "adapter_config.json", *companions.NAMES)  # fmt: skip
MOST_CONFIG = 1 << 20  # bytes of a config.json


@dataclass(frozen=True)
class Pretrained:
    """What a folder holds; the tokenizer is None if the folder has none."""

    path: Path
    model: GPT
    tokenizer: Tokenizer | None
    companions: Companions


def load(source: str | Path, dropout: float | None = None) -> Pretrained:
    """A model in evaluation mode, with the number format of its file, from a folder or the hub.

    Args:
        source: a folder with config.json and weights; or a name on huggingface.co such as `gpt2`
            or `Qwen/Qwen3-0.6B`, which is downloaded once (needs the extra `hf`).
        dropout: for training; None: what config.json says. Other programs drop at fewer places.

    Raises `UserError` that names what is missing, wrong or not supported.
    """
    folder = fetch(source)
    home = _home(folder)
    content = _config(home)
    where = folder if tokenizer_files.is_in(folder) else home  # an adapter may have its own
    beside = companions.read(home, where, content)
    if where != home and not beside.names_class:
        raise UserError(
            f"{folder} has a tokenizer without a tokenizer_config.json that names its "
            f"tokenizer_class, so that transformers reads that of {home}; name the class, or "
            "delete the adapter's tokenizer"
        )
    tokenizer = tokenizer_files.read(where, beside)
    if tokenizer is not None:
        check_size(tokenizer, read_config(content, str(home / "config.json")), str(folder))
    return Pretrained(folder, _model(folder, home, content, dropout), tokenizer, beside)


def load_model(source: str | Path, dropout: float | None = None) -> GPT:
    """Load the model alone, without its tokenizer; arguments and errors are those of `load`."""
    folder = fetch(source)
    home = _home(folder)
    return _model(folder, home, _config(home), dropout)


def _model(folder: Path, home: Path, content: Mapping[str, Any], dropout: float | None) -> GPT:
    """Return the model of `home`, corrected by the adapter in `folder` if there is one.

    Args:
        content: that of the model's config.json.
    """
    where = str(home / "config.json")
    config = read_config(content, where)
    if dropout is None:
        say_of_dropout(content, where)
    else:
        config = replace(config, dropout=dropout)
    with contextlib.ExitStack() as stack:
        weights = open_weights(home, stack)
        if adapter.is_one(folder):
            names = fit(config, weights.shapes, str(home))
            transposed = {name for name, rule in rules(config).items() if rule.transposed}
            weights = adapter.add(folder, weights, names, transposed, stack)
        return build(config, weights, str(home))


def _config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json."""
    path = folder / "config.json"
    return parse_json(read_file(path, MOST_CONFIG), str(path))


def _home(folder: Path) -> Path:
    """Return the folder with the model: `folder`, or that which an adapter alone there names."""
    if (folder / "config.json").is_file() or not adapter.is_one(folder):
        return folder
    name = adapter.base_of(folder)
    try:
        home = fetch(name)
    except UserError as error:
        raise UserError(f"{folder} only corrects another model: {error}") from None
    if adapter.is_one(home):
        raise UserError(f"{folder} corrects {name}, which is an adapter too; merge that one first")
    return home


def check_size(tokenizer: Tokenizer, config: GPTConfig, where: str) -> None:
    """Raise `UserError` if a token has no row in the embedding."""
    if tokenizer.n_vocab > config.vocab_size:
        end = ", the one that parts documents too" * (tokenizer.end_of_text >= config.vocab_size)
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.n_vocab:,} tokens, but the model's vocab_size "
            f"is {config.vocab_size:,}: the last have no row{end}; make room with transformers' "
            "model.resize_token_embeddings(len(tokenizer)), or restore the tokenizer"
        )


# ---- names ----


@dataclass(frozen=True)
class Rule:
    """One tensor of theirs: the tensors of ours that it stacks, and whether it is transposed."""

    ours: tuple[str, ...]
    transposed: bool


def rules(config: GPTConfig) -> dict[str, Rule]:
    """Their name of each tensor of a model -> how it is made of ours."""
    shapes = parameter_shapes(config)
    found = {}
    for line in filter(str.strip, NAMES[model_type(config)].splitlines()):
        theirs, first, *more = line.split()
        stem = first.rpartition(".")[0]
        for block in map(str, range(config.n_layer if "{}" in theirs else 1)):
            for kind in (".weight", ".bias"):
                ours = [
                    name.replace("{}", block) + kind for name in (first, *(stem + m for m in more))
                ]
                if ours[0] in shapes:
                    name = theirs.removesuffix("^T").replace("{}", block) + kind
                    found[name] = Rule(tuple(ours), theirs.endswith("^T"))
    return found


def to_theirs(model: GPT) -> dict[str, Tensor]:
    """The model's weights under their names; a tied head is left out, as they do.

    They share the model's memory, except where theirs has several of ours in one matrix.
    """
    state = model.state_dict()
    theirs = {}
    for name, rule in rules(model.config).items():
        parts = [state[ours].detach() for ours in rule.ours]
        stacked = torch.cat(parts) if len(parts) > 1 else parts[0]
        theirs[name] = stacked.t() if rule.transposed else stacked
    zeros = {n: model.embedding.weight.new_zeros(shape) for n, shape in no_biases(model.config)}
    return theirs | zeros


def no_biases(config: GPTConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Return GPT-2's names and shapes of the biases that a model without them lacks.

    GPT-2's code always adds biases; a model without them is one whose biases are zero.
    """
    if config.bias or model_type(config) != "gpt2":
        return []
    return [
        (name.replace(".weight", ".bias"), shape[-1:])
        for name, shape in their_shapes(config).items()
        if not name.startswith(("transformer.w", "lm_head"))
    ]


def build(config: GPTConfig, weights: Weights, where: str) -> GPT:
    """Return a model made of `weights`, in their format of numbers.

    The model is laid out without memory; then each tensor is read once and becomes a parameter, so
    the peak is the weights themselves and the largest tensor besides. If their formats differ, all
    get one that holds the numbers of each.

    Raises `UserError` that names each tensor that does not fit `config`.
    """

    def read(name: str) -> Tensor:
        return to_float(weights.read(names[name]), name, where)

    names = fit(config, weights.shapes, where)
    config = as_held(config, names, read)
    names = fit(config, weights.shapes, where)
    check_buffers(config, names, weights, where)
    model, shapes, formats = empty_model(config), parameter_shapes(config), set()
    for name, rule in rules(config).items():
        tensor = read(name)
        formats.add(tensor.dtype)
        stacked = tensor.t() if rule.transposed else tensor
        sizes = [shapes[ours][0] for ours in rule.ours]
        for ours, part in zip(rule.ours, torch.split(stacked, sizes), strict=True):
            module, _, kind = ours.rpartition(".")
            parameter = torch.nn.Parameter(part.contiguous())
            setattr(model.get_submodule(module), kind, parameter)
    return model.to(functools.reduce(torch.promote_types, formats)).eval()


def fit(config: GPTConfig, given: Mapping[str, tuple[int, ...]], where: str) -> dict[str, str]:
    """Return the name in a file of each tensor of theirs; `UserError` if one does not fit.

    Beside those of `rules`, these are such as may be there because they say nothing new: a head
    that is tied, biases that are zero, and BUFFERS. `build` looks whether they do.

    Args:
        given: the shape of each tensor, by its name in the file.
        where: the folder or the file, with which a complaint begins.
    """
    if config.n_layer > len(given):  # not even laid out
        raise UserError(f"{where}: {len(given)} tensors are no {config.n_layer} layers")
    wanted = their_shapes(config)
    embedding = next(iter(wanted))
    spare = dict(no_biases(config)) | ({HEAD: wanted[embedding]} if config.tied_head else {})
    known = wanted.keys() | spare.keys()
    names: dict[str, str] = {}
    complaints = []
    for name in given:
        # Some files leave out "transformer." or "model.", as they hold the model without its head.
        whole = _with_prefix(name, known)
        if whole in names:
            complaints.append(f"{plain(name)} and {plain(names[whole])} are one tensor")
        names[whole] = name
    if config.tied_head and HEAD in names and embedding not in names:
        names[embedding] = names.pop(HEAD)  # one matrix, under the other of its names
    for name, shape in (wanted | {n: s for n, s in spare.items() if n in names}).items():
        if name not in names:
            complaints.append(f"{name} is missing")
        elif given[names[name]] != shape:
            complaints.append(f"{name} is {plain(given[names[name]])}, not {shape}")
    for name in names:
        if name not in known and not BUFFERS.search(name):
            complaints.append(f"{plain(name)} is unexpected")
    if complaints:
        more = f"; and {len(complaints) - 5} more" if len(complaints) > 5 else ""
        raise UserError(
            f"{where}: the weights do not fit config.json: {'; '.join(complaints[:5])}{more}"
        )
    return names


def _with_prefix(name: str, known: Collection[str]) -> str:
    for prefix in ("transformer.", "model."):
        if prefix + name in known or (BUFFERS.search(name) and name.startswith(("h.", "layers."))):
            return prefix + name
    return name


def as_held(config: GPTConfig, names: Collection[str], read: Callable[[str], Tensor]) -> GPTConfig:
    """Return the config with a head or biases of its own, if the tensors have them.

    transformers computes with these even if config.json says that the head is the embedding, or
    if it says `"bias": false`, which is a word of minigen's.
    """
    if config.tied_head and HEAD in names:
        embedding = read(next(iter(rules(config))))
        config = replace(config, tied_head=bool((read(HEAD) == embedding).all()))
    if any(name in names and read(name).any() for name, _ in no_biases(config)):
        config = replace(config, bias=True)
    return config


def check_buffers(
    config: GPTConfig, names: Mapping[str, str], weights: Weights, where: str
) -> None:
    """Raise `UserError` if a tensor of BUFFERS is not what is computed instead of it."""
    for name, in_file in names.items():
        if not BUFFERS.search(name):
            continue
        held = weights.read(in_file).squeeze()
        if name.endswith("inv_freq"):
            expected = rope_frequencies(config, torch.device("cpu")).to(held.dtype).float()
            # As far as a format of two bytes can tell.
            same = held.shape == expected.shape and torch.allclose(
                held.float(), expected, rtol=1e-2 if held.dtype.itemsize < 4 else 1e-5, atol=1e-7
            )
            computed = f"rotary positions with theta {config.rope_theta:g}"
        elif name.endswith("masked_bias"):
            same = held.ndim == 0 and held.item() <= -1e3  # whose exponential is zero
            computed = "-10000"
        else:
            ones = torch.ones(held.shape, dtype=torch.bool)
            same = held.ndim in (0, 2) and torch.equal(
                held.bool(), ones.tril() if held.ndim else ones
            )
            computed = "the mask of later tokens"
        if not same:
            raise UserError(f"{where}: {plain(name)} is not {computed}, which minigen computes")


def their_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model, by their names, the embedding first."""
    shapes, found = parameter_shapes(config), {}
    for name, rule in rules(config).items():
        whole = (sum(shapes[ours][0] for ours in rule.ours), *shapes[rule.ours[0]][1:])
        found[name] = whole[::-1] if rule.transposed else whole
    return found


@functools.lru_cache(maxsize=4)
def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a model, by our names."""
    return {name: tuple(p.shape) for name, p in empty_model(config).state_dict().items()}


def empty_model(config: GPTConfig) -> GPT:
    """A model whose parameters have shapes but no memory and no values."""
    with torch.device("meta"), _NoStart():
        return GPT(config)


class _NoStart(TorchFunctionMode):
    """Leaves out the random start of a model whose weights are loaded anyway."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        starts = getattr(func, "__module__", None) == "torch.nn.init"
        return None if starts else func(*args, **(kwargs or {}))


# ---- files ----


def is_hub_name(name: str) -> bool:
    """Whether a model on huggingface.co can have this name; whether one has, is seen there."""
    return name in HUB_NAMES or bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name))


def fetch(source: str | Path) -> Path:
    """The folder that `source` names: itself, or its download from the hub, made once."""
    folder, name = Path(source), str(source)
    if os.path.isdir(folder):
        return folder
    if not is_hub_name(name):
        raise UserError(f"{name} is neither a folder nor a model's name such as gpt2 or owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"there is no folder {name}; to get it from huggingface.co, first: {install('hf')}"
        ) from None
    repository = HUB_NAMES.get(name, name)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(HUB_FILES)))
        if not any(folder.glob("*.safetensors")):  # an old one
            snapshot_download(repository, allow_patterns=["*.bin", "*.bin.index.json"])
    except Exception as error:  # no connection, no such model, no permission, no space ...
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"cannot get {repository} from huggingface.co ({reason[0][:120]}); "
            "check the name, go online once, or give a folder"
        ) from None
    return folder


def tokenizer_config(block_size: int, end: str = END_OF_TEXT) -> dict[str, Any]:
    """Return the content of the tokenizer_config.json beside a tokenizer.json that has none.


    Args:
        end: the token that parts documents.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }


# ---- the check: ours beside transformers' ----

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
    loaded = load(source)
    ours, tokenizer = loaded.model.float(), loaded.tokenizer
    theirs = transformers.AutoModelForCausalLM.from_pretrained(loaded.path, dtype=torch.float32)
    theirs.eval()
    n_theirs = sum(p.numel() for name, p in theirs.named_parameters() if ".lora_" not in name)
    shapes = [*their_shapes(ours.config).values(), *dict(no_biases(ours.config)).values()]

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
        from minigen.inference import engine  # not at the top of the file: it imports this one

        ask: dict[str, Any] = {"do_sample": False, "max_new_tokens": n, "return_full_text": False}
        known = engine.Loaded(loaded.path, loaded.model, ours, {}, loaded.companions)
        [mine] = engine.TextGeneration(known, "cpu")(prompt, **ask)
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minigen.files.huggingface",
        description="Compare a model, as minigen and as transformers compute it.",
    )
    parser.add_argument("--version", action="version", version=f"minigen {minigen.__version__}")
    parser.add_argument("command", choices=["check"])
    parser.add_argument("model", help="a run, a folder, or a name such as gpt2 or Qwen/Qwen3-0.6B")
    options = parser.parse_args(argv)
    from minigen.files import checkpoint  # not at the top of the file: it imports this one

    model = checkpoint.find(options.model)
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


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())

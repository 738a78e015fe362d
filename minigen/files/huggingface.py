"""GPT-2's, Llama's and Qwen3's weights in, ours out: what each tensor is called on either side.

A folder as Hugging Face has them (config.json, model.safetensors, tokenizer.json) becomes a `GPT`,
and a `GPT` becomes such a folder. One table of names per architecture serves both directions.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minigen.errors import UserError
from minigen.files import adapter, companions, tokenizer_files
from minigen.files.companions import Companions
from minigen.files.config_file import model_type, read_config, say_of_dropout
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.files.weight_files import Weights, open_weights, to_float
from minigen.model import GPT, GPTConfig, rope_frequencies
from minigen.system.shell import install
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
        lm_head                         lm_head
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
        lm_head                                    lm_head
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
MAX_CONFIG = 1 << 20  # bytes of a config.json


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
    return parse_json(read_file(path, MAX_CONFIG), str(path))


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
    spare = dict(no_biases(config)) | ({HEAD: wanted[embedding]} if config.tie_embeddings else {})
    known = wanted.keys() | spare.keys()
    names: dict[str, str] = {}
    complaints = []
    for name in given:
        # Some files leave out "transformer." or "model.", as they hold the model without its head.
        whole = _with_prefix(name, known)
        if whole in names:
            complaints.append(f"{plain(name)} and {plain(names[whole])} are one tensor")
        names[whole] = name
    if config.tie_embeddings and HEAD in names and embedding not in names:
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
    if config.tie_embeddings and HEAD in names:
        embedding = read(next(iter(rules(config))))
        config = replace(config, tie_embeddings=bool((read(HEAD) == embedding).all()))
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

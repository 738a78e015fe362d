"""Models of Hugging Face: read a folder with a GPT-2, Llama or Qwen3, and write one.

A folder (config.json, model.safetensors, tokenizer.json) becomes a `GPT`, and a `GPT` becomes a
folder. NAMES has the names of each tensor, in Hugging Face and in minigen, for both directions.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
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
from minigen.files.config_file import model_type, read_config, warn_of_dropout
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.files.weight_files import Weights, open_weights, to_float
from minigen.model import GPT, GPTConfig, rope_frequencies
from minigen.system.shell import install
from minigen.tokenizer import END_OF_TEXT, Tokenizer

# Hugging Face's name and minigen's; {} is the number of the block. Each line stands for a .weight
# and, if the model has one, a .bias. Several matrices of minigen are stacked in one of Hugging
# Face. "^T": GPT-2 stores its matrices transposed, (in, out), as its layers were convolutions.
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
# Tensors in old files that are not parameters: masks and angles, which minigen computes.
BUFFERS = re.compile(r"\.attn\.(bias|masked_bias)$|(^|\.)rotary_emb\.inv_freq$")

HUB_NAMES = {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large")}
HUB_NAMES["gpt2-xl"] = "openai-community/gpt2-xl"
HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json",
             "vocab.json", "merges.txt", "adapter_config.json", *companions.NAMES)  # fmt: skip
MAX_CONFIG = 1 << 20  # bytes of a config.json


@dataclass(frozen=True)
class Pretrained:
    """A model that was loaded from a folder."""

    path: Path
    model: GPT
    tokenizer: Tokenizer | None  # None: the folder has no tokenizer
    companions: Companions


def load(
    source: str | Path, dropout: float | None = None, base: str | Path | None = None
) -> Pretrained:
    """Load a model from a folder or from the hub: in evaluation mode, in its file's number format.

    Args:
        source: a folder with config.json and weights; or a name on huggingface.co such as `gpt2`
            or `Qwen/Qwen3-0.6B`, which is downloaded once (needs the extra `hf`).
        dropout: for training; None: the rate in config.json.
        base: the model that the adapter `source` is added to, a folder or a name on the hub; None:
            the one that the adapter names. A note says if it names another one: whether both are
            the same model cannot be known.

    Raises `UserError` that names the file, field or tensor that is missing, wrong or not supported.
    """
    folder = fetch(source)
    home = _home(folder) if base is None else fetch(base)
    saved_config = _config(home)
    tokenizer, model_companions = _tokenizer(folder, home, saved_config)
    if tokenizer is not None:
        check_size(tokenizer, read_config(saved_config, str(home / "config.json")), str(folder))
    model = _model(folder, home, saved_config, dropout)
    if base is not None and not _is_same(own := _base_name(folder), base):
        own = own or "a model that it does not name"
        print(f"note: {folder} is an adapter of {own}, and is added to {base}", file=sys.stderr)
    return Pretrained(folder, model, tokenizer, model_companions)


def load_model(source: str | Path, dropout: float | None = None) -> GPT:
    """Load only the model from a folder or the hub, with the arguments and errors of `load`."""
    folder = fetch(source)
    home = _home(folder)
    return _model(folder, home, _config(home), dropout)


def load_tokenizer(source: str | Path) -> Tokenizer | None:
    """Load only the tokenizer from a folder or from the hub; None if the folder has none."""
    folder = fetch(source)
    home = _home(folder)
    return _tokenizer(folder, home, _config(home))[0]


def _tokenizer(
    folder: Path, home: Path, saved_config: Mapping[str, Any]
) -> tuple[Tokenizer | None, Companions]:
    where = folder if tokenizer_files.is_in(folder) else home  # an adapter may have its own
    model_companions = companions.read(home, where, saved_config)
    if where != home and not model_companions.names_class:
        raise UserError(
            f"{folder} has a tokenizer without a tokenizer_config.json that names its "
            f"tokenizer_class, so transformers would read the tokenizer of {home}; name the class, "
            "or delete the adapter's tokenizer"
        )
    return tokenizer_files.read(where, model_companions), model_companions


def _model(folder: Path, home: Path, saved_config: Mapping[str, Any], dropout: float | None) -> GPT:
    """Return the model of `home`, with the adapter of `folder` added if there is one.

    Args:
        saved_config: the content of the model's config.json.
    """
    where = str(home / "config.json")
    config = read_config(saved_config, where)
    if dropout is None:
        warn_of_dropout(saved_config, where)
    else:
        config = replace(config, dropout=dropout)
    with contextlib.ExitStack() as stack:
        weights = open_weights(home, stack)
        if adapter.is_adapter(folder):
            names = fit(config, weights.shapes, str(home))
            transposed = {name for name, rule in rules(config).items() if rule.transposed}
            weights = adapter.add(folder, weights, names, transposed, stack, home)
        return build(config, weights, str(home))


def _config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json."""
    path = folder / "config.json"
    return parse_json(read_file(path, MAX_CONFIG), str(path))


def _base_name(folder: Path) -> str | Path | None:
    """Return the base model: `folder` itself, or the one that its adapter names; None: no name."""
    if (folder / "config.json").is_file() or not adapter.is_adapter(folder):
        return folder
    return adapter.base_name(folder)


def _is_same(a: str | Path | None, b: str | Path) -> bool:
    """Return whether two paths or names on the hub mean the same model."""
    if a and os.path.isdir(a) and os.path.isdir(b):
        return os.path.samefile(a, b)
    return HUB_NAMES.get(str(a), str(a)) == HUB_NAMES.get(str(b), str(b))


def _home(folder: Path) -> Path:
    """Return the folder of the base model: `folder` itself, or the one that its adapter names."""
    name = _base_name(folder)
    if name == folder:
        return folder
    if not name:
        raise UserError(
            f"{folder / adapter.CONFIG}: base_model_name_or_path is {name!r}; write the path or "
            "the name of the base model there"
        )
    try:
        home = fetch(name)
    except UserError as error:
        raise UserError(f"{folder} is an adapter without its base model: {error}") from None
    if adapter.is_adapter(home):
        raise UserError(f"{folder} has the base model {name}, an adapter too; merge that one first")
    return home


def check_size(tokenizer: Tokenizer, config: GPTConfig, where: str) -> None:
    """Raise `UserError` if a token has no row in the embedding."""
    if tokenizer.n_vocab > config.vocab_size:
        end = ", the end of a text too" * (tokenizer.end_of_text >= config.vocab_size)
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.n_vocab:,} tokens, but the model's vocab_size "
            f"is {config.vocab_size:,}: the last tokens have no row in the embedding{end}; add "
            "rows with model.resize_token_embeddings(len(tokenizer)) of transformers, or restore "
            "the tokenizer"
        )


# ---- names ----


@dataclass(frozen=True)
class Rule:
    """How one tensor of Hugging Face is made of tensors of minigen."""

    minigen_names: tuple[str, ...]  # of the tensors that it stacks
    transposed: bool


def rules(config: GPTConfig) -> dict[str, Rule]:
    """Return Hugging Face's name of each tensor of a model -> its rule."""
    shapes = parameter_shapes(config)
    rule_of = {}
    for line in filter(str.strip, NAMES[model_type(config)].splitlines()):
        hugging_face_name, first, *more = line.split()
        stem = first.rpartition(".")[0]
        for block in map(str, range(config.n_layer if "{}" in hugging_face_name else 1)):
            for kind in (".weight", ".bias"):
                names = [
                    name.replace("{}", block) + kind for name in (first, *(stem + m for m in more))
                ]
                if names[0] in shapes:
                    name = hugging_face_name.removesuffix("^T").replace("{}", block) + kind
                    rule_of[name] = Rule(tuple(names), hugging_face_name.endswith("^T"))
    return rule_of


def to_hugging_face(model: GPT) -> dict[str, Tensor]:
    """Return the model's weights by Hugging Face's names; a tied head is left out.

    The tensors share the model's memory, except where several are stacked in one matrix.
    """
    state = model.state_dict()
    tensors = {}
    for name, rule in rules(model.config).items():
        parts = [state[part].detach() for part in rule.minigen_names]
        stacked = torch.cat(parts) if len(parts) > 1 else parts[0]
        tensors[name] = stacked.t() if rule.transposed else stacked
    zeros = {n: model.embedding.weight.new_zeros(shape) for n, shape in zero_biases(model.config)}
    return tensors | zeros


def zero_biases(config: GPTConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Return Hugging Face's names and shapes of the biases that a GPT-2 without biases lacks.

    transformers' GPT-2 always adds biases; in a model without them, they are zero.
    """
    if config.bias or model_type(config) != "gpt2":
        return []
    return [
        (name.replace(".weight", ".bias"), shape[-1:])
        for name, shape in hugging_face_shapes(config).items()
        if not name.startswith(("transformer.w", "lm_head"))
    ]


def build(config: GPTConfig, weights: Weights, where: str) -> GPT:
    """Return a model made of `weights`, in their number format.

    The model is laid out on the meta device, without memory. Then one tensor after another is read
    and becomes a parameter, so the peak of memory is the weights and the largest tensor. If the
    number formats differ, all parameters get a format that represents each number exactly.

    Raises `UserError` that names each tensor that does not fit `config`.
    """

    def read(name: str) -> Tensor:
        return to_float(weights.read(names[name]), name, where)

    names = fit(config, weights.shapes, where)
    config = config_of_weights(config, names, read)
    names = fit(config, weights.shapes, where)
    check_buffers(config, names, weights, where)
    model, shapes, formats = empty_model(config), parameter_shapes(config), set()
    for name, rule in rules(config).items():
        tensor = read(name)
        formats.add(tensor.dtype)
        stacked = tensor.t() if rule.transposed else tensor
        sizes = [shapes[minigen_name][0] for minigen_name in rule.minigen_names]
        parts = torch.split(stacked, sizes)
        for minigen_name, part in zip(rule.minigen_names, parts, strict=True):
            module, _, kind = minigen_name.rpartition(".")
            parameter = torch.nn.Parameter(part.contiguous())
            setattr(model.get_submodule(module), kind, parameter)
    return model.to(functools.reduce(torch.promote_types, formats)).eval()


def fit(config: GPTConfig, shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, str]:
    """Map Hugging Face's name of each tensor to its name in a file.

    The file must have the tensors of `rules`. It may also have tensors that repeat what the config
    says: a tied head, biases of zero, and BUFFERS; `build` checks the values of these tensors.

    Args:
        shapes: the shape of each tensor, by its name in the file.
        where: the folder or the file, for an error.

    Raises `UserError` on a missing, an unexpected or a mis-shaped tensor.
    """
    if config.n_layer > len(shapes):  # so that a huge n_layer costs no time
        raise UserError(
            f"{where}: {len(shapes)} tensors cannot be {config.n_layer} layers; restore "
            "config.json or the weights"
        )
    wanted = hugging_face_shapes(config)
    embedding = next(iter(wanted))
    spare = dict(zero_biases(config)) | ({HEAD: wanted[embedding]} if config.tie_embeddings else {})
    known = wanted.keys() | spare.keys()
    names: dict[str, str] = {}
    complaints = []
    for name in shapes:
        # Files of a model without its head leave out the prefix "transformer." or "model.".
        full_name = _with_prefix(name, known)
        if full_name in names:
            complaints.append(f"{plain(name)} and {plain(names[full_name])} are the same tensor")
        names[full_name] = name
    if config.tie_embeddings and HEAD in names and embedding not in names:
        names[embedding] = names.pop(HEAD)  # the tied matrix has two names
    for name, shape in (wanted | {n: s for n, s in spare.items() if n in names}).items():
        if name not in names:
            complaints.append(f"{name} is missing")
        elif shapes[names[name]] != shape:
            complaints.append(f"{name} is {plain(shapes[names[name]])}, not {shape}")
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


def config_of_weights(
    config: GPTConfig, names: Collection[str], read: Callable[[str], Tensor]
) -> GPTConfig:
    """Return the config with an untied head and with biases, if the weights have them.

    transformers computes with them even if config.json says that the head is tied, or
    `"bias": false`, a field that only minigen writes.
    """
    if config.tie_embeddings and HEAD in names:
        embedding = read(next(iter(rules(config))))
        config = replace(config, tie_embeddings=bool((read(HEAD) == embedding).all()))
    if any(name in names and read(name).any() for name, _ in zero_biases(config)):
        config = replace(config, bias=True)
    return config


def check_buffers(
    config: GPTConfig, names: Mapping[str, str], weights: Weights, where: str
) -> None:
    """Raise `UserError` if a tensor of BUFFERS differs from the one that minigen computes."""
    for name, in_file in names.items():
        if not BUFFERS.search(name):
            continue
        saved = weights.read(in_file).squeeze()
        if name.endswith("inv_freq"):
            expected = rope_frequencies(config, torch.device("cpu")).to(saved.dtype).float()
            # A format of two bytes has a precision of about 1e-2.
            agrees = saved.shape == expected.shape and torch.allclose(
                saved.float(), expected, rtol=1e-2 if saved.dtype.itemsize < 4 else 1e-5, atol=1e-7
            )
            computed = f"rotary positions with theta {config.rope_theta:g}"
        elif name.endswith("masked_bias"):
            agrees = saved.ndim == 0 and saved.item() <= -1e3  # its exponential is zero
            computed = "-10000"
        else:
            ones = torch.ones(saved.shape, dtype=torch.bool)
            agrees = saved.ndim in (0, 2) and torch.equal(
                saved.bool(), ones.tril() if saved.ndim else ones
            )
            computed = "the mask of later tokens"
        if not agrees:
            raise UserError(
                f"{where}: {plain(name)} is not {computed}, which minigen computes; delete the "
                "tensor if it has no effect"
            )


def hugging_face_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model by Hugging Face's names, the embedding first."""
    shapes, shape_of = parameter_shapes(config), {}
    for name, rule in rules(config).items():
        first, *more = (shapes[part] for part in rule.minigen_names)
        stacked = (first[0] + sum(shape[0] for shape in more), *first[1:])
        shape_of[name] = stacked[::-1] if rule.transposed else stacked
    return shape_of


@functools.lru_cache(maxsize=4)
def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model by minigen's names."""
    return {name: tuple(p.shape) for name, p in empty_model(config).state_dict().items()}


def empty_model(config: GPTConfig) -> GPT:
    """Return a model on the meta device: its parameters have shapes but no memory and no values."""
    with torch.device("meta"), _NoInitialisation():
        return GPT(config)


class _NoInitialisation(TorchFunctionMode):
    """Skip the random initialisation of parameters, which are loaded later."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        initialises = getattr(func, "__module__", None) == "torch.nn.init"
        return None if initialises else func(*args, **(kwargs or {}))


# ---- files ----


def is_hub_name(name: str) -> bool:
    """Return whether a model on huggingface.co can have this name; the server is not asked."""
    return name in HUB_NAMES or bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name))


def fetch(source: str | Path) -> Path:
    """Return the folder that `source` names: a path, or a model on the hub, downloaded once."""
    folder, name = Path(source), str(source)
    if os.path.isdir(folder):
        return folder
    if not is_hub_name(name):
        raise UserError(
            f"{name} is neither a folder nor the name of a model such as gpt2 or owner/name"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"there is no folder {name}; to get it from huggingface.co, first: {install('hf')}"
        ) from None
    repository = HUB_NAMES.get(name, name)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(HUB_FILES)))
        if not any(folder.glob("*.safetensors")):  # an old model
            snapshot_download(repository, allow_patterns=["*.bin", "*.bin.index.json"])
    except Exception as error:  # no connection, no such model, no permission, no space, ...
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"cannot get {repository} from huggingface.co ({reason[0][:120]}); "
            "check the name, go online once, or give a folder"
        ) from None
    return folder


def tokenizer_config(block_size: int, end: str = END_OF_TEXT) -> dict[str, Any]:
    """Return the content of a tokenizer_config.json for a model that minigen trained.

    Args:
        block_size: the longest text, in tokens.
        end: the token that separates documents.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }

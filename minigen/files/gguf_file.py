"""Write a model as one GGUF file, the format of llama.cpp and of the programs around it.

A GGUF file holds everything that a program needs to continue a text:

    general.*                 the architecture, and the number format of most weights
    gpt2.*, llama.*, qwen3.*  the shape of the model and its constants
    tokenizer.ggml.*          the tokens, their merges, and how a text is split before the merges
    tokenizer.chat_template   how messages become a text, for a model that answers messages
    tensors                   the weights, by the names in NAMES

The file only names an architecture; llama.cpp computes each in code of its own. The three that
`config_file.model_type` knows have the same names in GGUF. A tokenizer of Hugging Face is refused:
its way to split a text would have to be one that llama.cpp has, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minigen.data.template import ANSWERS
from minigen.errors import UserError
from minigen.files.chat_template import ChatTemplate, plain_source
from minigen.files.config_file import model_type
from minigen.files.safetensors_file import plain
from minigen.files.tokenizer_json import name_of_token
from minigen.model import GPT, GPTConfig
from minigen.sampling import Sampling
from minigen.system.disk import write_atomically
from minigen.system.shell import install
from minigen.tokenizer import END_OF_TEXT, Tokenizer, next_merge

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

# GGUF's name and minigen's; {} is the number of the block. Each line stands for a .weight and, if
# the model has one, a .bias. GPT-2 in llama.cpp has queries, keys and values in one matrix.
NAMES = {
    "gpt2": """
        token_embd          embedding
        position_embd       position
        blk.{}.attn_norm    blocks.{}.attention_norm
        blk.{}.attn_qkv     blocks.{}.attention.query .key .value
        blk.{}.attn_output  blocks.{}.attention.output
        blk.{}.ffn_norm     blocks.{}.mlp_norm
        blk.{}.ffn_up       blocks.{}.mlp.up
        blk.{}.ffn_down     blocks.{}.mlp.down
        output_norm         norm
        output              lm_head
        """,
    "llama": """
        token_embd          embedding
        blk.{}.attn_norm    blocks.{}.attention_norm
        blk.{}.attn_q       blocks.{}.attention.query
        blk.{}.attn_k       blocks.{}.attention.key
        blk.{}.attn_v       blocks.{}.attention.value
        blk.{}.attn_output  blocks.{}.attention.output
        blk.{}.ffn_norm     blocks.{}.mlp_norm
        blk.{}.ffn_gate     blocks.{}.mlp.gate
        blk.{}.ffn_up       blocks.{}.mlp.up
        blk.{}.ffn_down     blocks.{}.mlp.down
        output_norm         norm
        output              lm_head
        """,
}
NAMES["qwen3"] = (
    NAMES["llama"]
    + """
        blk.{}.attn_q_norm  blocks.{}.attention.query_norm
        blk.{}.attn_k_norm  blocks.{}.attention.key_norm
        """
)

# Number format -> GGUF's names for it: of a tensor, and of a file in which most tensors have it.
FORMATS = {
    "float32": ("F32", "ALL_F32"),
    "float16": ("F16", "MOSTLY_F16"),
    "bfloat16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),  # numbers of 8 bits; each 32 of a row share a factor
}

# llama.cpp splits a text into words before it merges bytes, and has a list of ways to do so. This
# one is `tokenizer.PATTERN`, in the code that "gpt-2" names, too; but with "gpt-2", llama.cpp would
# drop the space of " ?" and " !" from a text that it decodes.
PRE_TOKENIZER = "trillion"


def write(
    path: Path,
    model: GPT,
    tokenizer: Tokenizer,
    dtype: str | None = None,
    template: ChatTemplate | None = None,
) -> None:
    """Write a model and its tokenizer to a new GGUF file, and a Modelfile for Ollama beside it.

    Args:
        path: the file; the Modelfile has the same name, with the suffix .Modelfile.
        dtype: one of FORMATS for the matrices; None: as they are saved. Vectors and the positions
            of GPT-2 are always float32, as llama.cpp has them, and so is in q8_0 a matrix whose
            rows are no multiple of 32.
        template: how messages become a text; None: the model continues a text.

    Raises `UserError` if the package `gguf` is not installed, if the file exists or cannot be
    written, or if llama.cpp would compute another model or other token ids.
    """
    modelfile_path = path.with_suffix(".Modelfile")
    for file in (path, modelfile_path):
        if file.exists() or file.is_symlink():
            raise UserError(f"{file} exists already; name a new file")
    try:
        import gguf
    except ImportError:
        raise UserError(f"to write {path}, first: {install('gguf')}") from None
    check(tokenizer, str(path))
    architecture = model_type(model.config)
    dtype = dtype or str(next(model.parameters()).dtype).removeprefix("torch.")
    tensor_format, file_format = FORMATS[dtype]
    with write_atomically(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        writer.add_file_type(gguf.LlamaFileType[file_format])
        add_config(writer, model.config)
        add_tokenizer(writer, tokenizer, model.config.vocab_size)
        if template is not None:
            writer.add_chat_template(template.source)
        for name, tensor in tensors(model).items():
            add_tensor(writer, name, tensor, gguf.GGMLQuantizationType[tensor_format], path)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with write_atomically(modelfile_path) as temporary:
        is_plain = template is not None and template.source == plain_source(tokenizer)
        content = modelfile(path, model.config, PLAIN_IN_GO if is_plain else "{{ .Prompt }}")
        temporary.write_text(content, encoding="utf-8")


def check(tokenizer: Tokenizer, where: str) -> None:
    """Raise `UserError` if llama.cpp cannot compute the tokenizer."""
    if tokenizer.kind == "hub":
        raise UserError(
            f"cannot write {where}: the tokenizer is one of Hugging Face, whose split of a text "
            "GGUF may not have; export a folder, and let llama.cpp's convert_hf_to_gguf.py read it"
        )
    if others := sorted(tokenizer.stop_ids - {tokenizer.end_of_text}):
        names = " ".join(f"'{plain(tokenizer.decode([id]))}'" for id in others)
        raise UserError(
            f"cannot write {where}: besides {END_OF_TEXT}, {names} ends a text, and GGUF has no "
            "place for it; name only one eos_token_id in generation_config.json"
        )


# ---- the model ----


def add_config(writer: GGUFWriter, config: GPTConfig) -> None:
    """Add the shape of a model and its constants."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_ffn)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    if config.norm == "layernorm":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.position == "rotary":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)


def tensors(model: GPT) -> dict[str, Tensor]:
    """Return the weights by their names in GGUF; a tied head is left out."""
    config, state = model.config, model.state_dict()
    architecture = model_type(config)
    result = {}
    for line in filter(str.strip, NAMES[architecture].splitlines()):
        gguf_name, first, *more = line.split()
        stem = first.rpartition(".")[0]
        for block in map(str, range(config.n_layer if "{}" in gguf_name else 1)):
            parts = [name.replace("{}", block) for name in (first, *(stem + m for m in more))]
            name = gguf_name.replace("{}", block)
            if parts[0] + ".weight" not in state:  # the head is tied
                continue
            weight = torch.cat([state[part + ".weight"] for part in parts])
            if architecture == "llama" and name.endswith(("attn_q", "attn_k")):
                weight = interleave_pairs(weight, config.head_dim)
            result[name + ".weight"] = weight
            if parts[0] + ".bias" in state:
                result[name + ".bias"] = torch.cat([state[part + ".bias"] for part in parts])
            elif architecture == "gpt2" and not name.endswith("_embd") and name != "output":
                result[name + ".bias"] = weight.new_zeros(len(weight))  # it requires each bias
    return result


def interleave_pairs(matrix: Tensor, head_dim: int) -> Tensor:
    """Move the rows of each head, so that the two that rotary positions turn are neighbours.

    minigen and Qwen3 turn the pairs (i, i + D/2). Llama in llama.cpp turns (2i, 2i + 1). Scores are
    sums over a head, so the order in a head changes nothing if queries and keys have the same.
    """
    by_pair = matrix.view(-1, 2, head_dim // 2, matrix.shape[1])  # (H, 2, D/2, C)
    return by_pair.transpose(1, 2).reshape(matrix.shape)


def add_tensor(
    writer: GGUFWriter, name: str, tensor: Tensor, form: GGMLQuantizationType, path: Path
) -> None:
    """Add a tensor in a number format, or in float32 where llama.cpp needs that.

    Raises `UserError` if a number is too large for the format.
    """
    import gguf
    import numpy as np

    numbers = tensor.detach().float().cpu().numpy()
    n_block = gguf.GGML_QUANT_SIZES[form][0]  # the numbers of a row that share a factor
    if tensor.ndim == 1 or name.startswith("position_embd") or tensor.shape[-1] % n_block:
        form = gguf.GGMLQuantizationType.F32
    with np.errstate(over="ignore"):
        data = gguf.quantize(numbers, form)
        if not np.isfinite(gguf.dequantize(data, form)).all():
            raise UserError(
                f"cannot write {path}: a number of {name} is too large for {form.name}; "
                "give --dtype float32"
            )
    writer.add_tensor(name, data, raw_dtype=form)


# ---- the tokenizer ----


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Add the tokens and their merges: each kind of tokenizer as byte-pair encoding."""
    import gguf

    n_spare = vocab_size - tokenizer.n_vocab  # rows of the embedding without a token
    ordinary = [name_of_token(token) for token in tokenizer.tokens[: tokenizer.end_of_text]]
    controls = [END_OF_TEXT, *tokenizer.special_tokens]  # whole tokens, with no merges
    spare = [f"[PAD{id}]" for id in range(tokenizer.n_vocab, vocab_size)]
    types = [gguf.TokenType.NORMAL] * len(ordinary) + [gguf.TokenType.CONTROL] * len(controls)
    writer.add_tokenizer_model("gpt2")  # byte-pair encoding
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([*ordinary, *controls, *spare])
    writer.add_token_types([*types, *[gguf.TokenType.UNUSED] * n_spare])
    writer.add_token_merges([" ".join(map(name_of_token, pair)) for pair in merges(tokenizer)])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_eot_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(not tokenizer.bare)


def merges(tokenizer: Tokenizer) -> list[tuple[bytes, bytes]]:
    """Return the merges, in their order, by which llama.cpp makes each token of its bytes.

    Pieces that together become a token were merged as they would be if they stood alone. So each
    token has one merge, the last step from its bytes (test_each_token_is_made_of_its_bytes,
    test_the_merges_give_minigens_ids).
    """
    tokens = tokenizer.tokens[: tokenizer.end_of_text]
    if tokenizer.kind == "char":
        # A character is merged from its bytes, one after another. In UTF-8 no character is the
        # beginning of another one, so no merge crosses two characters.
        steps = ((token[:i], token[i : i + 1]) for token in tokens for i in range(1, len(token)))
        pairs = list(dict.fromkeys(steps))
    else:
        id_of = {token: id for id, token in enumerate(tokens)}
        pairs = [last_merge(token, id_of) for token in tokens if len(token) > 1]
    # llama.cpp requires merges. The byte 0xFF is in no UTF-8, so this merge never happens.
    return pairs or [(b"\xff", b"\xff")]


def last_merge(token: bytes, id_of: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two pieces of which byte-pair encoding makes a token.

    Raises `UserError` if merges do not lead to the token, which minigen makes only of a whole word.
    """
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        i = next_merge(pieces, id_of)
        if i is None:
            raise UserError(
                f"no merges lead to the token {plain(token)}, without which llama.cpp spells "
                "texts differently; train a new tokenizer"
            )
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces[0], pieces[1]


# ---- the Modelfile ----

# `render` of minigen/data/template.py. Ollama puts END_OF_TEXT before it.
PLAIN_IN_GO = (
    "{{ range .Messages }}{{ .Role }}:\n{{ .Content }}"
    f'{{{{ if eq .Role "{ANSWERS}" }}}}{END_OF_TEXT}{{{{ else }}}}\n'
    f"{{{{ end }}}}{{{{ end }}}}{ANSWERS}:\n"
)


def modelfile(path: Path, config: GPTConfig, template: str = "{{ .Prompt }}") -> str:
    """Return a Modelfile: how Ollama continues a prompt, with the defaults of sample.py.

    Args:
        template: in Go's language for templates; by default a prompt is continued as it is.
    """
    defaults = Sampling()
    parameters: dict[str, Any] = {
        "stop": f'"{END_OF_TEXT}"',
        "temperature": defaults.temperature,
        "top_k": defaults.top_k or 0,  # 0: all tokens
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
        "repeat_penalty": defaults.repetition_penalty,
        "num_ctx": config.block_size,
    }
    lines = [f"FROM ./{path.name}", f'TEMPLATE """{template}"""']
    return "\n".join([*lines, *(f"PARAMETER {k} {v}" for k, v in parameters.items())]) + "\n"

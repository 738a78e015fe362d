"""A GGUF file has the model's weights, constants and tokenizer, and llama.cpp computes the same.

The file is read back with the package `gguf`, and its merges are applied by a few lines of Python.
The tests with llama.cpp itself are skipped where llama-cpp-python is not installed, as in CI:
building it takes minutes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import regex
import torch
from absent import absent
from gpt2_vocabulary import use_gpt2_cache
from models import random_model, varied_model
from torch import Tensor
from torch.nn import functional as F

from minigen.errors import UserError
from minigen.files import chat_template, checkpoint, export, gguf_file, huggingface, lora
from minigen.files.companions import Companions
from minigen.files.config_file import model_type
from minigen.files.hub_tokenizer import HubTokenizer
from minigen.files.tokenizer_json import token_of_name
from minigen.model import GPT, GPTConfig, apply_rope, rope_cos_sin
from minigen.sampling import Sampling
from minigen.tokenizer import BYTES, END_OF_TEXT, Tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8") + (
    "It's they'll we've I'm you'd 'S don't ?\r\n\r\n\ttabs\t\t and   runs of   blanks !  \n\n x \n"
    "안녕하세요 漢字かな Ünïcödé naïve हिन्दी ½ ² Ⅷ ١٢٣ 🙂🇰🇷 a\u200bb e\u0301 aaaaaaa 000 1a2b\n"
)
BLOCK = 160

# Two architectures, and one without QK-norm, with each kind of tokenizer and each switch.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2 bpe": ("gpt2", "bpe", {}),
    "gpt2 bpe without biases": ("gpt2", "bpe", {"bias": False}),
    "gpt2 byte, own head": ("gpt2", "byte", {"tie_embeddings": False}),
    "gpt2 char": ("gpt2", "char", {"norm_eps": 1e-3}),
    "gpt2 of OpenAI's tokens": ("gpt2", "gpt2", {}),
    "modern bpe": ("modern", "bpe", {}),
    "modern bpe, fewer keys": ("modern", "bpe", {"n_kv_head": 2, "tie_embeddings": False}),
    "modern byte, narrow heads": ("modern", "byte", {"head_dim": 8, "rope_theta": 500.0}),
    "modern char": ("modern", "char", {"tie_embeddings": False}),
    "modern of OpenAI's tokens": ("modern", "gpt2", {"n_embd": 16}),
    "llama bpe": ("modern", "bpe", {"qk_norm": False, "n_kv_head": 2}),
    "llama byte, narrow heads": ("modern", "byte", {"qk_norm": False, "head_dim": 16}),
}


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    return train_tokenizer(kind, [TEXT], vocab_size=400)


@dataclass(frozen=True)
class Exported:
    """A random model, its tokenizer, and the GGUF file that the command wrote."""

    model: GPT
    tokenizer: Tokenizer
    path: Path


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return each of MODELS, saved as a run and exported by the command line."""
    architecture, kind, switches = MODELS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        if kind == "gpt2":
            use_gpt2_cache(patch)
        tokenizer = tokenizer_of(kind)
    sizes = {"block_size": BLOCK, "n_layer": 2, "n_head": 4, "n_embd": 32} | switches
    model = random_model(getattr(GPTConfig, architecture)(tokenizer.n_vocab, **sizes))
    folder = tmp_path_factory.mktemp("gguf")
    export.main([str(save(folder / "run", model, tokenizer)), str(folder / "model.gguf")])
    return Exported(model, tokenizer, folder / "model.gguf")


def save(run: Path, model: GPT, tokenizer: Tokenizer) -> Path:
    checkpoint.save(run, model, tokenizer, {}, {"step": 1})
    return run


@functools.cache
def read(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


@functools.cache
def fields(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in read(path).fields.items()}


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in read(path).tensors}


# ---- what always runs ----


def test_the_file_has_the_weights(exported: Exported) -> None:
    """Each tensor of Hugging Face's folder is in the file, by the name in gguf's own table."""
    config, found = exported.model.config, tensors(exported.path)
    architecture = gguf.MODEL_ARCH[model_type(config).upper()]
    names = gguf.get_tensor_name_map(architecture, config.n_layer)
    for hf_name, tensor in huggingface.to_hugging_face(exported.model).items():
        expected = tensor.numpy()
        if huggingface.rules(config).get(hf_name, huggingface.Rule((), False)).transposed:
            expected = expected.T
        if architecture == gguf.MODEL_ARCH.LLAMA and hf_name.endswith(
            ("q_proj.weight", "k_proj.weight")
        ):
            D = config.head_dim  # rows 0, D/2, 1, D/2 + 1, ... of each head
            order = [
                h + i
                for h in range(0, len(expected), D)
                for i in np.arange(D).reshape(2, -1).T.flat
            ]
            expected = expected[order]
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None
        np.testing.assert_array_equal(found.pop(gguf_name), expected, err_msg=gguf_name)
    assert not found


def test_the_file_has_the_constants(exported: Exported) -> None:
    """Shape, epsilon and rotary base are those of the model."""
    config, found = exported.model.config, fields(exported.path)
    kind = model_type(config)
    assert found["general.architecture"] == kind
    assert found["general.file_type"] == gguf.LlamaFileType.ALL_F32
    expected = {
        "vocab_size": config.vocab_size, "context_length": BLOCK, "embedding_length": config.n_embd,
        "block_count": config.n_layer, "feed_forward_length": config.n_ffn,
        "attention.head_count": config.n_head, "attention.head_count_kv": config.n_kv_head,
        "attention.key_length": config.head_dim, "attention.value_length": config.head_dim,
    }  # fmt: skip
    if kind == "gpt2":
        expected["attention.layer_norm_epsilon"] = pytest.approx(config.norm_eps)
    else:
        expected["attention.layer_norm_rms_epsilon"] = pytest.approx(config.norm_eps)
        expected["rope.dimension_count"] = config.head_dim
        expected["rope.freq_base"] = pytest.approx(config.rope_theta)
    assert {
        k.removeprefix(f"{kind}."): v for k, v in found.items() if k.startswith(kind)
    } == expected


def test_llamas_order_of_rows_keeps_the_scores() -> None:
    """Neighbours turned as llama.cpp's Llama does give the scores of pairs that are D/2 apart."""
    config = GPTConfig.modern(5, n_head=2, n_embd=8, head_dim=6)
    D, T = config.head_dim, 7
    torch.manual_seed(1)
    x, matrices = torch.randn(T, 8), torch.randn(2, 2 * D, 8)
    cos, sin = rope_cos_sin(torch.arange(T)[None], config)

    def turned(matrix: Tensor) -> Tensor:
        return apply_rope((x @ matrix.T).view(1, T, 2, D).transpose(1, 2), cos, sin)

    def turned_neighbours(matrix: Tensor) -> Tensor:
        pairs = (x @ matrix.T).view(1, T, 2, D // 2, 2).transpose(1, 2)
        angle = torch.complex(cos[..., : D // 2], sin[..., : D // 2])
        return torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * angle).flatten(3)

    q, k = map(turned, matrices)
    other_q, other_k = (turned_neighbours(gguf_file.interleave_pairs(m, D)) for m in matrices)
    torch.testing.assert_close(other_q @ other_k.mT, q @ k.mT)


class Merges:
    """llama.cpp's byte-pair encoding, slowly: what a program does with the fields of the file."""

    CUT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.id_of = {token: id for id, token in enumerate(found["tokenizer.ggml.tokens"])}
        pairs = (merge.split(" ") for merge in found["tokenizer.ggml.merges"])
        self.rank_of = {(a, b): rank for rank, (a, b) in enumerate(pairs)}

    def word(self, content: bytes) -> list[int]:
        """Return the ids of a word; a piece that is no token is left out."""
        pieces = [BYTE_NAMES[byte] for byte in content]
        while True:
            ranked = [
                (self.rank_of[pair], i)
                for i, pair in enumerate(itertools.pairwise(pieces))
                if pair in self.rank_of
            ]
            if not ranked:
                return [self.id_of[piece] for piece in pieces if piece in self.id_of]
            i = min(ranked)[1]
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]

    def encode(self, text: str) -> list[int]:
        return [id for word in regex.findall(self.CUT, text) for id in self.word(word.encode())]


BYTE_NAMES = {
    token_of_name(c)[0]: c for c in map(chr, [*range(33, 127), *range(161, 324)]) if c != "\xad"
}


def texts(tokenizer: Tokenizer, n_random: int) -> list[str]:
    """Return random strings of the tokenizer's characters, and 200 pieces of a real text."""
    rng = random.Random(1)
    letters = sorted(set(TEXT)) if tokenizer.kind == "char" else [*sorted(set(TEXT)), *"ﬁ€\x00\x85"]
    if tokenizer.kind != "char":
        letters += ["'ll", "  ", "\n\n", " the", "é", "한국", "ab" * 20, "12"]
    strings = ["".join(rng.choices(letters, k=rng.randrange(1, 40))) for _ in range(n_random)]
    starts = [rng.randrange(len(TEXT) - 200) for _ in range(200)]
    return [*strings, *(TEXT[start : start + rng.randrange(1, 200)] for start in starts)]


def test_the_merges_give_minigens_ids(exported: Exported) -> None:
    """The tokens and merges in the file spell random and real texts as minigen does."""
    tokenizer, merges = exported.tokenizer, Merges(fields(exported.path))
    for text in texts(tokenizer, 300):
        assert merges.encode(text) == tokenizer.encode(text), text


def test_each_token_is_made_of_its_bytes(exported: Exported) -> None:
    """The merges in the file make each token of its bytes, and the special ids end and begin."""
    tokenizer, found = exported.tokenizer, fields(exported.path)
    merges, end = Merges(found), tokenizer.end_of_text
    for id, token in enumerate(tokenizer.tokens[:-1]):
        assert merges.word(token) == [id], token
    assert found["tokenizer.ggml.model"] == "gpt2" and found["tokenizer.ggml.pre"] == "trillion"
    for key in ("bos", "eos", "eot"):
        assert found[f"tokenizer.ggml.{key}_token_id"] == end
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.tokens"][end] == END_OF_TEXT
    assert found["tokenizer.ggml.token_type"] == [gguf.TokenType.NORMAL] * end + [
        gguf.TokenType.CONTROL
    ]


def byte_model(**switches: Any) -> GPT:
    sizes = {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 32} | switches
    return random_model(GPTConfig.modern(**({"vocab_size": 257} | sizes)))


def test_a_bare_tokenizer_and_spare_rows(tmp_path: Path) -> None:
    """A bare tokenizer adds no first token, and a row without a token has an unused one."""
    tokenizer = Tokenizer("byte", tokenizer_of("byte").tokens, bare=True)
    run = save(tmp_path / "run", byte_model(vocab_size=260), tokenizer)
    found = fields(export.export_gguf(run, tmp_path / "model.gguf"))
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.tokens"][256:] == [END_OF_TEXT, "[PAD257]", "[PAD258]", "[PAD259]"]
    assert found["tokenizer.ggml.token_type"][257:] == [gguf.TokenType.UNUSED] * 3


def test_a_run_on_messages_takes_its_chat_template_along(tmp_path: Path) -> None:
    """A program asks the model as it was trained; a model that only continues has no template."""
    tokenizer = tokenizer_of("byte")
    companions = chat_template.with_template(None, tokenizer)
    run, key = tmp_path / "run", "tokenizer.chat_template"
    checkpoint.save(run, byte_model(), tokenizer, {}, {"step": 1}, companions=companions)
    found = fields(export.export_gguf(run, tmp_path / "model.gguf"))
    assert found[key] == chat_template.plain_source(tokenizer)
    plain = save(tmp_path / "plain", byte_model(), tokenizer)
    assert key not in fields(export.export_gguf(plain, tmp_path / "plain.gguf"))


SPECIAL = ("<|user|>", "<|end|>")


def special_model(folder: Path) -> tuple[Tokenizer, Path]:
    """Return a tokenizer with special tokens of one's own, and the GGUF file of a model."""
    tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=300, special_tokens=SPECIAL)
    run = save(folder / "run", byte_model(vocab_size=300), tokenizer)
    return tokenizer, export.export_gguf(run, folder / "model.gguf")


def test_special_tokens_are_control_tokens(tmp_path: Path) -> None:
    """They follow END_OF_TEXT, and no merge leads to one."""
    tokenizer, path = special_model(tmp_path)
    found = fields(path)
    assert found["tokenizer.ggml.tokens"][tokenizer.end_of_text :] == [END_OF_TEXT, *SPECIAL]
    types = found["tokenizer.ggml.token_type"]
    assert types[tokenizer.end_of_text :] == [gguf.TokenType.CONTROL] * 3
    assert len(found["tokenizer.ggml.merges"]) == 300 - 256 - 3


def test_llama_cpp_reads_special_tokens_on_request_only(tmp_path: Path, llama: Any) -> None:
    """As `Tokenizer.encode` does: in trusted text they are tokens, in other text letters."""
    tokenizer, path = special_model(tmp_path)
    other = llama(path, vocab_only=True)
    for special in (False, True):
        text = "<|user|>Hello, sun<|end|> <|user|"
        ids = other.tokenize(text.encode(), add_bos=False, special=special)
        assert ids == tokenizer.encode(text, special)


def test_number_formats(tmp_path: Path) -> None:
    """Matrices have the format that is asked for, as near as it allows; vectors are float32."""
    model = byte_model(n_ffn=48, head_dim=16)  # rows of ffn_down: no multiple of 32
    run = save(tmp_path / "run", model, tokenizer_of("byte"))
    formats = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
    expected = tensors(export.export_gguf(run, tmp_path / "saved.gguf"))
    for dtype, form in formats.items():
        path = tmp_path / f"{dtype}.gguf"
        export.main([str(run), str(path), "--dtype", dtype])
        for tensor in read(path).tensors:
            odd = dtype == "q8_0" and tensor.name == "blk.0.ffn_down.weight"
            vector = len(tensor.shape) == 1
            assert tensor.tensor_type.name == ("F32" if vector or odd else form), tensor.name
            numbers, wanted = (
                gguf.dequantize(tensor.data, tensor.tensor_type),
                expected[tensor.name],
            )
            step = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 254}[
                tensor.tensor_type.name
            ]
            assert np.abs(numbers - wanted).max() <= 1.01 * step * np.abs(wanted).max()
    half = save(tmp_path / "half", model.to(torch.bfloat16), tokenizer_of("byte"))
    as_saved = read(export.export_gguf(half, tmp_path / "as saved.gguf"))
    assert {t.tensor_type.name for t in as_saved.tensors if len(t.shape) == 2} == {"BF16"}


def test_positions_of_gpt2_stay_float32(tmp_path: Path) -> None:
    """The positions of GPT-2 are float32 in each format, as llama.cpp keeps them."""
    model = random_model(GPTConfig.gpt2(257, 8, 1, 2, 32))
    run = save(tmp_path / "run", model, tokenizer_of("byte"))
    for dtype in ("q8_0", "bfloat16"):
        by_name = {
            t.name: t
            for t in read(export.export_gguf(run, tmp_path / f"{dtype}.gguf", dtype)).tensors
        }
        assert by_name["position_embd.weight"].tensor_type.name == "F32"
        assert by_name["token_embd.weight"].tensor_type.name != "F32"


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    """The file of a LoRA model has the weights of the base model with the adapter added."""
    base = save(tmp_path / "base", byte_model(), tokenizer_of("byte")) / "best"
    model = huggingface.load(base).model
    lora.add(model, 2)
    for matrix in lora.matrices(model):
        torch.nn.init.normal_(lora.pair(matrix)[1], std=0.3)
    base_model = {"path": str(base.resolve()), "sha256": lora.fingerprint(model)}
    checkpoint.save(
        tmp_path / "run", model, tokenizer_of("byte"), {}, {"step": 2, "base_model": base_model}
    )
    found = tensors(export.export_gguf(tmp_path / "run", tmp_path / "model.gguf"))
    lora.merge(model)
    key = model.get_parameter("blocks.0.attention.key.weight").detach().numpy()
    np.testing.assert_array_equal(found["blk.0.attn_k.weight"], key)
    plain = tensors(export.export_gguf(tmp_path / "base", tmp_path / "base.gguf"))
    assert np.abs(plain["blk.0.attn_k.weight"] - key).max() > 0.1


def test_the_modelfile(tmp_path: Path) -> None:
    """The Modelfile continues a prompt as it is, with the defaults of sample.py."""
    run = save(tmp_path / "run", byte_model(), tokenizer_of("byte"))
    export.main([str(run), str(tmp_path / "my.gguf")])
    defaults = Sampling()
    assert (tmp_path / "my.Modelfile").read_text() == (
        'FROM ./my.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "<|endoftext|>"\n'
        f"PARAMETER temperature {defaults.temperature}\nPARAMETER top_k 0\n"
        f"PARAMETER top_p {defaults.top_p}\nPARAMETER min_p {defaults.min_p}\n"
        f"PARAMETER repeat_penalty {defaults.repetition_penalty}\nPARAMETER num_ctx 8\n"
    )
    assert defaults.top_k is None  # 0 in the Modelfile: draw from all tokens


def test_wrong_use_is_refused_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrong use gives a line that says how to mend it, and nothing is written."""
    tokenizer = tokenizer_of("byte")
    run, target = str(save(tmp_path / "run", byte_model(), tokenizer)), tmp_path / "model.gguf"
    before = set(tmp_path.iterdir())

    def refused(words: Sequence[object], match: str) -> None:
        with pytest.raises(UserError, match=match):
            export.main([str(word) for word in words])
        assert set(tmp_path.iterdir()) == before

    refused([run, tmp_path / "folder", "--dtype", "q8_0"], "q8_0 is a number format of GGUF; name")
    refused([tmp_path / "nowhere", target], "nowhere")
    refused([run, Path(run) / "best/config.json/model.gguf"], "cannot write .*model.gguf: ")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)
        refused([run, target], r"to write .*model.gguf, first: .* -m pip install .*gguf")
    for name in ("model.gguf", "model.Modelfile"):
        (tmp_path / name).write_bytes(b"mine")
        before.add(tmp_path / name)
        refused([run, target], f"{name} exists already; name a new file")
        assert (tmp_path / name).read_bytes() == b"mine"
        (tmp_path / name).unlink()
        before.remove(tmp_path / name)


def test_what_llama_cpp_would_read_wrongly_is_refused(tmp_path: Path) -> None:
    """A model, a tokenizer or a number that the file cannot carry is refused by its name."""
    tokenizer, model, path = tokenizer_of("byte"), byte_model(), tmp_path / "model.gguf"

    def refused(model: GPT, tokenizer: Tokenizer, match: str, dtype: str | None = None) -> None:
        with pytest.raises(UserError, match=match):
            gguf_file.write(path, model, tokenizer, Companions(), dtype)
        assert not list(tmp_path.iterdir())

    hub = HubTokenizer.__new__(HubTokenizer)
    hub.kind = "hub"
    refused(model, hub, "the tokenizer is one of Hugging Face.*convert_hf_to_gguf.py")
    ends = Tokenizer("byte", tokenizer.tokens)
    ends.ends = frozenset([10, 256])
    refused(model, ends, r"besides <\|endoftext\|>, '\\n' ends a text")
    # "abc" is a token, but no two of its parts are neighbours that make it.
    listed = Tokenizer("bpe", [*BYTES, b"abc", END_OF_TEXT.encode()])
    refused(byte_model(vocab_size=258), listed, "no merges lead to the token b'abc'")
    mixture = GPTConfig.gpt2(257, 8, 1, 2, 32, norm="rmsnorm")
    refused(random_model(mixture), tokenizer, "no architecture of GPT-2, Llama and Qwen3")
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[0, 0] = 1e6
    refused(model, tokenizer, "blk.0.ffn_up.weight is too large for F16", "float16")
    gguf_file.write(path, model, tokenizer, Companions(), "bfloat16")


PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lm_eval_scores_the_folder(tmp_path: Path) -> None:
    """The commands of the page run, and lm-eval scores the exported folder on its task."""
    if shutil.which("lm-eval") is None:
        absent("lm-eval is not installed")
    run = save(tmp_path / "run", byte_model(block_size=64), tokenizer_of("byte"))
    export.main([str(run), str(tmp_path / "my-model")])
    [code] = re.findall(r"```sh[^\n]*test_lm_eval_scores_the_folder.*?\n(.*?)```", PAGE, flags=re.S)
    offline = {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    env = {**os.environ, **offline, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-ec", code], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\|heroes\|.*\|acc +\|", done.stdout)


# ---- with llama.cpp ----


@pytest.fixture
def llama() -> Iterator[Any]:
    """Return a function that opens a GGUF file with llama.cpp, in float32 throughout."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    opened = []

    def load(path: Path, **settings: Any) -> Any:
        exact = {"type_k": 0, "type_v": 0, "flash_attn": False, "n_threads": 1, "n_gpu_layers": 0}
        opened.append(llama_cpp.Llama(str(path), n_ctx=BLOCK, verbose=False, **exact, **settings))
        return opened[-1]

    yield load
    for model in opened:
        model.close()


def decoded(model: Any, ids: Sequence[int]) -> bytes:
    """Return the text of ids by llama.cpp itself; `Llama.detokenize` drops tokens of 32 bytes."""
    import llama_cpp

    vocab = llama_cpp.llama_model_get_vocab(model.model)
    array, buffer = (llama_cpp.llama_token * len(ids))(*ids), ctypes.create_string_buffer(1 << 16)
    n = llama_cpp.llama_detokenize(vocab, array, len(ids), buffer, len(buffer), False, True)
    return buffer.raw[:n]


def test_llama_cpp_gives_minigens_ids(exported: Exported, llama: Any) -> None:
    """llama.cpp encodes each token to itself, spells texts as minigen does, and decodes them."""
    tokenizer, other = exported.tokenizer, llama(exported.path, vocab_only=True)
    for text in texts(tokenizer, 1000):
        ids = tokenizer.encode(text)
        assert other.tokenize(text.encode(), add_bos=False) == ids, text
        assert decoded(other, ids) == text.encode()
    prompt = "the sun" + END_OF_TEXT + " ?"
    ids = other.tokenize(prompt.encode(), add_bos=True, special=True)
    assert ids == tokenizer.encode_prompt(prompt)
    for id, token in enumerate(tokenizer.tokens[:-1]):
        assert decoded(other, [id]) == token
        try:
            text = token.decode()
        except UnicodeDecodeError:
            continue  # half a character: no text is this token
        assert other.tokenize(token, add_bos=False) == [id], text
    assert other.token_eos() == other.token_bos() == tokenizer.end_of_text


def test_the_python_of_the_page_works(
    tmp_path: Path, llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of docs/deploy.md prints a text, drawn with the defaults of sample.py."""
    run = save(tmp_path / "run", byte_model(block_size=64), tokenizer_of("byte"))
    export.main([str(run), str(tmp_path / "tales.gguf")])
    capsys.readouterr()
    [code] = re.findall(r"```python[^\n]*\n(.*?)```", PAGE, flags=re.S)
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    scope = runpy.run_path("page.py")
    scope["model"].close()
    assert len(capsys.readouterr().out) > 1
    defaults = dataclasses.asdict(Sampling())
    defaults["repeat_penalty"] = defaults.pop("repetition_penalty")
    assert scope["settings"] == {**defaults, "top_k": 0}


@pytest.mark.parametrize("kind", ["gpt2", "modern"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "q8_0"])
def test_a_smaller_format_keeps_the_perplexity(
    kind: str, dtype: str, tmp_path: Path, llama: Any
) -> None:
    """In 16 or 8 bits, llama.cpp's perplexity is within a hundredth of minigen's in float32."""
    config = getattr(GPTConfig, kind)(257, BLOCK, 2, 4, 64)
    model, path = random_model(config, std=0.1), tmp_path / "model.gguf"
    gguf_file.write(path, model, tokenizer_of("byte"), Companions(), dtype)
    ids = torch.tensor([tokenizer_of("byte").encode(TEXT)[:BLOCK]])
    other = llama(path, logits_all=True)
    other.eval(ids[0].tolist())
    with torch.no_grad():
        own = F.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
    theirs = F.cross_entropy(torch.tensor(other.scores[: BLOCK - 1]), ids[0, 1:])
    assert abs((theirs - own).exp().item() - 1) < 0.01


def half_gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute GELU as llama.cpp does on a CPU: from a table for all numbers in float16."""
    return GELU(x.half().float(), approximate=approximate).half().float()


GELU = F.gelu


def test_llama_cpp_computes_minigens_logits(
    exported: Exported, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of a whole context are equal up to rounding."""
    model, other = exported.model, llama(exported.path, logits_all=True)
    ids = torch.randint(
        model.config.vocab_size, (1, BLOCK), generator=torch.Generator().manual_seed(1)
    )
    other.eval(ids[0].tolist())
    logits = torch.tensor(other.scores[:BLOCK])
    monkeypatch.setattr(F, "gelu", half_gelu)
    with torch.no_grad():
        difference = (model(ids)[0] - logits).abs().max().item()
    assert difference < (1e-3 if model.config.mlp == "gelu" else 1e-4)


def test_llama_cpp_writes_minigens_text(
    exported: Exported, tmp_path: Path, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, the 128 most probable tokens after a prompt are the same, one by one."""
    model, tokenizer = varied_model(exported.model.config), exported.tokenizer
    path = tmp_path / "model.gguf"
    gguf_file.write(path, model, tokenizer, Companions())
    monkeypatch.setattr(F, "gelu", half_gelu)
    other, prompt = llama(path), tokenizer.encode_prompt("The sun")
    other.eval(prompt)
    theirs: list[int] = []
    for _ in range(128):
        theirs.append(other.sample(temp=0))
        other.eval(theirs[-1:])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + theirs]))[0, len(prompt) - 1 : -1]  # (128, V)
    # Where two tokens are equally probable up to rounding, either may be written.
    short_of_best = logits.max(dim=-1).values - logits[torch.arange(128), torch.tensor(theirs)]
    assert short_of_best.max() < (1e-3 if model.config.mlp == "gelu" else 1e-4)
    assert len(set(theirs)) >= 3

"""Tokens per second when GPT-2 (124M) writes, beside other programs with the same weights.

    python -m bench.generate --nanogpt ../nanoGPT
    python -m bench.generate --sweep            # milliseconds per token, context by context
    python -m bench.generate --weights FOLDER   # another model, beside transformers only
    python -m bench.generate --device cuda      # on a GPU, beside transformers only

The weights are random, so no download is needed; the time does not depend on them. Each contender
is a process of its own. All write greedily, one text at a time, and at float32 the same tokens.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from bench.common import alternate, options, peer, record, serve, start_workers, table
from bench.limits import read_bandwidth
from minigen import GPT, GPTConfig
from minigen.files import checkpoint
from minigen.inference import engine
from minigen.sampling import Sampling
from minigen.tokenizer import BYTES, END_OF_TEXT, Tokenizer

CONTENDERS = {  # and the bytes of a weight
    "minigen float32": 4, "minigen bfloat16": 2, "minigen int8": 1,
    "transformers float32": 4, "transformers bfloat16": 2, "nanoGPT float32, no cache": 4,
    "CTranslate2 float32": 4, "CTranslate2 int8": 1,
    "llama.cpp f32": 4, "llama.cpp f16": 2, "llama.cpp Q8_0": 34 / 32,
}  # fmt: skip
PROMPT = list(range(1000, 1016))
LONG = 1024 - len(PROMPT)  # tokens, in a sweep

# Takes a prompt and a number of tokens; the ids, and after how many seconds each was there.
Writer = Callable[[list[int], int], tuple[list[int], list[float]]]


def timed(step: Callable[[], int], n: int) -> tuple[list[int], list[float]]:
    """Take n steps of one token each."""
    began, ids, times = time.perf_counter(), [], []
    for _ in range(n):
        ids.append(step())
        times.append(time.perf_counter() - began)
    return ids, times


# ---- the contenders ----


def minigen(weights: Path, kind: str, given: Any) -> Writer:
    """As `python sample.py --dtype ...` does it."""
    loaded = engine.load(weights, device=given.device, dtype=kind)

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        tokens = loaded.generate(
            [prompt], Sampling(temperature=0), max_new_tokens=n, end_of_text=()
        )
        return timed(lambda: next(tokens)[0].id, n)  # type: ignore[union-attr]

    return write


def transformers(weights: Path, kind: str, given: Any) -> Writer:
    model = (
        peer("transformers")
        .AutoModelForCausalLM.from_pretrained(weights, dtype=getattr(torch, kind))
        .to(given.device)
    )

    class Clock:  # what transformers calls a streamer: it is given the prompt, then each token
        def __init__(self) -> None:
            self.began, self.times = time.perf_counter(), [-1.0]

        def put(self, ids: Any) -> None:
            self.times.append(time.perf_counter() - self.began)

        def end(self) -> None:
            pass

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        clock, ids = Clock(), torch.tensor([prompt], device=given.device)
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=n,
            max_new_tokens=n, pad_token_id=0, streamer=clock,
        )  # fmt: skip
        return written[0, len(prompt) :].tolist(), clock.times[2:]

    return write


def nanogpt(weights: Path, kind: str, given: Any) -> Writer:
    """nanoGPT's own loop, which computes the whole text anew for each token."""
    if given.nanogpt is None:
        raise FileNotFoundError("give --nanogpt, a checkout of it")
    os.chdir(weights.parent)  # where its "gpt2" is found to be our folder of this name
    sys.path.insert(0, str(given.nanogpt.resolve()))
    model = peer("model").GPT.from_pretrained(weights.name).eval()

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        ids = torch.tensor([prompt])

        def step() -> int:
            nonlocal ids
            ids = model.generate(ids, 1, top_k=1)
            return int(ids[0, -1])

        return timed(step, n)

    return write


def ctranslate2(weights: Path, kind: str, given: Any) -> Writer:
    library, converted = peer("ctranslate2"), weights.parent / "ctranslate2"
    if not converted.exists():
        library.converters.TransformersConverter(str(weights)).convert(str(converted))
        config = json.loads((converted / "config.json").read_text())
        config["unk_token"] = END_OF_TEXT  # our tokenizer has none; it does not load without
        (converted / "config.json").write_text(json.dumps(config))
    model = library.Generator(
        str(converted), compute_type=kind, intra_threads=given.threads, inter_threads=1
    )
    names = json.loads((converted / "vocabulary.json").read_text())

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        began, times = time.perf_counter(), []

        def note(step: Any) -> bool:
            times.append(time.perf_counter() - began)
            return False

        (result,) = model.generate_batch(
            [[names[id] for id in prompt]], max_length=n, min_length=n, sampling_topk=1,
            include_prompt_in_result=False, callback=note,
        )  # fmt: skip
        return result.sequences_ids[0], times

    return write


def llama(weights: Path, kind: str, given: Any) -> Writer:
    library, np = peer("llama_cpp"), peer("numpy")
    exact = weights.parent / "f32.gguf"
    path = exact.with_stem(kind)
    if not exact.exists():
        write_gguf(weights, exact)
    if not path.exists():
        settings = library.llama_model_quantize_default_params()
        settings.ftype = {"f16": library.LLAMA_FTYPE_MOSTLY_F16}.get(
            kind, library.LLAMA_FTYPE_MOSTLY_Q8_0
        )
        settings.pure = True  # the embedding, which is the head too, like all the rest
        assert library.llama_model_quantize(str(exact).encode(), str(path).encode(), settings) == 0
    model = library.Llama(
        str(path), n_ctx=1024, n_threads=given.threads, n_threads_batch=given.threads, verbose=False
    )

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        model.reset()
        library.llama_memory_clear(library.llama_get_memory(model.ctx), True)
        fed = prompt

        def step() -> int:
            nonlocal fed
            ids = (library.llama_token * len(fed))(*fed)
            assert library.llama_decode(model.ctx, library.llama_batch_get_one(ids, len(fed))) == 0
            logits = library.llama_get_logits_ith(model.ctx, -1)
            fed = [int(np.ctypeslib.as_array(logits, (model.n_vocab(),)).argmax())]
            return fed[0]

        return timed(step, n)

    return write


# ---- the weights ----


def make_weights(cache: Path) -> Path:
    """A checkpoint of GPT-2's shape, which is a folder that transformers and its friends load.

    All matrices are random, larger than in training, so that the text is not one token repeated.
    """
    target = cache / "gpt2"
    if target.exists():
        return target
    torch.manual_seed(0)
    model = GPT(GPTConfig.gpt2())
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.2 if name == "position.weight" else 0.05)
    fillers = [b"token %d" % i for i in range(model.config.vocab_size - len(BYTES) - 1)]
    tokenizer = Tokenizer("bpe", [*BYTES, *fillers, END_OF_TEXT.encode()])
    checkpoint.save(cache, model, tokenizer, {}, {"step": 0}).rename(target)
    return target


def write_gguf(weights: Path, path: Path) -> None:
    """The same weights in llama.cpp's format, under the names that it has for GPT-2's."""
    gguf, tensors = peer("gguf"), peer("safetensors.numpy").load_file(weights / "model.safetensors")
    names = json.loads((weights / "tokenizer.json").read_text())["model"]["vocab"]
    file = gguf.GGUFWriter(path, "gpt2")
    file.add_context_length(1024)
    file.add_embedding_length(768)
    file.add_feed_forward_length(4 * 768)
    file.add_block_count(12)
    file.add_head_count(12)
    file.add_layer_norm_eps(1e-5)
    file.add_file_type(gguf.LlamaFileType.ALL_F32)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list([*names, END_OF_TEXT][: len(tensors["transformer.wte.weight"])])
    file.add_token_types([gguf.TokenType.NORMAL] * len(tensors["transformer.wte.weight"]))
    file.add_token_merges(["a b"])  # never used, but without one it does not load
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 12)
    for name, tensor in tensors.items():
        stem = known.get_name(name, try_suffixes=(".weight", ".bias"))
        matrix = ".h." in name and tensor.ndim == 2  # these GPT-2 stores as (in, out)
        file.add_tensor(stem, (tensor.T if matrix else tensor).copy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


# ---- the comparison ----


def load(name: str, given: Any) -> Callable[[Any], Any]:
    torch.set_grad_enabled(False)
    program, _, kind = name.partition(" ")
    loaders = {
        "minigen": minigen, "transformers": transformers, "nanoGPT": nanogpt,
        "CTranslate2": ctranslate2, "llama.cpp": llama,
    }  # fmt: skip
    write = loaders[program](given.weights.resolve(), kind, given)
    write(PROMPT, 4)  # what is compiled or allocated on first use is not timed
    return lambda n: write(PROMPT, n)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of it")
    parser.add_argument("--weights", type=Path, help="a model's folder; by default, a random GPT-2")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cuda: beside transformers only")
    parser.add_argument("--sweep", action="store_true", help="write until the context is full")
    parser.add_argument("--only", default="", help="contenders whose names contain this")
    parser.add_argument("--worker", help="(a process of this benchmark)")
    given = parser.parse_args()
    if given.worker:
        return serve(lambda: load(given.worker, given))
    names = [name for name in CONTENDERS if given.only in name]
    if given.weights or given.device != "cpu":  # the others: other formats of weights, or no GPU
        names = [name for name in names if name.startswith(("minigen", "transformers"))]
    if given.device != "cpu":
        names = [name for name in names if "int8" not in name]
    given.weights = given.weights or make_weights(given.cache)
    flags = ["--cache", str(given.cache), "--threads", str(given.threads)]
    flags += ["--weights", str(given.weights), "--device", given.device]
    flags += ["--nanogpt", str(given.nanogpt)] if given.nanogpt else []
    if given.sweep:  # without a cache it would take minutes
        names = [name for name in names if "no cache" not in name]
    pythons = {n: sys.executable if "minigen" in n else given.peers_python for n in names}
    workers = start_workers(pythons, "bench.generate", flags, given.threads)
    n = LONG if given.sweep else given.tokens
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(worker.ask, n) for name, worker in workers.items()
    }
    results = alternate(calls | {"memory": lambda: read_bandwidth(given.device)}, given.rounds)
    bandwidths = results.pop("memory")
    for worker in workers.values():
        worker.close()
    n_read = weights_read(given.weights)
    figures = report_sweep(results) if given.sweep else report(results, bandwidths, n_read)
    record("generate --sweep" if given.sweep else "generate", figures, given)


def weights_read(folder: Path) -> int:
    """How many weights are read for a token: all matrices but those of which it reads one row."""
    model = engine.load(folder).model
    tables = [] if model.position is None else [model.position.weight]
    tables += [] if model.lm_head is None else [model.embedding.weight]
    return sum(p.numel() for p in model.parameters() if p.ndim == 2) - sum(
        p.numel() for p in tables
    )


def report(results: dict[str, list[Any]], bandwidths: list[float], n_read: int) -> dict[str, Any]:
    """Tokens per second, of the whole text with its prompt; the weights' bytes read a second.

    The bytes are those of the tokens behind the first, for which the prompt is read, and their
    share is of what memory gave in the same round: some machines change it by half within minutes.
    """
    speeds = {
        name: statistics.median(len(times) / times[-1] for _, times in found)
        for name, found in results.items()
    }
    (reference,) = [found[0][0] for name, found in results.items()][:1]
    figures, rows = {}, []
    for name, speed in speeds.items():
        n_bytes = CONTENDERS[name] * n_read
        reads = [n_bytes * (len(times) - 1) / (times[-1] - times[0]) for _, times in results[name]]
        read = statistics.median(reads)
        share = statistics.median(a / b for a, b in zip(reads, bandwidths, strict=True))
        ids = results[name][0][0]
        same = next(
            (i for i, (a, b) in enumerate(zip(ids, reference, strict=True)) if a != b), len(ids)
        )
        ratio = speed / max(speeds.values())
        figures[name] = {"tokens/s": speed, "read share": share, "same tokens": same}
        rows.append((name, f"{speed:.1f}", f"{ratio:.0%}", f"{read / 1e9:.1f}",
                     f"{share:.0%}", f"{same} of {len(ids)}"))  # fmt: skip
    table(("contender", "tokens/s", "of best", "GB/s", "of memory's", "same tokens"), rows)
    bandwidth = statistics.median(bandwidths) / 1e9
    print(f"memory reads {bandwidth:.1f} GB/s; same tokens: as {next(iter(results))}")
    return figures


def report_sweep(results: dict[str, list[Any]]) -> dict[str, Any]:
    """Milliseconds of one token more, the median of the 32 that end at each context."""
    contexts = (64, 128, 256, 512, 1024)
    figures = {}
    for name, found in results.items():
        steps = [[b - a for a, b in pairwise(times)] for _, times in found]
        ends = [context - len(PROMPT) - 1 for context in contexts]
        figures[name] = {
            context: 1e3 * statistics.median(t for step in steps for t in step[end - 32 : end])
            for context, end in zip(contexts, ends, strict=True)
        }
    header = ("milliseconds per token at", *map(str, contexts))
    table(header, [(n, *(f"{ms:.1f}" for ms in row.values())) for n, row in figures.items()])
    return figures


if __name__ == "__main__":
    main()

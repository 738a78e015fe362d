"""Measure tokens per second when GPT-2 (124M) writes, beside other programs with the same weights.

    python -m bench.generate --nanogpt ../nanoGPT
    python -m bench.generate --sweep            # milliseconds per token, context by context
    python -m bench.generate --prompts          # tokens per second of prompts, length by length
    python -m bench.generate --weights FOLDER   # another model, beside transformers only
    python -m bench.generate --device cuda      # on a GPU, beside transformers only

The weights are random, so nothing is downloaded; the time does not depend on their values. Each
contender is a process of its own. All write one text at a time and greedily, so in float32 they
should write the same tokens. docs/performance.md has the results and defines the terms.
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

CONTENDERS = {  # name: bytes of a weight
    "minigen float32": 4, "minigen bfloat16": 2, "minigen int8": 1,
    "transformers float32": 4, "transformers bfloat16": 2, "nanoGPT float32, no cache": 4,
    "CTranslate2 float32": 4, "CTranslate2 int8": 1,
    "llama.cpp f32": 4, "llama.cpp f16": 2, "llama.cpp Q8_0": 34 / 32,
}  # fmt: skip
PROMPT = 16  # tokens before the text that is written
LONG = 1024 - PROMPT  # new tokens in a sweep: up to the end of the context
PROMPTS = (32, 128, 512, 1024)  # tokens of the prompts that --prompts reads

# (prompt, number of new tokens) -> (their ids, the seconds from the start to each of them)
Writer = Callable[[list[int], int], tuple[list[int], list[float]]]


def timed(step: Callable[[], int], n: int) -> tuple[list[int], list[float]]:
    """Take n steps of one token each; return the ids, and the seconds from the start to each."""
    start, ids, times = time.perf_counter(), [], []
    for _ in range(n):
        ids.append(step())
        times.append(time.perf_counter() - start)
    return ids, times


# ---- the contenders ----


def minigen(weights: Path, kind: str, given: Any) -> Writer:
    """Load minigen; it writes as `python sample.py --dtype ...` does."""
    loaded = engine.load(weights, device=given.device, dtype=kind)

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        tokens = loaded.generate(
            [prompt], Sampling(temperature=0), max_new_tokens=n, end_of_text=()
        )
        return timed(lambda: next(tokens)[0].id, n)  # type: ignore[union-attr]

    return write


def transformers(weights: Path, kind: str, given: Any) -> Writer:
    """Load transformers."""
    model = (
        peer("transformers")
        .AutoModelForCausalLM.from_pretrained(weights, dtype=getattr(torch, kind))
        .to(given.device)
    )

    class Clock:  # a "streamer" of transformers: `put` gets the prompt, then each token
        def __init__(self) -> None:
            self.start, self.times = time.perf_counter(), [-1.0]

        def put(self, ids: Any) -> None:
            self.times.append(time.perf_counter() - self.start)

        def end(self) -> None:
            pass

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        clock, ids = Clock(), torch.tensor([prompt], device=given.device)
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=n,
            max_new_tokens=n, pad_token_id=0, streamer=clock,
        )  # fmt: skip
        return output[0, len(prompt) :].tolist(), clock.times[2:]

    return write


def nanogpt(weights: Path, kind: str, given: Any) -> Writer:
    """Load nanoGPT, whose own loop computes the whole text anew for each token."""
    if given.nanogpt is None:
        raise FileNotFoundError("give --nanogpt, the path of a checkout")
    os.chdir(weights.parent)  # so that the name "gpt2" means the folder of the weights
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
    """Load CTranslate2, once it has converted the weights."""
    library, converted = peer("ctranslate2"), weights.parent / "ctranslate2"
    if not converted.exists():
        library.converters.TransformersConverter(str(weights)).convert(str(converted))
        config = json.loads((converted / "config.json").read_text())
        config["unk_token"] = END_OF_TEXT  # required, although the tokenizer has no such token
        (converted / "config.json").write_text(json.dumps(config))
    model = library.Generator(
        str(converted), compute_type=kind, intra_threads=given.threads, inter_threads=1
    )
    names = json.loads((converted / "vocabulary.json").read_text())

    def write(prompt: list[int], n: int) -> tuple[list[int], list[float]]:
        start, times = time.perf_counter(), []

        def note(step: Any) -> bool:
            """Note the time of a token; return False, so that writing continues."""
            times.append(time.perf_counter() - start)
            return False

        (result,) = model.generate_batch(
            [[names[id] for id in prompt]], max_length=n, min_length=n, sampling_topk=1,
            include_prompt_in_result=False, callback=note,
        )  # fmt: skip
        return result.sequences_ids[0], times

    return write


def llama(weights: Path, kind: str, given: Any) -> Writer:
    """Load llama.cpp, with the weights in its own format and number format."""
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
        settings.pure = True  # one format for all, also for the embedding, which is the head too
        assert library.llama_model_quantize(str(exact).encode(), str(path).encode(), settings) == 0
    model = library.Llama(
        str(path), n_ctx=1024, n_batch=1024, n_threads=given.threads,
        n_threads_batch=given.threads, verbose=False,
    )  # fmt: skip

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
    """Write a checkpoint of GPT-2's shape, unless it is there; return its folder.

    transformers and other programs load it. All matrices are random, and larger than before
    training, so that the text is not one token repeated.
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
    """Write the weights in llama.cpp's format, under llama.cpp's names for GPT-2's tensors."""
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
    file.add_token_merges(["a b"])  # never used, but required
    names_of_gpt2 = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 12)
    for name, tensor in tensors.items():
        stem = names_of_gpt2.get_name(name, try_suffixes=(".weight", ".bias"))
        is_transposed = ".h." in name and tensor.ndim == 2  # GPT-2 stores these as (in, out)
        file.add_tensor(stem, (tensor.T if is_transposed else tensor).copy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


# ---- the comparison ----


def load(name: str, given: Any) -> Callable[[Any], Any]:
    """Load a contender; return the function from (tokens of a prompt, tokens to write) to both."""
    torch.set_grad_enabled(False)
    program, _, kind = name.partition(" ")
    loaders = {
        "minigen": minigen, "transformers": transformers, "nanoGPT": nanogpt,
        "CTranslate2": ctranslate2, "llama.cpp": llama,
    }  # fmt: skip
    write = loaders[program](given.weights.resolve(), kind, given)

    def answer(request: tuple[int, int]) -> tuple[list[int], list[float]]:
        """Write a number of tokens after a prompt of a number of tokens."""
        n_prompt, n = request
        return write(list(range(1000, 1000 + n_prompt)), n)

    answer((PROMPT, 4))  # so that compilation and allocation at first use are not timed
    return answer


def main() -> None:
    """Run the comparison; or, as a process of this benchmark, one contender."""
    parser = options(__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of it")
    parser.add_argument("--weights", type=Path, help="a model's folder; by default, a random GPT-2")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cuda: beside transformers only")
    parser.add_argument("--sweep", action="store_true", help="write until the context is full")
    parser.add_argument("--prompts", action="store_true", help="read prompts, and write one token")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="contenders whose names contain one of these"
    )
    parser.add_argument("--worker", help="(a process of this benchmark)")
    given = parser.parse_args()
    if given.worker:
        return serve(lambda: load(given.worker, given))
    names = [name for name in CONTENDERS if any(part in name for part in given.only)]
    # The other programs need other formats of weights, or have no GPU.
    if given.weights or given.device != "cpu":
        names = [name for name in names if name.startswith(("minigen", "transformers"))]
    if given.device != "cpu":
        names = [name for name in names if "int8" not in name]
    given.weights = given.weights or make_weights(given.cache)
    flags = ["--cache", str(given.cache), "--threads", str(given.threads)]
    flags += ["--weights", str(given.weights), "--device", given.device]
    flags += ["--nanogpt", str(given.nanogpt)] if given.nanogpt else []
    if given.sweep:  # without a cache, the whole context would take minutes
        names = [name for name in names if "no cache" not in name]
    pythons = {n: sys.executable if "minigen" in n else given.peers_python for n in names}
    workers = start_workers(pythons, "bench.generate", flags, given.threads)
    requests = [(PROMPT, LONG if given.sweep else given.tokens)]
    if given.prompts:
        requests = [(n_prompt, 1) for n_prompt in PROMPTS]
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(lambda worker: [worker.ask(r) for r in requests], worker)
        for name, worker in workers.items()
    }
    results = alternate(calls | {"memory": lambda: read_bandwidth(given.device)}, given.rounds)
    bandwidths = results.pop("memory")
    for worker in workers.values():
        worker.close()
    if given.prompts:
        return record("generate --prompts", report_prompts(results), given)
    results = {name: [answer for (answer,) in rounds] for name, rounds in results.items()}
    n_read = weights_read(given.weights)
    figures = report_sweep(results) if given.sweep else report(results, bandwidths, n_read)
    record("generate --sweep" if given.sweep else "generate", figures, given)


def weights_read(folder: Path) -> int:
    """Return the number of weights that a decoding step reads.

    It reads all matrices, but only one row of a table that it looks a token or a position up in.
    """
    model = engine.load(folder).model
    tables = [] if model.position is None else [model.position.weight]
    tables += [] if model.lm_head is None else [model.embedding.weight]
    return sum(p.numel() for p in model.parameters() if p.ndim == 2) - sum(
        p.numel() for p in tables
    )


def report(results: dict[str, list[Any]], bandwidths: list[float], n_read: int) -> dict[str, Any]:
    """Print and return tokens per second, and the share of memory's speed.

    Tokens per second include the prefill. The bytes of weights per second are those of decoding,
    after the first token; the share is of memory's speed in the same round, which some machines
    change by half within minutes.
    """
    speeds = {
        name: statistics.median(len(times) / times[-1] for _, times in rounds)
        for name, rounds in results.items()
    }
    (reference,) = [rounds[0][0] for rounds in results.values()][:1]
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
    """Print and return milliseconds per token: the median of the 32 tokens up to each context."""
    contexts = (64, 128, 256, 512, 1024)
    figures = {}
    for name, rounds in results.items():
        steps = [[b - a for a, b in pairwise(times)] for _, times in rounds]
        ends = [context - PROMPT - 1 for context in contexts]
        figures[name] = {
            context: 1e3 * statistics.median(t for step in steps for t in step[end - 32 : end])
            for context, end in zip(contexts, ends, strict=True)
        }
    header = ("milliseconds per token at", *map(str, contexts))
    table(header, [(n, *(f"{ms:.1f}" for ms in row.values())) for n, row in figures.items()])
    return figures


def report_prompts(results: dict[str, list[Any]]) -> dict[str, Any]:
    """Print and return tokens of a prompt per second, until the next token is known."""
    figures = {}
    for name, rounds in results.items():
        seconds = zip(*([times[0] for _, times in answers] for answers in rounds), strict=True)
        figures[name] = {
            n_prompt: n_prompt / statistics.median(times)
            for n_prompt, times in zip(PROMPTS, seconds, strict=True)
        }
    header = ("tokens/s of a prompt of", *map(str, PROMPTS))
    table(header, [(n, *(f"{speed:.0f}" for speed in row.values())) for n, row in figures.items()])
    return figures


if __name__ == "__main__":
    main()

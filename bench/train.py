"""Measure the loss on new text after some seconds of training, of minigen and of nanoGPT.

    python -m bench.train --text tinyshakespeare.txt --nanogpt ../nanoGPT --minutes 0.25 0.5
    python -m bench.train --text tinyshakespeare.txt --windows --minutes 2 10 --rounds 3
    python -m bench.train --text tinyshakespeare.txt --nanogpt ../nanoGPT --tokens
    python -m bench.train --text mixed.txt --nanogpt ../nanoGPT --times 3 --minutes 10
    python -m bench.train --nanogpt ../nanoGPT --device cuda

Seconds are those of the whole process, from launch to end. Each loss is the mean over all of the
last tenth of the text, where each character has half a block of context or more. It is in nats per
character, which compare across tokenizers; so the text must be ASCII. With --times, where both have
the same tokens, a loss is in bits per byte, of any text.
"""

from __future__ import annotations

import argparse
import functools
import math
import pickle
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.common import (
    alternate,
    check_quiet,
    median_seconds,
    options,
    peer,
    record,
    run,
    table,
)
from minigen import GPT, GPTConfig, corpora
from minigen.data import TokenStream, prepare
from minigen.files import checkpoint
from minigen.files.checkpoint import Checkpoint
from minigen.loss import next_token_loss
from minigen.optim import Optimizer
from minigen.run.compile import compile_blocks
from minigen.run.log import read_metrics
from minigen.system.device import autocast
from minigen.system.places import data_folder

# The flags of nanoGPT's README for a CPU; its configuration file has an eval_interval of 250.
RECIPE = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 "
    "--log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 "
    "--max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12}  # bfloat16 FLOP/s, dense


# ---- the contenders ----


def minigen(given: argparse.Namespace, flags: str) -> tuple[float, Path]:
    """Train as a user does; return the seconds, and the folder of the run."""
    out = given.cache / "minigen"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "train.py", "--data", str(given.text.resolve())]
    command += ["--out_dir", str(out), "--name", "run", *flags.split()]
    seconds, _ = run(command, given.threads)
    return seconds, out / "run"


def minigen_loss(given: argparse.Namespace, flags: str) -> tuple[float, float]:
    """Return minigen's seconds, and its loss on all of the validation text, its last metric."""
    seconds, folder = minigen(given, flags)
    return seconds, read_metrics(folder)[-1]["final_val_bits_per_byte"] * math.log(2)


def nanogpt(given: argparse.Namespace, flags: str) -> tuple[float, str]:
    """Train with nanoGPT's script; return the seconds, and its output."""
    command = [given.peers_python, "train.py", *flags.split(), "--out_dir=out"]
    return run(command, given.threads, cwd=given.cache / "nanoGPT")


def nanogpt_loss(
    given: argparse.Namespace, flags: str, dataset: str = "shakespeare_char"
) -> tuple[float, float]:
    """Return nanoGPT's seconds and loss, in nats per token of the data set that the flags name."""
    seconds, _ = nanogpt(given, flags)
    data = given.cache / "nanoGPT" / "data" / dataset
    command = [given.peers_python, "-m", "bench.train", "--score", str(data)]
    return seconds, float(run(command, given.threads)[1].split()[-1])


def tuned(given: argparse.Namespace, minutes: float) -> tuple[float, float]:
    """Train nanoGPT with minigen's shape and batch, in the steps that fit into the time.

    Returns its seconds and loss.
    """
    config = checkpoint.load_newest(given.cache / "minigen" / "run").state["config"]
    flags = with_shape_of(config, config["n_embd"])
    return nanogpt_loss(given, f"{flags} {steps_that_fit(given, flags, minutes)}")


def with_shape_of(config: Mapping[str, Any], width: int) -> str:
    """Return the flags of nanoGPT for the layers, heads, context and batch of a run of minigen."""
    shape = {name: config[name] for name in ("n_layer", "n_head", "block_size", "batch_size")}
    flags = "config/train_shakespeare_char.py --device=cpu --compile=False --dropout=0.0"
    return " ".join([flags, *(f"--{k}={v}" for k, v in {**shape, "n_embd": width}.items())])


def steps_that_fit(given: argparse.Namespace, flags: str, minutes: float) -> str:
    """Return nanoGPT's flags for the number of steps that the time allows."""
    common = f"--warmup_iters=50 --log_interval=1 --eval_iters=10 {given.peer_flags}"
    trial, text = nanogpt(given, f"{flags} {common} --max_iters=60 --eval_interval=60")
    step = statistics.median(step_seconds(text))
    rest = trial - 60 * step  # seconds for the launch, two evaluations and saving
    n = max(100, int((60 * minutes - rest) / step))
    return f"{common} --max_iters={n} --lr_decay_iters={n} --eval_interval={n}"


def step_seconds(printed: str) -> list[float]:
    """Return the seconds of each step, as nanoGPT prints them, without the first, slower ones."""
    return [float(ms) / 1e3 for ms in re.findall(r"iter \d+: .*time ([\d.]+)ms", printed)][10:]


def prepare_nanogpt(given: argparse.Namespace) -> None:
    """Copy the checkout, with the text at the place where its script would download one to."""
    copy = given.cache / "nanoGPT"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(given.nanogpt, copy, ignore=shutil.ignore_patterns(".git"))
    if given.times:
        return  # `in_more_time` writes the tokens
    folder = copy / "data" / "shakespeare_char"
    shutil.copyfile(given.text, folder / "input.txt")
    run([given.peers_python, "prepare.py"], given.threads, cwd=folder)


@torch.no_grad()
def score(data: Path) -> float:
    """Return the loss of nanoGPT's checkpoint, by the sliding window of minigen's `evaluate`.

    Args:
        data: the folder of its data set, data/NAME in the checkout.
    """
    checkout = data.parents[1]
    sys.path.insert(0, str(checkout))
    module = peer("model")
    saved = torch.load(checkout / "out" / "ckpt.pt", map_location="cpu")
    model = module.GPT(module.GPTConfig(**saved["model_args"])).eval()
    model.load_state_dict(saved["model"])
    tokens = np.fromfile(data / "val.bin", "uint16").astype("int64")
    ids, T = torch.from_numpy(tokens), saved["model_args"]["block_size"]
    total, scored = 0.0, 0  # of the targets, ids[1:]
    while scored < len(ids) - 1:
        start = min(max(0, scored - T // 2), len(ids) - 1 - T)
        x, y = ids[start : start + T], ids[start + 1 : start + T + 1]  # (T,)
        logits, _ = model(x[None], y[None])  # (1, T, V)
        new = scored - start
        total += F.cross_entropy(logits[0, new:].float(), y[new:], reduction="sum").item()
        scored = start + T
    return float(total / scored)


# ---- the comparisons ----


def losses(given: argparse.Namespace) -> Any:
    """Measure the loss after some times, and the time to nanoGPT's loss."""
    contenders: dict[str, Callable[[], tuple[float, float]]] = {}
    if given.nanogpt:
        contenders["nanoGPT, its recipe"] = functools.partial(nanogpt_loss, given, RECIPE)
    for minutes in given.minutes:  # minigen first: `tuned` takes its shape
        call = functools.partial(minigen_loss, given, f"--minutes {minutes} {given.flags}")
        contenders[f"minigen, {60 * minutes:g} s"] = call
        if given.nanogpt:
            contenders[f"nanoGPT tuned, {60 * minutes:g} s"] = functools.partial(
                tuned, given, minutes
            )
    results = alternate(contenders, given.rounds)
    figures = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in results.items()
    }
    rows = [(name, f"{s:.1f}", f"{loss:.4f}") for name, (s, loss) in figures.items()]
    table(("run", "seconds", "nats/character"), rows)
    if given.nanogpt:
        nanogpt_seconds, target = figures["nanoGPT, its recipe"]
        reached = [s for n, (s, loss) in figures.items() if "minigen" in n and loss <= target]
        if reached:
            times = nanogpt_seconds / min(reached)
            print(f"to {target:.3f}: {min(reached):.0f} s, {times:.1f} x as fast")
    return figures


def windows(given: argparse.Namespace) -> Any:
    """Measure the last checkpoint on windows that overlap by half, and on windows that do not.

    Published losses differ in their tokens, in the windows, in how much of the text is scored, and
    in whether the best of several noisy evaluations is quoted. Here no checkpoint is chosen, and
    all of the last tenth is scored. Each round has a seed of its own.
    """
    figures = {}
    for minutes in given.minutes:
        for tokenizer in ("bpe", "char"):
            flags = f"--minutes {minutes} --tokenizer {tokenizer} {given.flags}"
            runs = []
            for seed in range(given.rounds):
                seconds, folder = minigen(given, f"{flags} --seed {seed}")
                runs.append((seconds, *losses_of_last(folder)))
            figures[f"--minutes {minutes:g}, {tokenizer}"] = runs
    rows = [
        (name, f"{statistics.median(seconds):.0f}", *map(mean_and_all, (overlapping, apart)))
        for name, (seconds, overlapping, apart) in (
            (name, zip(*runs, strict=True)) for name, runs in figures.items()
        )
    ]
    table(("nats/character", "seconds", "windows overlap by half", "windows do not overlap"), rows)
    return figures


def mean_and_all(losses: Sequence[float]) -> str:
    """Return a mean with the numbers of which it is the mean."""
    return f"{statistics.mean(losses):.4f} ({', '.join(f'{loss:.4f}' for loss in losses)})"


def losses_of_last(folder: Path) -> list[float]:
    """Return the losses of a run's last checkpoint, with windows that overlap and that do not.

    They are in nats per character, for all of the validation text.
    """
    last = checkpoint.load_newest(folder)
    _, val = all_tokens(last)
    T = last.state["config"]["block_size"]
    return [math.log(2) * bits_per_byte(last, val, stride) for stride in (T // 2, T)]


def all_tokens(saved: Checkpoint) -> tuple[TokenStream, TokenStream]:
    """Return the tokens of a run's whole training and validation text, also of a long text."""
    config = saved.state["config"]
    corpus = corpora.find(config["data"], data_folder(), config["separator"])
    _, train, val = prepare(corpus, saved.tokenizer, "", 0, data_folder() / "cache")
    return train, val


@torch.no_grad()
def bits_per_byte(saved: Checkpoint, val: TokenStream, stride: int) -> float:
    """Return the loss of a checkpoint on a text, in windows of which each begins `stride` later."""
    model, T = saved.model().eval(), saved.state["config"]["block_size"]
    batches = val.sliding(T, 8, stride)
    total = sum(next_token_loss(model(x), y).item() for x, y in batches)
    return total / (val.n_tokens - 1) * val.bits_per_byte(separator_bytes=0)


def in_more_time(given: argparse.Namespace) -> Any:
    """Measure minigen, and nanoGPT with the same tokens and parameters in --times the time.

    nanoGPT gets minigen's tokens, layers, heads, context and batch, and the least width that gives
    it no fewer parameters. Losses are in bits/byte, over the whole validation text.
    """
    figures = {}
    for minutes in given.minutes:
        check_quiet()
        seconds, folder = minigen(given, f"--minutes {minutes} {given.flags}")
        last = checkpoint.load_newest(folder)
        config, n_vocab = last.state["config"], last.tokenizer.n_vocab
        n_parameters = last.model().n_parameters()
        train, val = all_tokens(last)
        write_tokens(given.cache / "nanoGPT" / "data" / "same_tokens", train, val, n_vocab)
        loss = bits_per_byte(last, val, config["block_size"] // 2)
        rows = [(f"minigen, {minutes:g} minutes", n_parameters, seconds, loss)]

        width, n_heads, n_layers = 0, config["n_head"], config["n_layer"]
        while (size := nanogpt_size(n_vocab, n_layers, width)) < n_parameters:
            width += n_heads
        flags = with_shape_of(config, width) + " --dataset=same_tokens"
        flags += " " + steps_that_fit(given, flags, given.times * minutes)
        check_quiet()
        seconds, nats = nanogpt_loss(given, flags, "same_tokens")
        name = f"nanoGPT, {given.times * minutes:g} minutes"
        rows.append((name, size, seconds, nats * val.bits_per_byte(separator_bytes=0)))
        table(
            ("run", "parameters", "seconds", "bits/byte"),
            [(name, f"{n:,}", f"{seconds:.0f}", f"{loss:.4f}") for name, n, seconds, loss in rows],
        )
        figures[f"{minutes:g} minutes"] = rows
    return figures


def write_tokens(folder: Path, train: TokenStream, val: TokenStream, n_vocab: int) -> None:
    """Write tokens as a data set of nanoGPT, whose train.py reads the vocabulary's size, too."""
    folder.mkdir(exist_ok=True)
    for name, part in (("train", train), ("val", val)):
        part.read(0, part.n_tokens).astype("uint16").tofile(folder / f"{name}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": n_vocab}))


def nanogpt_size(n_vocab: int, n_layers: int, width: int) -> int:
    """Return the parameters of a nanoGPT without biases, as it counts them: without positions."""
    return n_vocab * width + n_layers * (12 * width * width + 2 * width) + width


def tokens(given: argparse.Namespace) -> Any:
    """Measure training tokens per second on characters: GPT-2's design, 4 layers, 128 wide."""
    figures = {}
    for batch, block in ((12, 64), (32, 128)):
        shape = f" --batch_size={batch} --block_size={block} --n_layer=4 --n_head=4 --n_embd=128"

        def minigen_speed(flags: str, shape: str = shape) -> float:
            flags += f"{shape} --architecture gpt2 --tokenizer char --dropout 0 --max_steps 100"
            lines = read_metrics(minigen(given, flags + " --eval_interval 100")[1])
            speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
            return float(statistics.median(speeds[20:]))

        def nanogpt_speed(shape: str = shape, n: int = batch * block) -> float:
            flags = f"{RECIPE}{shape} --bias=True --max_iters=100 --eval_interval=100"
            return n / statistics.median(step_seconds(nanogpt(given, flags)[1]))

        plain = "--dtype float32 --compile no --optimizer adamw"
        contenders: dict[str, Callable[[], float]] = {
            "nanoGPT float32, eager": nanogpt_speed,
            "minigen float32, eager, AdamW": functools.partial(minigen_speed, plain),
            "minigen bfloat16, compiled, AdamW": functools.partial(
                minigen_speed, "--dtype bfloat16 --compile yes --optimizer adamw"
            ),
            "minigen bfloat16, eager, Muon": functools.partial(
                minigen_speed, "--dtype bfloat16 --compile no"
            ),
            "minigen bfloat16, compiled, Muon": functools.partial(
                minigen_speed, "--dtype bfloat16 --compile yes"
            ),
        }
        if not given.nanogpt:
            del contenders["nanoGPT float32, eager"]
        results = alternate(contenders, given.rounds)
        speeds = {name: statistics.median(values) for name, values in results.items()}
        base = next(iter(speeds.values()))
        rows = [(name, f"{speed:,.0f}", f"{speed / base:.2f}") for name, speed in speeds.items()]
        table((f"batch {batch} x {block}", "tokens/s", "ratio"), rows)
        figures[f"{batch} x {block}"] = speeds
    return figures


def train_step(model: GPT, optimizer: Optimizer, x: Tensor, y: Tensor, dtype: str) -> None:
    """Take a step as in train.py, on ids x and targets y (B, T), and wait for its end."""
    with autocast(str(x.device), dtype):
        loss = next_token_loss(model(x), y) / y.numel()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step(1e-4)
    loss.item()  # waits for the device


def device_rate(given: argparse.Namespace) -> Any:
    """Measure tokens per second, and the share of the device's peak, of GPT-2's 124M parameters.

    Tokens are random; the model is compiled, and computes in bfloat16.
    """
    device, batch, block = given.device, given.batch, 1024
    torch.manual_seed(0)
    model = GPT(GPTConfig.gpt2(vocab_size=50304, block_size=block)).to(device).train()
    optimizer = Optimizer(model.named_parameters())
    x, y = torch.randint(50257, (2, batch, block), device=device)
    if not compile_blocks(model, x, "bfloat16"):
        raise RuntimeError("torch.compile failed, so there is nothing to measure")

    step = functools.partial(train_step, model, optimizer, x, y, "bfloat16")
    speed = batch * block / median_seconds(step, times=20)
    # 6 operations for each weight and token, and attention (nanoGPT counts so, after PaLM,
    # arXiv:2204.02311).
    flops = 6 * (model.n_parameters() - block * 768) + 12 * 12 * 768 * block
    name = torch.cuda.get_device_name() if device == "cuda" else device
    peak = next((rate for key, rate in PEAK.items() if key in name), math.nan)
    figures = {"minigen": {"tokens/s": speed, "share": flops * speed / peak}}
    if given.nanogpt and device == "cuda":
        command = [given.peers_python, "bench.py", "--real_data=False", "--bias=True"]
        command += [f"--batch_size={batch}", f"--block_size={block}"]
        _, printed = run(command, given.threads, cwd=given.nanogpt)
        (ms,) = re.findall(r"time per iteration: ([\d.]+)ms", printed)
        speed = batch * block / float(ms) * 1e3
        figures["nanoGPT"] = {"tokens/s": speed, "share": flops * speed / peak}
    rows = [(n, f"{f['tokens/s']:,.0f}", f"{f['share']:.1%}") for n, f in figures.items()]
    table((f"{name}, batch {batch} x {block}", "tokens/s", "of peak"), rows)
    return figures


def main() -> None:
    """Run the benchmark that the flags ask for, and record its figures."""
    parser = options(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--text", type=Path, help="an ASCII text; tiny Shakespeare")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.25, 0.5, 1, 2])
    parser.add_argument("--flags", default="", help="more flags for minigen's train.py")
    parser.add_argument(
        "--peer-flags", default="--learning_rate=0.004 --min_lr=0.0002", help="nanoGPT's, tuned"
    )
    parser.add_argument("--windows", action="store_true", help="minigen alone, with both windows")
    parser.add_argument("--tokens", action="store_true", help="measure speed, not loss")
    parser.add_argument(
        "--times", type=float, help="of minigen's time for nanoGPT, with the same tokens"
    )
    parser.add_argument("--device", default="cpu", help="cuda: 124M there")
    parser.add_argument("--batch", type=int, default=32, help="sequences, with --device cuda")
    parser.add_argument("--score", type=Path, help="(a process of this benchmark)")
    given = parser.parse_args()
    if given.score:
        return print(score(given.score))
    if given.device != "cpu":
        return record("train --device", device_rate(given), given)
    if given.text is None:
        parser.error("give --text")
    given.cache = given.cache.resolve()
    if given.windows:
        return record("train --windows", windows(given), given)
    if given.nanogpt:
        prepare_nanogpt(given)
    elif given.times:
        parser.error("give --nanogpt, a checkout of it")
    else:
        print("nanoGPT: skipped (give --nanogpt, a checkout of it)")
    if given.times:
        return record("train --times", in_more_time(given), given)
    benchmark = tokens if given.tokens else losses
    record("train --tokens" if given.tokens else "train", benchmark(given), given)


if __name__ == "__main__":
    main()

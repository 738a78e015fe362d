"""More than one process: each works on a share of every batch, and all end a step alike.

    torchrun --nproc_per_node=8 train.py           DDP: each has the whole model
    torchrun --nproc_per_node=8 train.py --fsdp    FSDP2: each has an eighth of every matrix

torchrun starts the processes and numbers them: `rank` 0 to `size` - 1. Here stands all that they
say to each other. The model knows nothing of it, and its parameters keep their names. Without
torchrun there is one process, nothing is set up, and each function gives back what it was given.

A batch is cut into the same micro-batches, however many ranks there are. A rank takes each
`size`-th, and gradients are added up over all ranks. Only rank 0 logs and writes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.nn.parallel import DistributedDataParallel

from minigen import optim
from minigen.errors import UserError
from minigen.files import huggingface, lora
from minigen.loss import NOT_SCORED
from minigen.model import GPT
from minigen.system.device import choose_device

Item = TypeVar("Item")


# ---- who is there ----


def launch() -> str | None:
    """The name of this launch (torchrun's --rdzv-id), or None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def size() -> int:
    """The number of processes."""
    return int(os.environ["WORLD_SIZE"]) if launch() else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return int(os.environ["RANK"]) if launch() else 0


def is_main_process() -> bool:
    """Whether this process is the one that speaks and writes."""
    return rank() == 0


def join(device: str) -> None:
    """Meet the other processes, and take one GPU for each. `UserError` if there are too few."""
    if size() == 1 or dist.is_initialized():
        return
    kind = choose_device(device).type
    if kind == "cuda":
        local, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= here:
            raise UserError(f"this machine has only {here} GPUs; give --nproc_per_node={here}")
        torch.cuda.set_device(local)  # what "cuda" means from now on
    elif kind != "cpu":
        raise UserError(f"{kind} works with one process only; give --device cpu, or no torchrun")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        timeout=timedelta(minutes=10),
        store=_fresh_store(),
        rank=rank(),
        world_size=size(),
    )
    _patient_group()


def _fresh_store() -> Store:
    """A part of torchrun's store of keys and values that no processes of before have used.

    torchrun keeps one store while it starts its processes again and again. Who looks there for the
    others would find the addresses of the dead: https://github.com/pytorch/pytorch/issues/135712.
    So the first process draws a name for the place; that it is still there shows in its answer.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = is_main_process() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=hosts, timeout=timedelta(minutes=10)
    )
    if is_main_process():
        place = uuid.uuid4().hex
        store.set("place", place)
        for other in range(1, size()):
            store.set(f"{place}/{other}/{store.get(f'{place}/{other}').decode()}", "welcome")
        return PrefixStore(place, store)
    call = uuid.uuid4().hex
    while True:
        place = store.get("place").decode()
        store.set(f"{place}/{rank()}", call)
        with contextlib.suppress(dist.DistStoreError):  # no answer; is there another place by now?
            store.wait([f"{place}/{rank()}/{call}"], timedelta(seconds=1))
            return PrefixStore(place, store)


@functools.cache
def _patient_group() -> dist.ProcessGroup:
    """All of them again, as those who may wait long: until a text is tokenised or a model saved."""
    group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    assert isinstance(group, dist.ProcessGroup)
    return group


@contextlib.contextmanager
def rank0_only() -> Iterator[None]:
    """Let only the first process speak, and end together.

    What ends a process makes torchrun end the others. So an error that all have is left to the
    first; another process tells its own only when the first had the time to tell the same.
    """
    try:
        with contextlib.ExitStack() as stack:
            if not is_main_process():
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield
            if dist.is_initialized():
                barrier()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, to who leaves second
                dist.destroy_process_group()
    except (UserError, RuntimeError) as error:
        lost = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
        if not lost and not isinstance(error, UserError):
            raise
        if not is_main_process():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(5)
        if lost:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"lost the other processes ({reason}); torchrun names the first to end"
            ) from None
        raise


def find_launched_run(out_dir: Path) -> Path | None:
    """The run in `out_dir` that this launch has begun, if torchrun starts its processes again.

    It does so where one has died (--max-restarts), or where machines come and go.
    """
    # "none": torchrun was given no name, so another launch may have it too.
    name = launch()
    if name is None or (
        name == "none" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    ):
        return None
    notes = itertools.chain(out_dir.glob("*/launch"), out_dir.glob("*/*/launch"))  # --name exp/one
    signed = [path for path in notes if path.is_file() and path.read_bytes() == name.encode()]
    return max((path.parent for path in signed), key=lambda run: run.stat().st_mtime, default=None)


def record_launch(run: Path) -> None:
    """Note in a new run's folder which launch began it, for `find_launched_run`."""
    if name := launch():
        (run / "launch").write_text(name, "utf-8")


# ---- what they say to each other ----


def barrier() -> None:
    """Go on when all processes have come to this point."""
    if size() > 1:
        dist.barrier(_patient_group())


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Replace a tensor by the sum of the tensors of all ranks, and return it."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(number: int) -> int:
    """Return the highest of the numbers that the ranks give."""
    if size() == 1:
        return number
    numbers = torch.tensor(number)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def broadcast(number: float) -> float:
    """Return the number that rank 0 gives: clocks differ, so one of them decides."""
    if size() == 1:
        return number
    numbers = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(numbers, src=0)
    return float(numbers)


# ---- who does what ----


def micro_batches_of_rank(micro_batches: Sequence[Item], model: nn.Module) -> Iterator[Item]:
    """Yield the micro-batches of this rank.

    Each rank adds up its gradients. DDP averages them over the ranks in the backward pass of the
    last micro-batch only, as that takes time.
    """
    mine = micro_batches[rank() :: size()]
    for number, item in enumerate(mine, 1):
        if isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = number == len(mine)
        yield item


def split_over_ranks(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of batches (x, y): as many as each other has, as FSDP asks for.

    Where they do not come out even, a batch comes once more without targets: its y is -1.
    """
    batches = iter(batches)
    while group := list(itertools.islice(batches, size())):
        mine = rank() < len(group)
        x, y = group[rank() if mine else 0]
        yield x, y if mine else torch.full_like(y, NOT_SCORED)


def distribute(model: GPT, device: str, dtype: str, fsdp: bool) -> nn.Module:
    """Bring the model to the device; return what to call in its place to train it.

    The gradients are then the mean over the processes.

    Args:
        model: the same on all processes, on the CPU.
        dtype: of products. A block's weights are gathered in it, so that none are kept for long.
        fsdp: keep only a share of each parameter (Zhao et al. 2023, arXiv:2304.11277), and gather
            a block's when it is its turn.
    """
    if size() > 1 and fsdp:
        # Here, as it takes a while to import.
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # On CPUs it warns that it has to gather where it would exchange.
        logging.getLogger("torch.distributed.tensor._collective_utils").setLevel(logging.ERROR)
        mesh = dist.device_mesh.init_device_mesh(torch.device(device).type, (size(),))
        products = MixedPrecisionPolicy(
            getattr(torch, dtype), reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=products)
        fully_shard(model, mesh=mesh)
        return model
    model.to(device)
    return DistributedDataParallel(model, gradient_as_bucket_view=True) if size() > 1 else model


# ---- tensors of which each process has a share: PyTorch's DTensor, slow to import ----


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a whole tensor of which each rank may have a shard; all ranks must call this."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def gather_full(model: GPT, state: Mapping[str, Tensor]) -> tuple[GPT, Mapping[str, Tensor]]:
    """The model and the optimiser's state as the first process is to save them: on it, whole."""
    if not _is_sharded(next(iter(state.values()))):  # FSDP's model may just have been gathered
        return model, state
    weights, state = ({name: _to_rank0(t) for name, t in tensors.items()}
                      for tensors in (model.state_dict(), state))  # fmt: skip
    plain = huggingface.empty_model(model.config)
    if lora.is_added(model):
        lora.add(plain, len(lora.pair(next(lora.matrices(model)))[0]))
    plain.load_state_dict(weights, assign=True)
    return plain, state


def _to_rank0(tensor: Tensor) -> Tensor:
    """The whole tensor on the first process, and no memory for it on the others."""
    return full_tensor(tensor).to("cpu" if is_main_process() else "meta")


def shard_like(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Of whole tensors what this process has to keep, cut as those of `like` are."""
    pattern = next(iter(like.values()))
    if not _is_sharded(pattern):
        return tensors
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(pattern, DTensor)
    mesh, cut = pattern.device_mesh, pattern.placements
    return {name: distribute_tensor(t.to(pattern.device), mesh, cut, src_data_rank=None)
            for name, t in tensors.items()}  # fmt: skip


def orthogonalise(matrices: Tensor) -> Tensor:
    """`optim.newton_schulz`, which needs whole matrices: each process takes some of them.

    Args:
        matrices: (n, rows, columns); of a share, each process has some rows of all n.
    """
    if not _is_sharded(matrices):
        return optim.newton_schulz(matrices)
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(matrices, DTensor)
    mine = matrices.redistribute(placements=[Shard(0)])  # all rows of some matrices
    done = optim.newton_schulz(mine)
    assert isinstance(done, DTensor)
    return done.redistribute(placements=[Shard(1)])

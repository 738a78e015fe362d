"""Train with several processes: all communication between ranks is in this file.

    torchrun --nproc_per_node=8 train.py           DDP: each rank holds the whole model
    torchrun --nproc_per_node=8 train.py --fsdp    FSDP2: each rank holds an eighth of each matrix

torchrun starts the processes and gives each a rank, from 0 to the world size - 1. The model knows
nothing of ranks, and its parameters keep their names. Without torchrun the world size is 1: nothing
is set up, and each function returns its argument unchanged.

A batch is cut into the same micro-batches for any world size. Rank r of n computes micro-batches
r, r + n, r + 2n, ..., and the gradients are summed over all ranks: so any world size takes the same
steps, up to rounding (test_ddp_trains_as_one_process_does). Only rank 0 logs and saves.
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
from minigen.data.batches import Batch
from minigen.errors import UserError
from minigen.files import huggingface, lora
from minigen.loss import NOT_SCORED
from minigen.model import GPT
from minigen.system.device import choose_device

Item = TypeVar("Item")


# ---- ranks, and how they find each other ----


def launch() -> str | None:
    """Return the name of this launch (torchrun's --rdzv-id); None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def size() -> int:
    """Return the world size: the number of ranks."""
    return int(os.environ["WORLD_SIZE"]) if launch() else 1


def rank() -> int:
    """Return the number of this process among the ranks, counted from 0."""
    return int(os.environ["RANK"]) if launch() else 0


def is_main_process() -> bool:
    """Return whether this process is rank 0, the only one that logs and saves."""
    return rank() == 0


# With PyTorch 2.7, two ranks on a CPU get gradients that are twice as large as they should be, and
# no error; 2.6 cannot shard there at all. From this version on the tests of FSDP pass.
FSDP_SINCE = "2.9"


def join(device: str, fsdp: bool = False) -> None:
    """Set up communication with the other ranks, and choose one GPU for this rank.

    Raises `UserError` if the machine has fewer GPUs than ranks, if `device` is "mps", or if `fsdp`
    is true and PyTorch is older than `FSDP_SINCE`.
    """
    if size() == 1 or dist.is_initialized():
        return
    if fsdp and torch.__version__ < FSDP_SINCE:  # a TorchVersion, so 2.13 is later than 2.9
        raise UserError(
            f"--fsdp needs PyTorch {FSDP_SINCE} or later, and this is {torch.__version__}; "
            "install a later one, or leave out --fsdp"
        )
    kind = choose_device(device).type
    if kind == "cuda":
        local_rank, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= n_gpus:
            raise UserError(f"this machine has only {n_gpus} GPUs; give --nproc_per_node={n_gpus}")
        torch.cuda.set_device(local_rank)  # from now on "cuda" means this GPU
    elif kind != "cpu":
        raise UserError(f"{kind} works with one process only; give --device cpu, or no torchrun")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        timeout=timedelta(minutes=10),
        store=_fresh_store(),
        rank=rank(),
        world_size=size(),
    )
    _long_timeout_group()  # creating it is a collective, so all ranks must do it here


def _fresh_store() -> Store:
    """Return a view of torchrun's TCPStore, a shared dictionary, under a prefix never used before.

    The store survives when torchrun restarts the ranks, and would give the new ranks the network
    addresses of the dead ones (https://github.com/pytorch/pytorch/issues/135712). So rank 0
    publishes a random prefix. Another rank may read the prefix of a dead rank 0, hence it asks for
    an acknowledgement and reads the prefix again until rank 0 has sent one.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = is_main_process() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=hosts, timeout=timedelta(minutes=10)
    )
    if is_main_process():
        prefix = uuid.uuid4().hex
        store.set("prefix", prefix)
        for other in range(1, size()):
            request = store.get(f"{prefix}/{other}").decode()  # waits until that rank has asked
            store.set(f"{prefix}/{other}/{request}", "acknowledged")
        return PrefixStore(prefix, store)
    request = uuid.uuid4().hex
    while True:
        prefix = store.get("prefix").decode()
        store.set(f"{prefix}/{rank()}", request)
        with contextlib.suppress(dist.DistStoreError):  # no answer: is there a new prefix by now?
            store.wait([f"{prefix}/{rank()}/{request}"], timedelta(seconds=1))
            return PrefixStore(prefix, store)


@functools.cache
def _long_timeout_group() -> dist.ProcessGroup:
    """Return a Gloo group of all ranks with a timeout of one day, for `barrier`.

    The other ranks wait there while rank 0 tokenises a text or saves a checkpoint, which may take
    longer than the ten minutes after which a collective of training counts as failed.
    """
    group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    assert isinstance(group, dist.ProcessGroup)
    return group


@contextlib.contextmanager
def rank0_only() -> Iterator[None]:
    """Silence stderr on all ranks but rank 0, and let all ranks exit together.

    torchrun ends all ranks as soon as one exits. So an error that all ranks raise is reported by
    rank 0 alone: another rank waits five seconds before it reports its own error, and in most cases
    is ended during that time (test_an_error_of_all_ranks_is_reported_once). A lost connection
    becomes a `UserError`.
    """
    try:
        with contextlib.ExitStack() as stack:
            if not is_main_process():
                devnull = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stderr(devnull))
            yield
            if dist.is_initialized():
                barrier()
                # torchrun sends SIGTERM to the rank that exits second, which has nothing to lose.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                dist.destroy_process_group()
    except (UserError, RuntimeError) as error:
        is_lost = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
        if not is_lost and not isinstance(error, UserError):
            raise
        if not is_main_process():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # so that torchrun can end this rank now
            time.sleep(5)
        if is_lost:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"lost the connection to the other processes ({reason}); "
                "torchrun names the process that ended first"
            ) from None
        raise


def find_launched_run(out_dir: Path) -> Path | None:
    """Return the newest run in `out_dir` that this launch started; None if there is none.

    torchrun restarts all ranks after one has died (--max-restarts), or when machines join or leave.
    The restarted ranks must resume that run instead of starting a new one.
    """
    # torchrun's name is "none" unless the user gave one. An earlier launch may have had it, too, so
    # the name proves something only after a restart of this launch.
    name = launch()
    if name is None or (
        name == "none" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    ):
        return None
    # --name may hold a folder, as in --name exp/one.
    paths = itertools.chain(out_dir.glob("*/launch"), out_dir.glob("*/*/launch"))
    matching = [path for path in paths if path.is_file() and path.read_bytes() == name.encode()]
    runs = (path.parent for path in matching)
    return max(runs, key=lambda run: run.stat().st_mtime, default=None)


def record_launch(run: Path) -> None:
    """Write the name of this launch into a new run's folder, where `find_launched_run` reads it."""
    if name := launch():
        (run / "launch").write_text(name, "utf-8")


# ---- collectives: every rank must call these ----


def barrier() -> None:
    """Wait until all ranks have reached this call."""
    if size() > 1:
        dist.barrier(_long_timeout_group())


@contextlib.contextmanager
def rank_0_first() -> Iterator[None]:
    """Let rank 0 execute a block before the other ranks do, so that they find what it has written.

    If rank 0 raises an error, the others wait until torchrun ends them.
    """
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Replace a tensor by the sum of the tensors of all ranks, and return it."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(number: int) -> int:
    """Return the largest of the numbers of all ranks."""
    if size() == 1:
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def broadcast(number: float) -> float:
    """Return rank 0's number on all ranks. Clocks differ, so a decision by the time needs this."""
    if size() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(tensor, src=0)
    return float(tensor)


# ---- the work of each rank ----


def micro_batches_of_rank(micro_batches: Sequence[Item], model: nn.Module) -> Iterator[Item]:
    """Yield the micro-batches of this rank.

    DDP averages the gradients over the ranks in the backward pass of the last micro-batch only: the
    exchange takes time, and the sum over the rank's micro-batches is complete only then.
    """
    own = micro_batches[rank() :: size()]
    for number, item in enumerate(own, 1):
        if isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = number == len(own)
        yield item


def split_over_ranks(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of this rank: batches r, r + n, r + 2n, ... for rank r of n.

    Each rank gets the same number of batches, because with FSDP each forward pass is a collective.
    If the batches run out, a rank gets a batch a second time, with y = `NOT_SCORED` everywhere, so
    that no target counts twice.
    """
    batches = iter(batches)
    while group := list(itertools.islice(batches, size())):
        has_own = rank() < len(group)
        batch = group[rank() if has_own else 0]
        yield batch if has_own else batch._replace(y=torch.full_like(batch.y, NOT_SCORED))


def distribute(model: GPT, device: str, dtype: str, fsdp: bool) -> nn.Module:
    """Move the model to the device; return the module to call in training instead of `model`.

    With several ranks, that module averages the gradients over the ranks.

    Args:
        model: equal on all ranks, on the CPU.
        dtype: the number format of matrix products. FSDP gathers a block's weights in this format.
        fsdp: shard each parameter over the ranks (Zhao et al. 2023, arXiv:2304.11277). A block's
            weights are gathered just before the block is computed, and freed after it.
    """
    if size() > 1 and fsdp:
        # Imported here, because the import takes a while.
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # Silences a warning on CPUs: Gloo has no all-to-all, so an all-gather replaces it.
        logging.getLogger("torch.distributed.tensor._collective_utils").setLevel(logging.ERROR)
        mesh = dist.device_mesh.init_device_mesh(torch.device(device).type, (size(),))
        precision = MixedPrecisionPolicy(
            getattr(torch, dtype), reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=precision)
        fully_shard(model, mesh=mesh)
        return model
    model.to(device)
    return DistributedDataParallel(model, gradient_as_bucket_view=True) if size() > 1 else model


# ---- sharded tensors: PyTorch's DTensor, which is slow to import ----


def _is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which this rank holds a shard."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of which each rank may hold a shard; all ranks must call this."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def gather_full(model: GPT, state: Mapping[str, Tensor]) -> tuple[GPT, Mapping[str, Tensor]]:
    """Gather a sharded model and optimiser state on rank 0, to be saved there.

    On the other ranks the returned tensors are on the "meta" device, which takes no memory. A model
    that is not sharded is returned as it is.
    """
    if not _is_sharded(next(iter(state.values()))):  # a parameter may be gathered for the moment
        return model, state
    weights, state = ({name: _to_rank0(t) for name, t in tensors.items()}
                      for tensors in (model.state_dict(), state))  # fmt: skip
    full = huggingface.empty_model(model.config)
    if lora.is_added(model):
        lora.add(full, len(lora.pair(next(lora.matrices(model)))[0]))
    full.load_state_dict(weights, assign=True)
    return full, state


def _to_rank0(tensor: Tensor) -> Tensor:
    """Return the full tensor on rank 0's CPU, and an empty "meta" tensor on the other ranks."""
    return full_tensor(tensor).to("cpu" if is_main_process() else "meta")


def shard_like(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Shard full tensors with the device mesh and the placements of `like`.

    Args:
        tensors: by name, equal on all ranks.
        like: tensors that are all sharded alike, or all not sharded; then `tensors` is returned.
    """
    pattern = next(iter(like.values()))
    if not _is_sharded(pattern):
        return tensors
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(pattern, DTensor)
    mesh, placements = pattern.device_mesh, pattern.placements
    return {name: distribute_tensor(t.to(pattern.device), mesh, placements, src_data_rank=None)
            for name, t in tensors.items()}  # fmt: skip


def orthogonalise(matrices: Tensor) -> Tensor:
    """Compute `optim.newton_schulz` of sharded matrices: each rank takes some full matrices.

    Newton-Schulz multiplies whole matrices, and a rank holds only some rows of each. So an
    all-to-all first gives each rank all rows of some matrices, and a second one gives the rows
    back. Each matrix is then computed once, and not once on each rank.

    Args:
        matrices: (n, rows, columns); a DTensor that is sharded over the rows, or a full tensor.
    """
    if not _is_sharded(matrices):
        return optim.newton_schulz(matrices)
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(matrices, DTensor)
    own = matrices.redistribute(placements=[Shard(0)])  # all rows of some matrices
    result = optim.newton_schulz(own)
    assert isinstance(result, DTensor)
    return result.redistribute(placements=[Shard(1)])

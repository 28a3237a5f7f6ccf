"""The processes that train one run together: which of them this is, and what they do as one.

torchrun starts them and tells each its place through the environment; without it there is one process, and everything
here is a matter of course. They agree over a gloo group of their own: on the host, so that no GPU waits for an answer.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import EnvironmentLacksError, TunesmithError
from ..records import Finding, Plan
from ..rules import finding
from ..track.failures import told_failure

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

_PATIENCE: Final = timedelta(hours=1)  # one process may evaluate or write while the others wait
_LAST_WORD: Final = 2.0  # seconds in which a process that fails says why
_DRIFT: Final = 1e-6  # of the sum of all weights' magnitudes: replicas are equal to the last bit
# How gloo and NCCL say that another process is gone. Source: torch 2.13, what it raised when one was killed.
_LOST: Final = ("Connection closed by peer", "Connection reset by peer", "ncclRemoteError", "Broken pipe", "Gloo")
# accelerate.DistributedType of each way to share the work.
_TYPES: Final = {"ddp": ("MULTI_GPU", "MULTI_CPU"), "fsdp": ("FSDP",), "zero2": ("DEEPSPEED",), "zero3": ("DEEPSPEED",)}


def rank() -> int:
    """The number of this process among those that train together, over all machines."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_main() -> bool:
    """Whether this process is the one that writes records, events and results."""
    return rank() == 0


@functools.cache
def _group() -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def gathered(value: Any) -> list[Any]:
    """What each process gives, by its number. All of them have to call it."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value, group=_group())
    return values


def anywhere(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process. All of them have to call it."""
    if count() == 1:
        return list(flags)
    import torch
    import torch.distributed as dist

    together = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(together, op=dist.ReduceOp.MAX, group=_group())
    return [bool(flag) for flag in together]


def wait() -> None:
    """Until every process has come here."""
    anywhere(False)


def leave() -> None:
    """End together: a process that goes while others still talk to it would look like one that died."""
    import torch.distributed as dist

    if count() > 1 and dist.is_initialized():
        wait()
        dist.destroy_process_group()
        _group.cache_clear()


def local_part(parameter: torch.Tensor) -> torch.Tensor:
    """What this process holds of a parameter: all of it, or its shard under FSDP2 (a DTensor) or ZeRO-3."""
    part = getattr(parameter, "ds_tensor", parameter)
    local: torch.Tensor = part.to_local() if hasattr(part, "to_local") else part
    return local


def size_of(parameter: torch.Tensor) -> int:
    """Elements of the whole parameter; ZeRO-3 leaves an empty one in its place."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def full_state(trainer: Trainer) -> dict[str, Any] | None:
    """The whole model's weights in the main process' memory, where they are spread over processes; else None.

    All processes have to call it. On others than the main one the weights may be missing.
    """
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("FSDP", "DEEPSPEED"):
        return None
    wrapped = trainer.model_wrapped if kind == "DEEPSPEED" else trainer.model
    state: dict[str, Any] = trainer.accelerator.get_state_dict(wrapped) or {}
    for name, source in getattr(trainer.model, "all_tied_weights_keys", {}).items():
        if name in state and source in state:
            state[name] = state[source]  # gathered, they are two copies; save_pretrained leaves out what is shared
    return state


def check(trainer: Trainer, plan: Plan, step: int) -> Iterator[Finding]:
    """R035 to R037: the processes that were planned train together, as planned, from the same point.

    `step` is where this process begins. All of them have to call it.
    """
    if count() != plan.processes.total:
        yield finding("R036", "launch.processes", actual=count(), planned=plan.processes.total)
        return
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    if plan.processes.sharding != "none" and kind not in _TYPES[plan.processes.sharding]:
        yield finding("R037", "launch.sharding", planned=plan.processes.sharding, actual=kind)
    if len({(plan.model_dump_json(), step) for plan, step in gathered((plan, step))}) > 1:
        yield finding("R035", "launch.nodes", what="The plan, or the checkpoint that they begin from,", count=count())


def check_replicas(model: Any, plan: Plan) -> Iterator[Finding]:
    """R035 where each process holds all weights, and they have become different. All have to call it."""
    if plan.processes.sharding != "ddp" or count() == 1:
        return
    import torch

    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    sums = gathered([float(torch.linalg.vector_norm(part.double())) for part in trained])
    if any(
        abs(mine - one) > _DRIFT * abs(mine) for other in sums[1:] for mine, one in zip(sums[0], other, strict=True)
    ):
        yield finding("R035", "model", what="What was trained", count=count())


def lost_another(error: Exception, folder: Path) -> TunesmithError | None:
    """What to say where this process failed only because another one is gone; None for any other failure."""
    if count() == 1 or not any(sign in str(error) for sign in _LOST):
        return None
    deadline = time.monotonic() + _LAST_WORD
    while (told := told_failure(folder)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return told or EnvironmentLacksError(
        "Another process of this run has ended, and this one can't go on alone.",
        why="A process that is killed leaves no word; mostly its memory had run out.",
        fix=f"Look at {folder / 'worker.log'}, use a smaller batch, then `tunesmith resume {folder}`.",
    )

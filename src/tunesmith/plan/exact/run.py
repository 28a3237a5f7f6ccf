"""Two optimizer steps of the real trainer under fake tensors, and the memory of each phase."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ...errors import UsageError
from .cuda import KERNELS, SCRATCH, WORKSPACE, act_like_cuda, replace
from .model import build_model, convert, materialise
from .past import take_old_loss
from .request import Request, first_line
from .storages import StorageTracker
from .trainers import build_trainer
from .watch import Watch

PHASES = ("forward", "backward", "clip", "optimizer")


def run_step(folder: Path, request: Request) -> dict[str, Any]:
    """Bytes of weights, gradients, optimizer and kept activations, and the peak of each phase.

    Changes torch, Transformers and TRL for the rest of this process.

    Raises:
        UsageError: the model can't be built, or an argument is refused.
    """
    act_like_cuda(padded=request.padded)
    replace(torch.nn.Module, "to", convert)
    if request.code != "today":
        take_old_loss()
    model = build_model(folder, request)
    tracker = StorageTracker(KERNELS, SCRATCH)
    watch = Watch(tracker)
    with tempfile.TemporaryDirectory() as output, FakeTensorMode(allow_non_fake_inputs=True), tracker:
        materialise(model)
        try:
            trainer = build_trainer(model, request, watch, folder, output)
        except ValueError as error:
            raise UsageError(
                "TRL or PEFT refuses the step.",
                why=first_line(error),
                fix="Correct `training:` or `adapter:` in the recipe.",
            ) from error
        trainer.train()
    parameters = list(trainer.model.parameters())
    return {
        **watch.marks,
        "phases": {name: tracker.peaks[name] + WORKSPACE for name in PHASES},
        "parameters": sum(_elements(parameter) for parameter in parameters),
        "trained": sum(_elements(parameter) for parameter in parameters if parameter.requires_grad),
    }


def _elements(parameter: torch.Tensor) -> int:
    return int(parameter.numel()) * (2 if parameter.dtype == torch.uint8 else 1)  # two weights of 4 bits in a byte

"""One of several processes that train run folders one after the other: each start of a process costs seconds.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.support.processes FOLDER...

A run folder's `scenario` names what happens in it. FSDP2 is done on CPUs, which accelerate (1.15) does on GPUs only: a
configuration of FSDP becomes DDP there, without a word; a folder `unshimmed` keeps it so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback

from tunesmith.train import ranks
from tunesmith.train.methods import sft
from tunesmith.train.worker import Worker, main

_init = AcceleratorState.__init__


def _as_on_gpus(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    if kwargs.get("fsdp_plugin") is not None:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    _init(self, *args, **kwargs)


class AtStep(TrainerCallback):
    """Does something after a step, as a callback of the user's could."""

    def __init__(self, step: int, act: Callable[[Any], None]) -> None:
        self.step = step
        self.act = act

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act(model)


def _second_is_asked_to_stop(_model: Any) -> None:
    """As a machine that is taken away asks only the processes on it; and once more by torchrun."""
    if ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def _second_drifts(model: Any) -> None:
    if ranks.rank() == 1:
        with torch.no_grad():
            next(model.parameters()).add_(0.01)


def _second_fails(_model: Any) -> None:
    if ranks.rank() == 1:
        raise MemoryError("out of memory in the second")


SCENARIOS = {"stop": _second_is_asked_to_stop, "drift": _second_drifts, "fail": _second_fails}


def train(folder: Path) -> int:
    """Train a folder as its name and the file `scenario` in it say, the first time; gives the worker's exit code."""
    AcceleratorState.__init__ = _init if folder.name == "unshimmed" else _as_on_gpus
    sft.WORTH = 0 if folder.name == "fast" else 2_000
    build, told = Worker._trainer, folder / "scenario"
    name, _, at = told.read_text().partition(" ") if told.exists() else ("", "", "")

    def with_callback(self: Worker, step: int) -> Any:
        if name == "elsewhere" and ranks.rank() == 1:
            self.plan = self.plan.model_copy(update={"epochs": 99.0})
        trainer = build(self, step)
        if at:
            trainer.callback_handler.callbacks.insert(0, AtStep(int(at), SCENARIOS[name]))
        return trainer

    Worker._trainer = with_callback
    try:
        return main([str(folder)])
    finally:
        Worker._trainer = build


def forget() -> None:
    """What accelerate keeps for a process, but for the group of processes: that one can be made only once."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    for name in [name for name in os.environ if name.startswith(("FSDP_", "ACCELERATE_"))]:
        del os.environ[name]


if __name__ == "__main__":
    ranks.leave = ranks.wait
    codes = {}
    for path in sys.argv[1:]:
        codes[Path(path).name] = train(Path(path))
        forget()
        (Path(path) / "scenario").unlink(missing_ok=True)
    if ranks.is_main():
        Path("codes.json").write_text(json.dumps(codes))

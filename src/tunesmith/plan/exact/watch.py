"""Telling the tracker which phase of the step it is."""

from __future__ import annotations

from typing import Any

import torch

from .optimizers import stand_in
from .storages import StorageTracker


class Watch:
    """Tells the tracker which phase it is, and notes what lives between phases."""

    def __init__(self, tracker: StorageTracker) -> None:
        self.tracker = tracker
        self.marks: dict[str, int] = {}
        self._held = 0

    def begin(self, optimizer: Any) -> None:
        """Training begins: there are weights and no more."""
        for group in optimizer.param_groups:
            if group.get("foreach", True) is None and not group.get("fused"):
                group["foreach"] = True  # CUDA's default; the CPU's is a loop
        self.marks["weights"] = self.tracker.current
        self.tracker.peaks.clear()

    def forward(self) -> None:
        """A micro-batch begins."""
        self._held = self.tracker.current
        self.tracker.enter("forward")

    def backward(self) -> None:
        """The forward pass is over; what it keeps is there."""
        self.marks["activations"] = self.tracker.current - self._held
        self.tracker.enter("backward")

    def clip(self) -> None:
        """The gradients are there."""
        self.tracker.enter("clip")

    def optimizer(self) -> None:
        """The optimizer is about to step."""
        self._held = self.tracker.current
        self.tracker.enter("optimizer")

    def end(self, model: torch.nn.Module) -> None:
        """The optimizer has stepped; gradients are still there."""
        grown = self.tracker.current - self._held
        self.marks["optimizer"] = self.marks.get("optimizer", 0) + grown
        self.marks["gradients"] = sum(
            parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None
        )
        self.tracker.enter("between")


def _without_data(base: Any) -> Any:
    """The trainer without what needs data or bitsandbytes: counting FLOPs, preparing rows, its optimizers."""

    class WithoutData(base):
        def floating_point_ops(self, inputs: Any) -> int:
            return 0

        @staticmethod
        def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> Any:
            return stand_in(args.optim, model) or base.get_optimizer_cls_and_kwargs(args, model)

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset

    return WithoutData


def watched(base: Any, watch: Watch) -> Any:
    """The trainer, with `watch` told of each phase."""
    faked: Any = _without_data(base)

    class Watched(faked):
        def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
            prepared = super()._prepare_for_training(*args, **kwargs)
            watch.begin(self.optimizer)
            forwards_end, optimizer_step = self.accelerator.backward, self.optimizer.step

            def backward(*args: Any, **kwargs: Any) -> None:
                watch.backward()
                forwards_end(*args, **kwargs)

            def step(*args: Any, **kwargs: Any) -> None:
                watch.optimizer()
                optimizer_step(*args, **kwargs)
                watch.end(self.model)

            self.accelerator.backward, self.optimizer.step = backward, step
            return prepared

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            watch.forward()
            return super().training_step(*args, **kwargs)

        def _clip_grad_norm(self, model: Any) -> Any:
            watch.clip()
            return super()._clip_grad_norm(model)

    return Watched

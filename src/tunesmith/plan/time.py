"""How long a run takes, as intervals: start, training, evaluation, export.

Training is computed thrice, with a slow, a likely and a fast pace: the share of the device's peak by
`plan/efficiency.py`, the host's time to start a kernel, the communication that hides behind computing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..records import ModelFacts
from ..records.cost import Range, TimeEstimate
from .documents import Documents
from .efficiency import FAST, LIKELY, SLOW, expected_efficiency, is_measured
from .machines import Device, Machine
from .speed import Pace, Seconds, moving_seconds, peak_rate, seconds
from .work import Load, forward_load, micro_batch, step_load, trained_parameters

if TYPE_CHECKING:
    from .memory.step import Step

# Rates in units per second: low, likely, high. Preparing rows, in tokens: TRL's own way 0.2 M on two cores, the fast
# path 0.4 to 0.6 (measured, November 2026). The others are practice: the Hub to a cloud machine, a network disk, NVMe.
_PREPARED = (0.15e6, 0.4e6, 1.5e6)
_DOWNLOADED = (0.03e9, 0.15e9, 0.8e9)
_LOADED = (0.3e9, 1.0e9, 3e9)
_WRITTEN = (0.2e9, 0.8e9, 2e9)
_MERGED = (0.05e9, 0.2e9, 0.6e9)  # bytes of bf16 weights merged in fp32, compared and written by a processor
_CONVERTED = (0.05e9, 0.2e9, 0.6e9)  # bytes of bf16 weights made into one GGUF file and checked
_IMPORTS = Range(low=8, likely=15, high=40)  # torch 1.2 to 2.8 s, SFTTrainer 6 to 7 s, CUDA's start; a cold disk: more
_DECODE = 1.5  # generate()'s bookkeeping beside the kernels of one token
_PROBED = (0.92, 1.0, 1.15)  # what a few measured steps leave open: warm-up, other lengths, saving


@dataclass(frozen=True)
class Schedule:
    """What a run does, beside its step.

    Attributes:
        epochs: Passes over the rows.
        accumulation: Micro-batches per update.
        updates: Updates of the weights; None: as many as the epochs have.
        packed: Rows are packed to the step's length.
        grouped: Rows of like length come together.
        scored: Share of the tokens that the loss is taken on.
        checkpoints: Times that a checkpoint is written.
        evaluations: Times that the held-out loss is taken.
        eval_rows: Held-out rows.
        eval_answers: Answers to each of them in an evaluation, where the method generates.
        compared_rows: Rows that base and tuned model answer at the end.
        new_tokens: Tokens of such an answer at most.
        merged: Whether the adapter is merged and the model written.
        gguf: GGUF files that are made.
        download: Bytes fetched before anything starts; 0 where the model is there.
    """

    epochs: float = 1.0
    accumulation: int = 1
    updates: int | None = None
    packed: bool = False
    grouped: bool = False
    scored: float = 1.0
    checkpoints: int = 0
    evaluations: int = 0
    eval_rows: int = 0
    eval_answers: int = 1
    compared_rows: int = 0
    new_tokens: int = 64
    merged: bool = False
    gguf: int = 0
    download: int = 0


def estimate_time(step: Step, machine: Machine, documents: Documents, schedule: Schedule) -> TimeEstimate:
    """How long a run of this step takes on a machine; `documents` are the training rows, cut at the step's length.

    What the step generates, it generates once per update.
    """
    batch = micro_batch(step, documents, packed=schedule.packed, grouped=schedule.grouped, scored=schedule.scored)
    share = expected_efficiency(machine.device.family)
    paces = [
        Pace(efficiency, pace.kernel, pace.hidden)
        for efficiency, pace in ((share.high, FAST), (share.likely, LIKELY), (share.low, SLOW))
    ]
    load = step_load(step, batch)
    took = [seconds(step, load, machine.device, pace) for pace in paces]
    updates = schedule.updates or _updates(step, documents, schedule)
    one = _range([each.micro * schedule.accumulation + each.update for each in took])
    if step.generate:
        rows, prompt, new = step.generate
        one = one + generation(step, machine.device, rows=rows, prompt=prompt, new=new)
    per_update = batch.useful * schedule.accumulation * step.devices
    start = _start(step.model, machine, documents, schedule)
    train = one.times(updates) + _written(step).times(schedule.checkpoints)
    evaluate = _evaluate(step, machine.device, paces, documents, schedule)
    if step.generate:
        rounds = math.ceil(schedule.eval_rows * schedule.eval_answers / rows) * schedule.evaluations
        evaluate += generation(step, machine.device, rows=rows, prompt=prompt, new=new).times(rounds)
    export = _export(step.model, schedule)
    return TimeEstimate(
        start=start,
        train=train,
        evaluate=evaluate,
        export=export,
        total=start + train + evaluate + export,
        tokens_per_second=_range([per_update / one.high, per_update / one.likely, per_update / one.low]),
        step_seconds=one,
        efficiency=_range([min(1.0, value) for value in (share.low, share.likely, share.high)]),
        basis=_basis(step, load, took[1], machine.device, schedule),
    )


def _range(values: list[float]) -> Range:
    low, likely, high = sorted(values)
    return Range(low=low, likely=likely, high=high)


def _at(size: float, rates: tuple[float, float, float]) -> Range:
    """Seconds for so many units at slow, likely and fast rates."""
    return _range([size / rate for rate in rates])


def _updates(step: Step, documents: Documents, schedule: Schedule) -> int:
    """Updates of all epochs, counted as transformers.Trainer does."""
    rows = documents.tokens / step.length if schedule.packed else documents.rows
    batches = math.ceil(rows / (step.rows * step.devices))
    return max(1, math.ceil(max(1, math.ceil(batches / schedule.accumulation)) * schedule.epochs))


def _start(model: ModelFacts, machine: Machine, documents: Documents, schedule: Schedule) -> Range:
    return (
        machine.starting
        + _IMPORTS
        + _at(schedule.download, _DOWNLOADED)
        + _at(_stored(model), _LOADED)
        + _at(documents.tokens, _PREPARED)
    )


def _stored(model: ModelFacts) -> float:
    return float(model.bytes or 2 * model.parameters)


def _written(step: Step) -> Range:
    """Seconds for one checkpoint: what is trained with AdamW's two moments."""
    width = 4 if step.dtype == "float32" or not step.trained else 2
    return _at(3 * width * trained_parameters(step), _WRITTEN)


def _evaluate(step: Step, device: Device, paces: list[Pace], documents: Documents, schedule: Schedule) -> Range:
    """Held-out loss during training, then answers of base and tuned model one after the other."""
    batch = micro_batch(step, documents, scored=schedule.scored)
    forward = [seconds(step, forward_load(step, batch), device, pace).micro for pace in paces]
    passes = schedule.evaluations * math.ceil(schedule.eval_rows / (step.rows * step.devices))
    rounds = 2 * math.ceil(schedule.compared_rows / 32)
    return _range([each * passes for each in forward]) + generation(
        step, device, rows=32, prompt=documents.mean, new=schedule.new_tokens
    ).times(rounds)


def generation(step: Step, device: Device, *, rows: int, prompt: float, new: int) -> Range:
    """Seconds for `rows` answers of `new` tokens at once; each token reads all weights, and the keys and values so far.

    Source: Pope et al. 2022, Efficiently Scaling Transformer Inference.
    """
    model = step.model
    width = 4 if step.dtype == "float32" else 2
    weights = width * model.parameters
    cache = 2 * width * model.layers * (model.kv_heads * model.head_dim or model.hidden) * (prompt + new / 2) * rows
    times = []
    expected = expected_efficiency(device.family)
    for share, pace in ((expected.low, SLOW), (expected.likely, LIKELY), (expected.high, FAST)):
        operations = 2 * (model.active or model.parameters) * rows / (peak_rate(step, device) * share)
        bytes_moved = moving_seconds(Load(moved={"weights": weights, "cache": cache}), device)
        starting = model.layers * 46 * pace.kernel * _DECODE
        times.append(max(operations, bytes_moved, starting) * new + operations * prompt)
    return _range(times)


def _export(model: ModelFacts, schedule: Schedule) -> Range:
    size = 2.0 * model.parameters
    return _at(size if schedule.merged else 0.0, _MERGED) + _at(size * schedule.gguf, _CONVERTED)


def _basis(step: Step, load: Load, took: Seconds, device: Device, schedule: Schedule) -> str:
    """What the time of a step goes to, and where the interval comes from."""
    micro = took.micro * schedule.accumulation + took.update
    computing = sum(load.operations.values()) / (peak_rate(step, device) * expected_efficiency(device.family).likely)
    moving = moving_seconds(load, device)
    if load.kernels * LIKELY.kernel > computing + moving:
        where = "most of a step waits for the host to start kernels: larger batches cost next to nothing"
    else:
        parts = {
            "matrix products": computing * schedule.accumulation,
            "memory traffic": moving * schedule.accumulation,
            "the optimizer": took.update,
        }
        where = ", ".join(f"{part} {seconds_ / micro:.0%}" for part, seconds_ in parts.items())
    origin = "from published measurements" if is_measured(device.family) else "a wide range, not measured here"
    return f"{device.name} by a prior for {device.family} ({origin}); of a step: {where}"


def calibrated(estimate: TimeEstimate, measured: float, *, done: float = 0.0) -> TimeEstimate:
    """The estimate after steps were measured at `measured` tokens per second (over all devices).

    `done` is the share of the training that is over: then training, and with it the total, is what remains.
    """
    if not measured > 0 or not math.isfinite(measured):
        return estimate
    factor = estimate.tokens_per_second.likely / measured
    low, likely, high = _PROBED

    def scaled(value: float) -> Range:
        return Range(low=value * low, likely=value * likely, high=value * high)

    left = max(0.0, 1.0 - done)
    start = estimate.start.times(0) if done else estimate.start
    train = scaled(estimate.train.likely * factor * left)
    evaluate = estimate.evaluate.times(factor * (left if done else 1.0))
    share = estimate.efficiency.likely / factor
    return estimate.model_copy(
        update={
            "start": start,
            "train": train,
            "evaluate": evaluate,
            "total": start + train + evaluate + estimate.export,
            "tokens_per_second": _range([measured / low, measured / likely, measured / high]),
            "step_seconds": scaled(estimate.step_seconds.likely * factor),
            "efficiency": _range([min(1.0, share / part) for part in _PROBED]),
            "basis": f"measured: {measured:,.0f} tokens/s",
        }
    )

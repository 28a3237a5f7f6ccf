"""What a resolved plan takes: time and money on a machine, and what other machines would take."""

from __future__ import annotations

from pathlib import Path

from ..records import CostEstimate, MachineOption, ModelFacts, Plan, Range, TimeEstimate
from .compare import compare
from .cost import estimate_cost
from .documents import Documents
from .machines import Machine
from .memory import Step, estimate
from .rows import Rows
from .time import Schedule, estimate_time

_COMPARED = 500  # rows that evaluation takes at most by default
_NEW_TOKENS = 64


def outlook(plan: Plan, step: Step, rows: Rows, machine: Machine) -> tuple[TimeEstimate, CostEstimate | None]:
    """Time and cost of a plan on its machine; None for a machine without a price."""
    time = _allowing_for(estimate_time(step, machine, _documents(plan, rows), schedule_of(plan, rows)), rows)
    return time, estimate_cost(time, machine)


def options(plan: Plan, step: Step, rows: Rows, machines: list[Machine]) -> list[MachineOption]:
    """What the plan would take on other machines, with all weights, LoRA and QLoRA."""
    if plan.recipe["dtype"] == "auto" and plan.lora is not None:
        step = step.model_copy(update={"dtype": "bfloat16"})  # on a processor the base is loaded in float32
    return compare(step, _documents(plan, rows), schedule_of(plan, rows), machines, estimate)


def schedule_of(plan: Plan, rows: Rows) -> Schedule:
    """What a plan's run does, beside its step."""
    training, evaluation = plan.training, plan.recipe["evaluation"]
    compared = min(plan.test.rows, evaluation["rows"] or _COMPARED) if plan.test else 0
    return Schedule(
        epochs=plan.epochs,
        accumulation=training["gradient_accumulation_steps"],
        updates=plan.steps,
        packed=bool(training["packing"]),
        grouped=training.get("train_sampling_strategy") == "group_by_length",
        scored=_scored(rows),
        checkpoints=_times(plan.steps, training, "save"),
        evaluations=_times(plan.steps, training, "eval"),
        eval_rows=plan.eval.rows if plan.eval else 0,
        compared_rows=compared,
        new_tokens=evaluation["max_new_tokens"] or _NEW_TOKENS,
        merged=plan.lora is not None,
        gguf=len(plan.recipe["export"]["gguf"]),
        download=0 if _is_here(plan.model) else plan.model.bytes,
    )


def _scored(rows: Rows) -> float:
    """Share of the tokens that the loss is taken on."""
    prompt, total = rows.lengths.prompt, rows.lengths.total
    return 1 - prompt.mean / total.mean if prompt and total.mean else 1.0


def _times(steps: int, training: dict[str, object], what: str) -> int:
    every = training.get(f"{what}_steps")
    if training.get(f"{what}_strategy") != "steps" or not isinstance(every, int | float) or not every:
        return 0 if training.get(f"{what}_strategy") == "no" else 1
    return int(steps // every) if every >= 1 else round(1 / every)


def _is_here(model: ModelFacts) -> bool:
    return Path(model.location).is_dir()


def _documents(plan: Plan, rows: Rows) -> Documents:
    return Documents.of(rows.token_counts, plan.training["max_length"])


def _allowing_for(time: TimeEstimate, rows: Rows) -> TimeEstimate:
    """The estimate, wider by the error of token counts where these are estimated."""
    if not rows.token_error:
        return time
    low, high = 1 / (1 + rows.token_error), 1 + rows.token_error
    train = Range(low=time.train.low * low, likely=time.train.likely, high=time.train.high * high)
    total = time.start + train + time.evaluate + time.export
    return time.model_copy(update={"train": train, "total": total})

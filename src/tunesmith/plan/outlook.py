"""What a resolved plan takes: time and money on a machine, and what other machines would take."""

from __future__ import annotations

import math
from pathlib import Path

from ..records import CostEstimate, MachineOption, MemoryEstimate, ModelFacts, Plan, Range, TimeEstimate
from .compare import compare
from .cost import estimate_cost
from .documents import Documents
from .limits import disk_needs, merge_memory
from .machines import Machine
from .memory import Step
from .rows import Rows
from .time import Schedule, estimate_time
from .work import trained_parameters

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
    given = {name: value for name, value in plan.recipe["training"].items() if value is not None}

    def lacks(step: Step, memory: MemoryEstimate, machine: Machine) -> str:
        return _lacks(_trained_by(plan, step, memory), machine)

    return compare(step, _documents(plan, rows), schedule_of(plan, rows), machines, given=given, lacks=lacks)


def _trained_by(plan: Plan, step: Step, memory: MemoryEstimate) -> Plan:
    """The plan with another way to train, so far as disk and main memory depend on it."""
    return plan.model_copy(
        update={
            "lora": None if step.trained else plan.lora or {"r": step.rank},
            "parameters_trained": round(trained_parameters(step)),
            "model_kwargs": {"dtype": step.dtype},
            "memory": memory,
        }
    )


def _lacks(plan: Plan, machine: Machine) -> str:
    """What P015 and P014 are about on that machine, in a few words; "" where all suffices or isn't known."""
    if 0 < machine.ram < merge_memory(plan):
        return f"{machine.ram / 1e9:.0f} GB of main memory"
    if machine.disk and disk_room(plan, machine) < sum(disk_needs(plan).values()):
        return f"{machine.disk / 1e9:.0f} GB of disk"
    return ""


def disk_room(plan: Plan, machine: Machine) -> int:
    """Bytes of a rented machine's disk that the model leaves for what a run writes."""
    return machine.disk - plan.model.bytes


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
        checkpoints=_times(plan, "save"),
        evaluations=_times(plan, "eval"),
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


def _times(plan: Plan, what: str) -> int:
    """How often a run writes a checkpoint ("save") or takes the held-out loss ("eval")."""
    strategy, every = plan.training.get(f"{what}_strategy"), plan.training.get(f"{what}_steps")
    if strategy == "no":
        return 0
    if strategy != "steps" or not every:
        return math.ceil(plan.epochs)
    return int(plan.steps // every) if every >= 1 else round(1 / every)


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

"""What a settled recipe takes: time and money on a machine, and what other machines would take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from ..recipe.adapter import VIRTUAL, Kind
from ..recipe.schema import Recipe
from ..records import CostEstimate, MachineOption, MemoryEstimate, ModelFacts, Plan, Range, TimeEstimate
from .compare import ADAPTERS, Way, compare
from .cost import estimate_cost
from .documents import Documents
from .limits import disk_needs, merge_memory
from .machines import Machine, divided, hardware_of
from .memory import estimate
from .parameters import peft_arguments, trained_parameters
from .remote import is_remote
from .rows import Rows
from .settle import Settled, settle
from .sizing import is_flat
from .time import Schedule, estimate_time

_COMPARED = 500  # rows that evaluation takes at most by default
_NEW_TOKENS = 64


def outlook(settled: Settled, machine: Machine) -> tuple[TimeEstimate, CostEstimate | None]:
    """Time and cost of a run on its machine; None for a machine without a price."""
    rows, step = settled.rows, settled.step
    documents = Documents.of(rows.by_length, settled.training.get("max_length"))
    time = _allowing_for(estimate_time(step, divided(machine, step.devices), documents, schedule_of(settled)), rows)
    return time, estimate_cost(time, machine)


def options(
    plan: Plan, settled: Settled, machines: Iterable[Machine], kinds: Iterable[Kind] | None = None
) -> list[MachineOption]:
    """What plans for other machines would say.

    Args:
        plan: The recipe's plan.
        settled: What it was made of.
        machines: Those to compare.
        kinds: What to train instead: by default all weights, LoRA, QLoRA, and what the recipe trains.
    """

    def ways(machine: Machine, kind: Kind) -> Iterator[Way]:
        hardware = settled.hardware if machine.provider == "here" else hardware_of(machine)
        for recipe in _variants(settled.recipe, machine, kind):
            other = settle(recipe, settled.rows, settled.model, hardware)
            memory, (time, _) = estimate(other.step), outlook(other, machine)
            yield Way(other.step, memory, time, _lacks(_for(plan, other, memory), machine))

    return compare(machines, ways, kinds or dict.fromkeys([*ADAPTERS, settled.recipe.adapter.kind]))


def _variants(recipe: Recipe, machine: Machine, kind: Kind) -> Iterator[Recipe]:
    """The recipe for a machine and another way to train, the one to prefer first.

    Where the recipe leaves it open, all weights that don't fit in float32 are trained in bfloat16, and the base under
    LoRA that doesn't fit on each device is spread over them. A recipe for this machine takes all devices of another.
    """
    launch = recipe.launch
    if machine.provider != "here" and not is_remote(recipe):
        launch = launch.model_copy(update={"on": "sky", "processes": 1, "nodes": 1})
    dtypes, shardings = [recipe.dtype], [launch.sharding]
    if kind == "none" and recipe.dtype == "auto" and machine.device.bf16:
        dtypes.append("bfloat16")
    if kind == "lora" and launch.sharding == "auto" and machine.devices > 1:
        shardings.append("fsdp")
    if kind == "qlora" and recipe.adapter.kind != "qlora":
        shardings = ["auto"]  # what spreads weights refuses those in 4 bits (P073)
    adapter = recipe.adapter.model_copy(update={"kind": kind})
    for dtype, sharding in product(dtypes, shardings):
        spread = launch.model_copy(update={"sharding": sharding})
        yield recipe.model_copy(update={"adapter": adapter, "dtype": dtype, "launch": spread})


def _for(plan: Plan, settled: Settled, memory: MemoryEstimate) -> Plan:
    """The plan as another settled recipe has it, so far as disk and main memory depend on it."""
    adapter, model, method = settled.recipe.adapter, settled.model, settled.recipe.method
    return plan.model_copy(
        update={
            "training": settled.training,
            "steps": settled.steps,
            "epochs": settled.epochs,
            "peft": peft_arguments(adapter, model, method),
            "parameters_trained": trained_parameters(model, adapter, method),
            "model_kwargs": {"dtype": settled.step.dtype},
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


def schedule_of(settled: Settled) -> Schedule:
    """What a run does, beside its step."""
    training, recipe, rows = settled.training, settled.recipe, settled.rows
    evaluation = recipe.evaluation
    return Schedule(
        epochs=settled.epochs,
        accumulation=training["gradient_accumulation_steps"],
        updates=settled.steps,
        packed=bool(training.get("packing")),
        grouped=training.get("train_sampling_strategy") == "group_by_length" or is_flat(recipe.method, training),
        scored=_scored(rows),
        checkpoints=_times(settled, "save"),
        evaluations=_times(settled, "eval"),
        eval_rows=len(rows.eval),
        eval_answers=training.get("num_generations_eval") or training.get("num_generations") or 1,
        compared_rows=min(len(rows.compared), evaluation.rows or _COMPARED),
        new_tokens=evaluation.max_new_tokens or _NEW_TOKENS,
        merged=recipe.adapter.kind not in ("none", *VIRTUAL),
        gguf=len(recipe.export.types(recipe.method, virtual=recipe.adapter.kind in VIRTUAL)),
        download=0 if _is_here(settled.model) else settled.model.bytes,
    )


def _scored(rows: Rows) -> float:
    """Share of the tokens that the loss is taken on."""
    prompt, total = rows.lengths.prompt, rows.lengths.total
    return 1 - prompt.mean / total.mean if prompt and total.mean else 1.0


def _times(settled: Settled, what: str) -> int:
    """How often a run writes a checkpoint ("save") or takes the held-out loss ("eval")."""
    strategy, every = settled.training.get(f"{what}_strategy"), settled.training.get(f"{what}_steps")
    if strategy == "no":
        return 0
    if strategy != "steps" or not every:
        return math.ceil(settled.epochs)
    return int(settled.steps // every) if every >= 1 else round(1 / every)


def _is_here(model: ModelFacts) -> bool:
    return Path(model.location).is_dir()


def _allowing_for(time: TimeEstimate, rows: Rows) -> TimeEstimate:
    """The estimate, wider by the error of token counts where these are estimated."""
    if not rows.token_error:
        return time
    low, high = 1 / (1 + rows.token_error), 1 + rows.token_error
    train = Range(low=time.train.low * low, likely=time.train.likely, high=time.train.high * high)
    total = time.start + train + time.evaluate + time.export
    return time.model_copy(update={"train": train, "total": total})

"""The recipe resolved: every value that will be used, each derived one with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..models.check import check_model
from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts, Plan, Split
from .advice import advise
from .cost import estimate_cost, price_findings
from .fast import speed_of
from .fit import remedies
from .limits import check_cost, check_merge, check_time
from .machines import Machine, machine_here
from .memory import estimate
from .outlook import outlook
from .parameters import peft_arguments, quantization_arguments, trained_parameters
from .preflight import check_plan, is_owned
from .processes import check_processes, processes_of
from .rows import Rows
from .settle import Settled, settle
from .sizing import fitting_kinds
from .time import calibrated
from .versions import installed_versions


@dataclass(frozen=True)
class Resolved:
    """A plan, with what it was made of: the settled recipe, the machine."""

    plan: Plan
    settled: Settled
    machine: Machine

    def having(self, **changes: Any) -> Resolved:
        """The same with other values in the plan."""
        return replace(self, plan=self.plan.model_copy(update=changes))

    def at_speed(self, step_seconds: float) -> Resolved:
        """The same with time and cost by a measured optimizer step."""
        if self.plan.time is None:
            return self
        time = calibrated(self.plan.time, self.plan.tokens_per_step / step_seconds)
        return self.having(time=time, cost=estimate_cost(time, self.machine))


def resolve(
    recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, run: str, machine: Machine | None = None
) -> Resolved:
    """Resolve a recipe for its data, model and machine.

    `run` is the run's name; `machine` is where it will be trained, this one by default. Problems are in the plan's
    findings.
    """
    machine = machine or machine_here(hardware)
    settled = settle(recipe, rows, model, hardware, run=run)
    plan = _plan(settled)
    time, cost = outlook(settled, machine)
    plan = plan.model_copy(update={"time": time, "cost": cost})
    owned = {name: value for name, value in recipe.training.items() if is_owned(name, value)}
    findings = [*rows.findings, *check_plan(plan, recipe, owned, rows), *_check_machine(plan, recipe, machine)]
    return Resolved(plan, settled, machine).having(findings=findings)


def _plan(settled: Settled) -> Plan:
    """The plan but for time, cost and findings."""
    recipe, rows, model, hardware = settled.recipe, settled.rows, settled.model, settled.hardware
    training, noted, step = settled.training, settled.noted, settled.step
    per_step = step.rows * step.devices * training["gradient_accumulation_steps"]
    tokens = [min(count, step.length) for count in rows.token_counts]
    return Plan(
        recipe=recipe.model_dump(),
        method=recipe.method,
        model=model,
        hardware=hardware,
        layout=rows.layout,
        loss_on=rows.loss_on,
        images=rows.images,
        train=rows.split("train", max_length=settled.cut_at),
        eval=rows.split("eval") if rows.eval else None,
        test=_compared(rows),
        choices=settled.choices.made,
        training=training,
        model_kwargs={"dtype": noted["dtype"]},
        speed=speed_of(settled.choices),
        peft=peft_arguments(recipe.adapter, model, recipe.method),
        quantization=quantization_arguments(recipe.adapter, noted["dtype"]),
        trackers=["trackio"] if "trackio" in noted else [],
        processes=processes_of(recipe, hardware),
        parameters=model.parameters,
        parameters_trained=trained_parameters(model, recipe.adapter, recipe.method),
        steps=settled.steps,
        epochs=settled.epochs,
        tokens_per_step=round(per_step * (step.length if training.get("packing") else sum(tokens) / len(tokens))),
        memory=estimate(step),
        remedies=remedies(step, hardware),
        advice=advise(model, recipe.adapter, sum(tokens), fitting_kinds(step, hardware)),
        versions=installed_versions(),
    )


def _compared(rows: Rows) -> Split | None:
    """The rows that the result is compared with its base on."""
    if not rows.compared:
        return None
    return rows.split("test" if rows.test else "eval")


def _check_machine(plan: Plan, recipe: Recipe, machine: Machine) -> list[Finding]:
    """What the run takes against what the machine has and the recipe allows."""
    findings = [
        *check_model(plan.model, method=recipe.method, adapter=recipe.adapter, images=plan.images),
        *check_processes(recipe, plan.hardware, plan.memory),
    ]
    if plan.time:
        findings += check_time(recipe, plan.time)
    if plan.cost:
        findings += check_cost(recipe, plan.cost)
        findings += price_findings([machine])
    return [*findings, *check_merge(plan, machine.ram, machine.name)]

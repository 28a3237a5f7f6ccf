"""Making a plan from a recipe: model, rows and machine are looked at, then everything is resolved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..models.estimated import EstimatedTokenizer
from ..models.facts import model_facts
from ..models.families import bytes_per_token
from ..models.light import LightTokenizer
from ..models.source import Source, locate
from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts
from ..rules import finding, refuse_errors
from .compare import cheaper, recommend
from .cost import price_findings
from .hardware import local_hardware
from .hub_checks import check_hub
from .limits import check_disk, free_disk
from .machines import Machine, can_start, find_machine, hardware_of, machine_here, machines
from .offers import live_flavors, sky_machines
from .outlook import disk_room, options
from .remote import is_remote
from .resolve import Resolved, resolve
from .rewards import call_rewards, check_rewards
from .rows import Rows, Tokenizer, gather_rows
from .scores import check_evaluated, check_scores
from .start import starting_model
from .vocabulary import check_vocabulary


def make(
    recipe: Recipe,
    *,
    run: str,
    folder: Path,
    trains: bool = False,
    exact: bool = False,
    compare: bool = False,
    live: bool = False,
) -> Resolved:
    """The plan of a recipe, complete but for what only a real step tells.

    Args:
        recipe: The recipe.
        run: The run's name.
        folder: Where the run folder is or will be.
        trains: It is going to be trained: then tables don't do in place of the model's files.
        exact: Take the memory from the trainer's own step under fake tensors.
        compare: Also say what the run would take on the machines of all price tables.
        live: Ask the Hub for the prices of today.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: the recipe's data, model or machine can't be used.
    """
    source = locate(recipe.model, recipe.revision, planning=not trains)
    facts = model_facts(source, planning=not trains)
    unfit = [*check_rewards(recipe), *check_scores(recipe.evaluation)]
    refuse_errors(unfit)
    tokenizer = _tokenizer(recipe, source, facts)
    facts = starting_model(recipe.adapter, facts, tokenizer)
    rows = gather_rows(recipe, tokenizer, facts.context, images=facts.vision)
    rewarded = [*unfit, *call_rewards(recipe, rows.train), *check_evaluated(recipe.evaluation, rows)]
    refuse_errors(rewarded)
    hardware, machine = _where(recipe, facts, rows, live=live)
    resolved = resolve(recipe, rows, facts, hardware, run=run, machine=machine)
    if exact:
        resolved = _exactly(resolved, source)
    if compare:
        resolved = _compared(resolved, live=live)
    findings = [*resolved.plan.findings, *rewarded, *_further_findings(recipe, facts, tokenizer, rows)]
    return resolved.having(findings=[*findings, *_check_disk(resolved, folder)])


def _check_disk(resolved: Resolved, folder: Path) -> list[Finding]:
    """P014, of the disk where the run folder will be."""
    plan, machine = resolved.plan, resolved.machine
    if machine.provider == "here":
        return list(check_disk(plan, free_disk(folder), str(folder)))
    return list(check_disk(plan, disk_room(plan, machine), machine.name)) if machine.disk else []


def _tokenizer(recipe: Recipe, source: Source, facts: ModelFacts) -> Tokenizer:
    if not source.as_of:
        folder, tokens = source.tokenizer_folder, recipe.adapter.tokens
        return LightTokenizer(folder, recipe.chat_template, tokens=tokens, model=source.folder)
    has_template = facts.has_template or recipe.chat_template is not None
    return EstimatedTokenizer(bytes_per_token(facts.vocabulary), has_template=has_template)


def _further_findings(recipe: Recipe, facts: ModelFacts, tokenizer: Tokenizer, rows: Rows) -> list[Finding]:
    found = check_hub(recipe) if is_remote(recipe) or recipe.hub.repo else []
    if isinstance(tokenizer, LightTokenizer):
        return [*found, *check_vocabulary(recipe, facts, tokenizer, rows)]
    return [*found, finding("P045", "tokens", model=facts.name, error=tokenizer.error)]


def _where(recipe: Recipe, facts: ModelFacts, rows: Rows, *, live: bool) -> tuple[Hardware, Machine]:
    """Where the run is trained: here, on the machine that the recipe names, or on the cheapest that takes it."""
    if not is_remote(recipe):
        hardware = local_hardware()
        return hardware, machine_here(hardware)
    offered = [one for one in _offered(live=live) if can_start(recipe.launch.on, one.provider)]
    if recipe.launch.flavor:
        machine = find_machine(recipe.launch.flavor, among=tuple(offered))
    else:
        machine = _cheapest(recipe, facts, rows, offered)
    return hardware_of(machine), machine


def _cheapest(recipe: Recipe, facts: ModelFacts, rows: Rows, offered: list[Machine]) -> Machine:
    """The machine to take for what the recipe trains; the largest where none has the memory."""
    largest = max(offered, key=lambda one: (one.memory, -one.devices))
    first = resolve(recipe, rows, facts, hardware_of(largest), run="", machine=largest)
    found, _ = recommend(options(first.plan, first.settled, offered, [recipe.adapter.kind]))
    return next((one for one in offered if found and one.name == found.machine), largest)


def _offered(*, live: bool) -> list[Machine]:
    """Machines with a price, and cards that people own."""
    flavors = live_flavors() if live else ()
    shipped = [one for one in machines() if not (flavors and one.provider == "hf-jobs")]
    return [*flavors, *shipped, *sky_machines()]


def _compared(resolved: Resolved, *, live: bool) -> Resolved:
    """With what other machines would take, which of those that the recipe's `launch.on` starts to take, and P035."""
    plan, offered = resolved.plan, _offered(live=live)
    machine, used = resolved.machine, resolved.settled.step.devices
    here = [replace(machine, devices=used)] if machine.provider == "here" else []
    found = options(plan, resolved.settled, [*here, *offered])
    kind, place = plan.recipe["adapter"]["kind"], plan.recipe["launch"]["on"]
    best, reason = recommend([one for one in found if place == "local" or can_start(place, one.provider)], kind)
    said = f"{best.machine} ({best.provider}): {reason}" if best else reason
    other = cheaper(best, found, kind)
    if other and other.dollars and other.hours:
        costs = f"${other.dollars.likely:.2f} for {other.hours.likely:.1f} hours"
        said += f". Cheaper elsewhere: {other.machine} ({other.provider}), {costs}"
    late = [one for one in price_findings(offered) if one not in plan.findings]
    return resolved.having(options=found, recommended=said, findings=[*plan.findings, *late])


def _exactly(resolved: Resolved, source: Source) -> Resolved:
    from .exact import exact_peak

    return resolved.having(memory=exact_peak(resolved.settled.step, source.folder))

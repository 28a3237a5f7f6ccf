"""Making a plan from a recipe: model, rows and machine are looked at, then everything is resolved."""

from __future__ import annotations

from pathlib import Path

from ..models.estimated import EstimatedTokenizer
from ..models.facts import model_facts
from ..models.families import bytes_per_token
from ..models.light import LightTokenizer
from ..models.source import Source, locate
from ..recipe.schema import Recipe
from ..records import Finding, Hardware, ModelFacts
from ..rules import finding, refuse_errors
from .compare import recommend
from .hardware import local_hardware
from .hub_checks import check_hub
from .limits import check_disk, free_disk
from .machines import Machine, find_machine, machine_here, machines
from .offers import live_flavors, sky_machines
from .outlook import options
from .preflight import check_method
from .remote import is_remote
from .resolve import Resolved, resolve
from .rewards import check_rewards
from .rows import UNKNOWN_CONTEXT, Rows, Tokenizer, gather_rows
from .vocabulary import check_vocabulary

_PROVIDER = {"hf-jobs": "hf-jobs", "sky": None}


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
    rewarded = check_rewards(recipe, conversational=facts.has_template or recipe.chat_template is not None)
    refuse_errors([*check_method(recipe.method), *rewarded])
    tokenizer = _tokenizer(recipe, source, facts)
    rows = gather_rows(recipe, tokenizer, facts.context or UNKNOWN_CONTEXT)
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
    return list(check_disk(plan, machine.disk - plan.model.bytes, machine.name)) if machine.disk else []


def _tokenizer(recipe: Recipe, source: Source, facts: ModelFacts) -> Tokenizer:
    if not source.as_of:
        return LightTokenizer(source.folder, recipe.chat_template)
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
    offered = [one for one in _offered(live=live) if _PROVIDER[recipe.launch.on] in (None, one.provider)]
    if recipe.launch.flavor:
        machine = find_machine(recipe.launch.flavor, among=tuple(offered))
    else:
        machine = _cheapest(recipe, facts, rows, offered)
    return hardware_of(machine), machine


def _cheapest(recipe: Recipe, facts: ModelFacts, rows: Rows, offered: list[Machine]) -> Machine:
    """The machine to take for what the recipe trains; the largest where none has the memory."""
    largest = max(offered, key=lambda one: (one.memory, -one.devices))
    first = resolve(recipe, rows, facts, hardware_of(largest), run="", machine=largest)
    found, _ = recommend(options(first.plan, first.step, rows, offered), recipe.adapter.kind)
    return next((one for one in offered if found and one.name == found.machine), largest)


def hardware_of(machine: Machine) -> Hardware:
    """A rented machine as a plan has it."""
    return Hardware(
        device="cuda" if machine.device.memory else "cpu",
        name=machine.device.name,
        count=machine.devices,
        memory=machine.memory,
        cores=machine.cores,
        bf16=machine.device.bf16,
        machine=f"{machine.name} ({machine.provider})",
    )


def _offered(*, live: bool) -> list[Machine]:
    """Machines with a price, and cards that people own."""
    flavors = live_flavors() if live else ()
    shipped = [one for one in machines() if not (flavors and one.provider == "hf-jobs")]
    return [*flavors, *shipped, *sky_machines()]


def _compared(resolved: Resolved, *, live: bool) -> Resolved:
    here = [resolved.machine] if resolved.machine.provider == "here" else []
    found = options(resolved.plan, resolved.step, resolved.rows, [*here, *_offered(live=live)])
    best, reason = recommend(found, resolved.plan.recipe["adapter"]["kind"])
    said = f"{best.machine} ({best.provider}): {reason}" if best else reason
    return resolved.having(options=found, recommended=said)


def _exactly(resolved: Resolved, source: Source) -> Resolved:
    from .exact import exact_peak

    return resolved.having(memory=exact_peak(resolved.step, source.folder))

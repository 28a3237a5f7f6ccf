"""The stages in order. Start reading here: each function is one stage, and `tune` is all of them.

raw data --inspect--> DataReport
recipe + rows + model facts + hardware --make_plan--> Plan
Plan --prepare_run--> run folder --train_run--> RunRecord, model/
run folder --evaluate_run--> EvalReport      run folder --export_run--> Manifest
all records --write_receipt--> Receipt
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import tempfile
from collections.abc import Callable
from collections.abc import Mapping as Columns
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from .errors import UsageError
from .files import disk_errors, make_folder, write_atomic
from .models.facts import model_facts
from .models.light import LightTokenizer
from .models.source import locate
from .plan.make import make
from .progress import Progress, silent
from .recipe import Recipe
from .recipe.evaluation import Evaluation
from .recipe.load import edited_recipe
from .recipe.schema import Export, Mapping, Method
from .recipe.watch import Watch
from .records import (
    RUN_LOCK,
    Cluster,
    DataReport,
    EvalReport,
    Event,
    Manifest,
    Plan,
    Preparation,
    PreparationSettings,
    Receipt,
    RunRecord,
    Wanted,
)
from .rules import refuse_errors

if TYPE_CHECKING:
    from .chat import Chat
    from .data.sources import Spec
    from .evaluate.power import Needed
    from .evaluate.rows import Available

RUNS = Path("runs")
_PROBE_STEPS = 6


def _nobody(_told: Event | EvalReport) -> None:
    """Listens to nothing."""


def inspect(
    data: Spec,
    *,
    method: Method | None = None,
    model: str | None = None,
    revision: str | None = None,
    mapping: Mapping | None = None,
    keep: Columns[str, Wanted] | None = None,
    chat_template: str | None = None,
    max_length: int | None = None,
    bad_rows: Literal["error", "drop"] = "error",
    audit: bool = True,
    quality: bool = True,
    progress: Progress = silent,
) -> DataReport:
    """What the data is and what it can train; with a model, its token lengths and what of it would be trained on.

    `data` is a path, glob, folder or Hub id, a recipe's source, or several of these; `keep` is the recipe's filter, and
    findings, lengths and label audit are for `method`, by default the one that the data is made for.

    Raises:
        UsageError: there is no such file or model.
        FindingsError: the data can't be read at all.
    """
    from .data.report import inspect as report_on

    if model is None:
        return report_on(
            data, method=method, mapping=mapping, keep=keep, bad_rows=bad_rows, quality=quality, progress=progress
        )
    source = locate(model, revision)
    facts = model_facts(source)
    tokenizer = None
    if audit:
        from .models.load import load_planned_tokenizer

        tokenizer = load_planned_tokenizer(facts, chat_template)
    return report_on(
        data,
        method=method,
        mapping=mapping,
        keep=keep,
        bad_rows=bad_rows,
        tokenizer=tokenizer,
        light=LightTokenizer(source.tokenizer_folder, chat_template, model=source.folder),
        model=model,
        training={"max_length": max_length or facts.context or None},
        stop_ids=facts.stop_ids,
        context=facts.context or None,
        quality=quality,
        images=facts.vision,
        progress=progress,
    )


def data_page(report: DataReport) -> str:
    """A data report as a self-contained HTML page."""
    from .receipt.data_page import render

    return render(report)


def prepare_data(
    settings: PreparationSettings, output: Path, *, cluster: Cluster | None = None, progress: Progress = silent
) -> Preparation | None:
    """Raw rows in, a dataset's folder out; on a cluster's queue the record (None here) comes later.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: see data.steps.run.prepare_dataset.
    """
    from .data.steps import run, scale

    if cluster is not None:
        return scale.run_scaled(settings, output, cluster)
    return run.prepare_dataset(settings, output, progress=progress)


def pipeline_script(settings: PreparationSettings, output: Path, cluster: Cluster) -> str:
    """The same preparation as a datatrove script."""
    from .data.steps.scale import script

    return script(settings, output, cluster)


def push_data(folder: Path, record: Preparation, name: str) -> str:
    """Push a prepared dataset to the Hub, private and searched for secrets first; gives its address.

    Raises:
        FindingsError: D044, rows hold secrets.
        UsageError, EnvironmentLacksError: the Hub refuses, or can't be reached.
    """
    from .data.steps.push import push, refuse_secrets

    refuse_secrets(folder, record)
    return push(folder, record, name)


def make_plan(
    recipe: Recipe,
    *,
    run: str = "run",
    exact: bool = False,
    compare: bool = False,
    live: bool = False,
    probe: bool = False,
    listen: Callable[[Event], None] = _nobody,
) -> Plan:
    """Resolve a recipe, writing nothing.

    Args:
        recipe: The recipe.
        run: The run's name.
        exact: Take the memory from the trainer's own step under fake tensors.
        compare: Also say what the run would take on the machines of all price tables.
        live: Ask the Hub for the prices of today.
        probe: Train a few steps here, and take the time from these.
        listen: Is told what the probe does.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: the recipe's data, model or machine can't be used.
    """
    made = make(recipe, run=run, folder=RUNS, exact=exact, compare=compare, live=live)
    return made.at_speed(_probed(recipe, listen)).plan if probe else made.plan


def _probed(recipe: Recipe, listen: Callable[[Event], None]) -> float:
    """Seconds of an optimizer step, by a few that are trained here and thrown away."""
    if recipe.launch.on != "local":
        raise UsageError(
            f"A run on {recipe.launch.on} can't be probed here.",
            why="Steps on this machine say nothing of another one.",
            fix="Plan without --probe; the run's first steps will say what time is left.",
        )
    few = {"max_steps": _PROBE_STEPS, "eval_strategy": "no", "save_strategy": "no", "report_to": "none"}
    probe = recipe.model_copy(update={"training": recipe.training | few, "watch": Watch()})
    with tempfile.TemporaryDirectory() as folder:
        record = train_run(prepare_run(probe, Path(folder) / "probe"), listen)
    assert record.first_steps is not None  # a run of several steps measures them
    return record.first_steps.step_seconds


def prepare_run(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    exact: bool = False,
    compare: bool = False,
    live: bool = False,
    probe: bool = False,
    listen: Callable[[Event], None] = _nobody,
) -> Path:
    """Write a run folder that the worker can train: recipe, plan, rows and records. Returns the folder.

    `exact`, `compare`, `live`, `probe` and `listen` are those of `make_plan`.

    Raises:
        UsageError: the folder is in use.
        FindingsError: the plan has errors; nothing is written.
        EnvironmentLacksError: the folder can't be written.
    """
    wanted = _free_folder(folder) if folder else (RUNS / run_name(recipe)).resolve()
    # Trackio keeps all runs of a project under one name each: two folders of one name must not be taken for one run.
    name = f"{wanted.name}-{secrets.token_hex(2)}"
    resolved = make(recipe, run=name, folder=wanted, trains=True, exact=exact, compare=compare, live=live)
    refuse_errors(resolved.plan.findings)
    if probe:
        resolved = resolved.at_speed(_probed(recipe, listen))
    made, rows = resolved.plan, resolved.settled.rows
    folder = _claim(wanted) if folder else _claim_any(wanted)
    write_atomic(folder / "recipe.yaml", yaml.safe_dump(made.recipe, sort_keys=False, allow_unicode=True))
    for name, split in (("train", made.train), ("eval", made.eval), ("test", made.test)):
        if split is not None and split.path == f"data/{name}.jsonl":
            write_atomic(folder / split.path, rows.content(name))
    inspect(
        recipe.data.train,
        method=recipe.method,
        model=recipe.model,
        revision=recipe.revision,
        mapping=recipe.data.mapping,
        keep=recipe.data.filter,
        chat_template=recipe.chat_template,
        bad_rows=recipe.data.bad_rows,
        audit=False,
    ).save(folder)
    RunRecord(
        id=folder.name,
        status="prepared",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        steps=made.steps,
        versions=made.versions,
    ).save(folder)
    made.save(folder)
    return folder


def run_name(recipe: Recipe) -> str:
    """A name for a run: time, model and method."""
    model = re.sub(r"[^A-Za-z0-9.]+", "-", recipe.model.rstrip("/").rpartition("/")[2]).strip("-.")
    return f"{datetime.now():%Y%m%d-%H%M%S}-{model}-{recipe.method}"


def _claim(folder: Path) -> Path:
    """Make the folder and its lock file, which only one of several commands at once can.

    Raises:
        UsageError: another command was faster.
        EnvironmentLacksError: the folder can't be written.
    """
    make_folder(folder)
    try:
        (folder / RUN_LOCK).touch(exist_ok=False)
    except FileExistsError:
        raise _in_use(folder) from None
    return folder


def _claim_any(folder: Path) -> Path:
    """Claim the folder, or one beside it with a number."""
    name = folder
    for number in itertools.count(2):
        with contextlib.suppress(UsageError):
            return _claim(name)
        name = folder.with_name(f"{folder.name}-{number}")
    raise AssertionError("numbers don't end")


def _in_use(folder: Path) -> UsageError:
    return UsageError(
        f"{folder} isn't empty.",
        why="A run never writes into a folder that holds something else.",
        fix="Choose another --output, or continue that run with `tunesmith resume`.",
    )


def _free_folder(folder: Path) -> Path:
    with disk_errors(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise _in_use(folder)
    return folder.resolve()


def train_run(folder: Path, listen: Callable[[Event], None] = _nobody, *, anyway: bool = False) -> RunRecord:
    """Train a prepared run folder in a process of its own, or continue it from its last complete checkpoint.

    `anyway`: continue although rows, settings, files, versions or the machine aren't those of the checkpoint.

    Raises:
        UsageError: the run is done, or running already.
        StoppedError: it was stopped and can be resumed.
        TunesmithError: training failed.
    """
    from .launch.local import run_worker

    record = RunRecord.load(folder)
    if record.status == "done":
        raise UsageError(
            f"Run {record.id} is done; there is nothing to resume.",
            why=f"It finished at step {record.step} of {record.steps}.",
            fix=f"Compare it with its base: `tunesmith evaluate {folder}`.",
        )
    return run_worker(folder, listen, anyway=anyway)


def evaluate_run(
    folder: Path, settings: Evaluation | None = None, *, against: Path | None = None, progress: Progress = silent
) -> EvalReport:
    """Compare the tuned model with its base on the run's held-out rows, and save the report.

    Args:
        folder: The run's folder.
        settings: How; by default as the run's recipe says.
        against: Compare with this run's result, not with the base.
        progress: Told of each batch.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: see evaluate.compare.evaluate.
    """
    from .evaluate import evaluate as compare

    _must_be_done(folder)
    if against is not None:
        _must_be_done(against)
    return compare(folder, settings or recipe_of(folder).evaluation, against=against, progress=progress)


def evaluation_page(report: EvalReport) -> str:
    """An evaluation as a self-contained HTML page."""
    from .receipt.html import render_evaluation

    return render_evaluation(report)


def recipe_of(folder: Path) -> Recipe:
    """The recipe that a run was made by, with what its folder's recipe.yaml now says of what comes after training.

    Raises:
        UsageError: that file isn't YAML, or has an unknown key or a wrong value there.
    """
    return edited_recipe(Plan.load(folder).recipe, folder / "recipe.yaml")


def rows_needed(folder: Path, difference: float, settings: Evaluation | None = None) -> tuple[Available, list[Needed]]:
    """The rows that an evaluation has, and how many show a difference of two shares, by how often the models differ."""
    from .evaluate.power import rows_for
    from .evaluate.rows import available

    settings = settings or recipe_of(folder).evaluation
    return available(folder, Plan.load(folder), settings), rows_for(difference)


def export_run(folder: Path, settings: Export | None = None, *, progress: Progress = silent) -> Manifest:
    """Merge, convert and verify; the manifest says what passed.

    Raises:
        FindingsError: the model can't be converted.
    """
    from .export import export as write

    _must_be_done(folder)
    return write(folder, settings or recipe_of(folder).export, progress=progress)


def _must_be_done(folder: Path) -> None:
    record = RunRecord.load(folder)
    if record.status != "done":
        raise UsageError(
            f"Run {record.id} isn't done: its status is {record.status}.",
            why="There is no trained model to look at yet.",
            fix=f"Continue it with `tunesmith resume {folder}`.",
        )


def write_receipt(folder: Path) -> Receipt:
    """Put the records of a run together as receipt.json and report.html, and as the card of its result."""
    from .receipt.build import build
    from .receipt.card import write_card
    from .receipt.html import render

    receipt = build(folder)
    write_atomic(folder / "report.html", render(receipt))
    write_card(folder / "model", receipt)
    return receipt


def tune(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    progress: Progress = silent,
    listen: Callable[[Event], None] = _nobody,
    evaluated: Callable[[EvalReport], None] = _nobody,
) -> Receipt:
    """The whole chain: plan, train, evaluate, export, receipt.

    The receipt is written whatever the checks say; look at its findings. It has the evaluation only where the run's own
    result was compared with its base; `evaluated` is told the report in any case, servers in place of models included.

    Raises:
        TunesmithError: a stage refused or failed; what came before is in the run folder.
    """
    return tune_prepared(prepare_run(recipe, folder), progress=progress, listen=listen, evaluated=evaluated)


def tune_prepared(
    folder: Path,
    *,
    progress: Progress = silent,
    listen: Callable[[Event], None] = _nobody,
    evaluated: Callable[[EvalReport], None] = _nobody,
) -> Receipt:
    """`tune` from a prepared run folder on."""
    train_run(folder, listen)
    try:
        if Plan.load(folder).test is not None:
            evaluated(evaluate_run(folder, progress=progress))
        export_run(folder, progress=progress)
    finally:
        receipt = write_receipt(folder)
    return receipt


def new_folder(folder: Path) -> Path:
    """Make an empty folder.

    Raises:
        UsageError: it holds something.
        EnvironmentLacksError: it can't be written.
    """
    return make_folder(_free_folder(folder))


def open_chat(folder: Path, *, base: bool = False) -> Chat:
    """A conversation with the result of a run, or with its base.

    Raises:
        UsageError: the run trained a reward model, it has no result, or its model no chat template.
    """
    from .chat import Chat

    return Chat(folder, base=base)


def find_runs(root: Path = RUNS) -> list[tuple[Path, RunRecord]]:
    """The runs under a folder, oldest first; folders that hold no readable run record are passed over."""
    found = []
    for path in sorted(root.glob("*/" + RunRecord.filename)):
        try:
            found.append((path.parent, RunRecord.load(path.parent)))
        except UsageError:
            continue
    return sorted(found, key=lambda run: run[1].created)


def open_run(name: str) -> Path:
    """The folder of a run given by path, by name under `runs/`, or as `last`.

    Raises:
        UsageError: there is no such run.
    """
    runs = find_runs()
    if name == "last" and runs:
        return runs[-1][0].resolve()
    for folder in (Path(name), RUNS / name):
        if (folder / RunRecord.filename).exists():
            return folder.resolve()
    raise UsageError(
        f"There is no run {name}.",
        why="It is neither a run folder nor a run's name under runs/.",
        fix="`tunesmith runs list` shows the runs; `last` is the newest.",
    )

"""Past one machine: a preparation written as a datatrove script, and run by it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from pprint import pformat

from ...errors import EnvironmentLacksError, TunesmithError
from ...files import write_atomic
from ...records import Cluster, Preparation, PreparationSettings
from .bad import refuse_bad_rows
from .job import Job
from .run import once

_EXECUTORS = {
    "local": ("LocalPipelineExecutor", "tasks=tasks, workers=min(tasks, WORKERS), start_method='spawn'"),
    "slurm": ("SlurmPipelineExecutor", "tasks=tasks, partition=PARTITION, time=TIME, job_name=f'prepare {stage.name}'"),
    "ray": ("RayPipelineExecutor", "tasks=tasks"),
}


def script(settings: PreparationSettings, output: Path, cluster: Cluster) -> str:
    """A datatrove pipeline that prepares the dataset: the same stages as the local run, shared by tasks."""
    name, arguments = _EXECUTORS[cluster.where]
    module = "datatrove.executor" if cluster.where != "ray" else "datatrove.executor.ray"
    stages = _stages(settings)
    parts = {
        "settings": pformat(settings.model_dump(exclude_defaults=True), sort_dicts=False, width=110),
        "constants": _constants(cluster),
        "stages": "\n".join(f'        ("{stage}", {"TASKS" if shared else 1}),' for stage, shared in stages),
    }
    return f'''"""Prepares a dataset with datatrove. Written by tunesmith; run it with Python, change what you need.

A stage begins when the one before has ended. Each task does its share and marks what is done, so running this file
again, also with other TASKS, continues where it stopped. All machines must see OUTPUT.
"""

import os
from pathlib import Path

from {module} import {name}
from tunesmith.data.steps.datatrove_steps import Stage, begin
from tunesmith.records.preparation import PreparationSettings

FOLDER = {json.dumps(str(Path.cwd()))}  # where relative paths count from
OUTPUT = Path({json.dumps(str(output.resolve()))})
TASKS = {cluster.tasks}
{parts["constants"]}SETTINGS = PreparationSettings(
    **{_indented(parts["settings"])}
)


def executor(stage, tasks, depends):
    """One stage; it begins when `depends` has ended."""
    return {name}(
        pipeline=[stage],
        {arguments.replace("'", '"')},
        depends=depends,
        skip_completed=False,  # the stages know what is done, for any number of tasks
        logging_dir=f"{{OUTPUT}}.pipeline/logs/{{stage.name}}",
    )


def main():
    os.chdir(FOLDER)
    job = begin(SETTINGS, OUTPUT)
    last = None
    for name, tasks in [
{parts["stages"]}
    ]:
        last = executor(Stage(job, name), tasks, last)
    last.run()


if __name__ == "__main__":
    main()
'''


def _stages(settings: PreparationSettings) -> list[tuple[str, bool]]:
    """The stages by name, and whether several tasks share each."""
    stages = [("convert", True), ("check", False)]
    if settings.dedup != "none":
        stages.append(("exact", True))
    if settings.dedup == "near":
        stages += [("common", False), ("sign", True), ("meet", True), ("compare", True), ("union", False)]
    return [*stages, ("write", True), ("finish", False)]


def _constants(cluster: Cluster) -> str:
    if cluster.where == "local":
        return "WORKERS = TASKS  # at once\n"
    if cluster.where == "slurm":
        return f'PARTITION = {json.dumps(cluster.partition)}\nTIME = "24:00:00"  # limit of each stage\n'
    return ""


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def run_scaled(settings: PreparationSettings, output: Path, cluster: Cluster) -> Preparation | None:
    """Write the pipeline beside the output folder and run it; None where it was handed to a cluster's queue.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: as prepare_dataset; datatrove isn't installed.
        TunesmithError: the pipeline failed; its log says why.
    """
    require_datatrove()
    return once(settings, output, lambda job: _run_script(job, cluster))


def _run_script(job: Job, cluster: Cluster) -> Preparation | None:
    output = job.output
    beside = output.resolve().with_name(f"{output.resolve().name}.pipeline")
    path = write_atomic(beside / "pipeline.py", script(job.settings, output, cluster))
    with (beside / "pipeline.log").open("w", encoding="utf-8") as log:
        ended = subprocess.run([sys.executable, str(path)], stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        if job.work.counts("read", "all"):
            refuse_bad_rows(job)
        raise _failed(beside / "pipeline.log")
    if cluster.where != "local":
        return None
    record = Preparation.load(output)
    shutil.rmtree(beside)
    return record


def require_datatrove() -> None:
    """Refuse when datatrove isn't there.

    Raises:
        EnvironmentLacksError: it isn't installed.
    """
    if importlib.util.find_spec("datatrove") is None:
        raise EnvironmentLacksError(
            "datatrove isn't installed.",
            why="It runs the steps of a preparation on many tasks, under Slurm or Ray too.",
            fix="`pip install 'tunesmith[scale]'`.",
        )


def _failed(log: Path) -> TunesmithError:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return TunesmithError(
        "The datatrove pipeline failed.",
        why=lines[-1].strip() if lines else "It ended without a word.",
        fix=f"Read {log}; the same command continues where it stopped.",
    )

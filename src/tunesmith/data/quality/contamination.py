"""Rows that contain questions of evaluation tasks, where the tasks' data is on this machine already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...rules import finding
from .near import parts
from .shingles import Hashes, shingle
from .view import Outcome, View

WORDS = 13
"""Words in a row that two texts must have in common: Brown et al. 2020 (GPT-3), and lm-eval's decontamination."""
_BOILERPLATE = 10


@dataclass(frozen=True)
class Task:
    """Where a task's questions stand.

    Attributes:
        name: As lm-eval names it.
        dataset: Its id on the Hub.
        config: Its configuration, "*" for any.
        split: The split that is scored.
        columns: What a question is made of.
    """

    name: str
    dataset: str
    config: str
    split: str
    columns: tuple[str, ...]


def tasks() -> list[Task]:
    """The tasks of tasks.yaml."""
    table = yaml.safe_load(files(__package__).joinpath("tasks.yaml").read_text(encoding="utf-8"))
    return [Task(name, dataset, config, split, tuple(columns)) for name, dataset, config, split, columns in table]


def at_hand(cache: Path | None = None) -> dict[str, list[str]]:
    """The questions of those tasks whose data stands in the caches of `datasets` and the Hub; nothing is downloaded.

    `cache` is the folder of both: default HF_HOME, or what HF_DATASETS_CACHE and HF_HUB_CACHE say.
    """
    found: dict[str, list[str]] = {}
    for task in tasks():
        questions = [question for path in _files_of(task, cache) for question in _questions(path, task.columns)]
        if questions:
            found[task.name] = list(dict.fromkeys(questions))
    return found


def contaminated(texts: Sequence[str], questions: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """For each task the numbers of the texts that share 13 words in a row with one of its questions.

    What more than ten questions of a task share tells nothing. A question of fewer than 13 words can't be found.
    """
    known = {task: _telling(some) for task, some in questions.items()}
    found: dict[str, list[int]] = {task: [] for task in questions}
    for part in parts([len(text) for text in texts]):
        made = shingle(texts[part], WORDS)
        owner = np.repeat(np.arange(part.start, part.stop), made.counts)
        for task, hashes in known.items():
            found[task] += np.unique(owner[np.isin(made.hashes, hashes)]).tolist()
    return {task: numbers for task, numbers in found.items() if numbers}


def _telling(questions: Sequence[str]) -> Hashes:
    made = shingle(questions, WORDS, short=False)
    owner = np.repeat(np.arange(len(questions), dtype=np.uint64), made.counts)
    owned = np.unique(np.stack([made.hashes, owner], axis=1), axis=0)[:, 0]
    hashes, count = np.unique(owned, return_counts=True)
    return np.asarray(hashes[count <= _BOILERPLATE])


def _files_of(task: Task, cache: Path | None) -> Iterator[Path]:
    home = cache or Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    prepared, hub = home / "datasets", home / "hub"
    if cache is None:
        prepared = Path(os.environ.get("HF_DATASETS_CACHE", prepared))
        hub = Path(os.environ.get("HF_HUB_CACHE", hub))
    # datasets writes the name of a dataset in lower case where the Hub writes it so too; both are looked for.
    for name in dict.fromkeys((task.dataset, task.dataset.lower())):
        folder = prepared / name.replace("/", "___")
        yield from sorted(folder.glob(f"{task.config}/*/*/*-{task.split}*.arrow"))
    snapshots = hub / f"datasets--{task.dataset.replace('/', '--')}" / "snapshots"
    inside = f"*/{task.config}/{task.split}*.parquet", f"*/data/{task.split}*.parquet"
    yield from sorted(path for pattern in inside for path in snapshots.glob(pattern))


def _questions(path: Path, columns: Sequence[str]) -> list[str]:
    """The questions of one file; none where it can't be read or lacks a column."""
    import pyarrow as pa

    try:
        rows = _table(path).select(list(columns)).to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid):
        return []
    return ["\n".join(str(row[column]) for column in columns) for row in rows]


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def check_tasks(view: View) -> Outcome:
    """D041 for questions of evaluation tasks, of those tasks whose data is at hand."""
    questions = at_hand()
    if not questions:
        return Outcome({"contamination_checked": "not checked: no evaluation task's data is in the local caches"})
    found = contaminated([row.whole for row in view.rows], questions)
    figures = {
        "contaminated": {task: len(numbers) for task, numbers in found.items()},
        "contamination_checked": ", ".join(questions),
    }
    findings = [finding("D041", view.where, task=task, **view.named(numbers)) for task, numbers in found.items()]
    return Outcome(figures, findings)

"""Every method, trained in full and with LoRA, and what its own measure says of rows that it never saw.

python -m benchmarks.methods [METHOD ...]

The built-in model and its task: a message to a shop in, a ticket as JSON out. Each run is what `tunesmith train` and
`tunesmith evaluate` make of a recipe, the worker in a process of its own; all but the number of steps and the rewards
is left to the plan. Methods that go on from a model that does the task a little start from a short SFT run, as
`model: RUN`. Rows are drawn anew for training and test, and no order is in both.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunesmith import pipeline
from tunesmith.plan.versions import installed_versions
from tunesmith.recipe import build_recipe
from tunesmith.records import Comparison, EvalReport, Plan, RunRecord, units

from . import methods_data
from .measure import RESULTS
from .measure import _machine as machine

PAGE: Final = Path(__file__).parents[1] / "docs" / "methods.md"
RESULT: Final = RESULTS / "methods.json"
ADAPTERS: Final = {"full": "none", "LoRA": "lora"}
HELD_OUT: Final = 200
WEAK_STEPS: Final = 60
_MADE: Final = re.compile(r"(<!-- made: methods -->\n).*(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Setting:
    """How a method is shown.

    Attributes:
        steps: Optimizer steps.
        lora_steps: Those of LoRA, where they are others.
        rows: Training rows.
        weak: Start from the short SFT run instead of the built-in model.
        tasks: What it is evaluated by.
        rewards: Of grpo and rloo.
        training: Arguments of TRL's besides.
    """

    steps: int
    lora_steps: int | None = None
    rows: int = 500
    weak: bool = True
    tasks: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)


_REWARDS: Final = ("exact_match", "json_fields")
SETTINGS: Final = {
    "sft": Setting(steps=150, rows=1000, weak=False),
    "clm": Setting(steps=40, weak=False),
    "dpo": Setting(steps=60, tasks=("preference", "exact_match")),
    "kto": Setting(steps=60, tasks=("margin", "exact_match")),
    "reward": Setting(steps=120, rows=1000),
    "grpo": Setting(steps=50, lora_steps=120, tasks=("reward", "exact_match"), rewards=_REWARDS),
    "rloo": Setting(steps=50, lora_steps=120, tasks=("reward", "exact_match"), rewards=_REWARDS),
}


def main() -> None:
    methods = sys.argv[1:] or list(SETTINGS)
    results = json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["TRACKIO_DIR"] = str(home / "trackio")
        weak = home / "weak"
        if any(SETTINGS[method].weak for method in methods):
            _train(weak, "sft", "none", Setting(steps=WEAK_STEPS), "builtin:small")
        for method in methods:
            model = str(weak) if SETTINGS[method].weak else "builtin:small"
            for name, adapter in ADAPTERS.items():
                results[f"{method} {name}"] = _measured(home / f"{method}-{adapter}", method, adapter, model)
                _write(results)


def _measured(folder: Path, method: str, adapter: str, model: str) -> dict[str, Any]:
    """Train and evaluate one run; what it took and what came of it."""
    began, cpu = time.monotonic(), _cpu_seconds()
    _train(folder, method, adapter, SETTINGS[method], model)
    report = pipeline.evaluate_run(folder)
    record, plan = RunRecord.load(folder), Plan.load(folder)
    findings = [found.code for found in (*record.findings, *report.findings) if found.severity != "note"]
    result = {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu, 1),
        "steps": record.step,
        "learning_rate": plan.training["learning_rate"],
        "primary": report.primary,
        "comparisons": [comparison.model_dump() for comparison in report.comparisons],
        "findings": findings,
    }
    print(f"{method} {adapter}: {result['seconds']} s, {_told(report)}, findings {findings}", file=sys.stderr)
    return result


def _train(folder: Path, method: str, adapter: str, setting: Setting, model: str) -> None:
    steps = setting.lora_steps if adapter == "lora" and setting.lora_steps else setting.steps
    recipe: dict[str, Any] = {
        "model": model,
        "method": method,
        "data": {**methods_data.write(folder.parent, method, setting.rows, HELD_OUT), "eval": 0},
        "adapter": {"kind": adapter},
        "rewards": list(setting.rewards),
        "training": {"max_steps": steps, "report_to": "none", **setting.training},
        "evaluation": {"tasks": list(setting.tasks)} if setting.tasks else {},
    }
    pipeline.train_run(pipeline.prepare_run(build_recipe(recipe), folder))


def _told(report: EvalReport) -> str:
    return "; ".join(f"{one.metric} {one.base:.3f} -> {one.tuned:.3f}" for one in report.comparisons)


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _write(runs: dict[str, Any]) -> None:
    """Write the results, and the page's table."""
    RESULTS.mkdir(exist_ok=True)
    order = [f"{method} {name}" for method in SETTINGS for name in ADAPTERS]
    result = {
        "name": "methods",
        "page": "methods.md",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": installed_versions(),
        "settings": {method: asdict(setting) for method, setting in SETTINGS.items()},
        "runs": {name: runs[name] for name in order if name in runs},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")


def fill(page: str, result: dict[str, Any]) -> str:
    """The page with the table of a result."""
    return _MADE.sub(lambda match: f"{match[1]}{table(result)}\n{match[2]}", page)


def table(result: dict[str, Any]) -> str:
    """A run a line: its measure before and after on held-out rows, and what it took."""
    lines = [
        "| method | trained | steps | measure | base | tuned | difference (95%) | p | also | CPU-seconds |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, run in result["runs"].items():
        method, _, trained = name.partition(" ")
        compared = [Comparison.model_validate(one) for one in run["comparisons"]]
        own = next(one for one in compared if one.metric == run["primary"])
        also = [one for one in compared if one.metric in _BESIDES and one is not own]
        cells = [
            method,
            trained,
            f"{run['steps']}",
            units.metric(own),
            units.score(own, own.base),
            units.score(own, own.tuned),
            units.interval(own),
            units.p_value(own.p_value),
            "; ".join(
                f"{units.metric(one)} {units.score(one, one.base)} to {units.score(one, one.tuned)}" for one in also
            ),
            f"{run['cpu_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    found = sorted({code for run in result["runs"].values() for code in run["findings"]})
    total = sum(run["cpu_seconds"] for run in result["runs"].values())
    wall = sum(run["seconds"] for run in result["runs"].values())
    said = f"Findings of these runs: {', '.join(found) if found else 'none'}."
    took = f"All runs together: {total:,.0f} CPU-seconds, {wall / 60:.0f} minutes by the clock on {result['machine']}."
    return "\n".join([*lines, "", f"{said} {took} Measured {result['measured'][:10]}."])


def _short(one: Comparison) -> str:
    return f"{units.metric(one)} {units.score(one, one.base)} to {units.score(one, one.tuned)}"


_BESIDES: Final = ("exact_match", "loss", "chosen_loss", "desirable_loss", "score_margin", "reward_margin")


if __name__ == "__main__":
    main()

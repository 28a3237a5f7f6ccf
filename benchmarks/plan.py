"""How long `tunesmith plan` takes, whether it imports torch, and whether its intervals of speed hold.

Each published measurement is predicted from all others (leave one out); those that no prior is drawn from are
predicted as they are.

python -m benchmarks.plan [ROUNDS]
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tunesmith.plan.efficiency import Anchor, anchors, checks, expected_efficiency, left_out
from tunesmith.records.cost import Range

from .measure import interleave, report

FLOOR = "python -c pass, the floor"
MODELS = (
    "builtin:small",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-0.6B",
    "google/gemma-3-12b-it",
    "Qwen/Qwen3-30B-A3B",
)
OURS = f"tunesmith plan, {MODELS[1]}"
ROWS = 200
# The command as its entry point runs it, with the heavy modules that it ended up with.
PLAN = """
import sys
from tunesmith.cli import entry
sys.argv = ["tunesmith", "plan", sys.argv[1], "--json"]
try:
    entry()
finally:
    print(",".join(sorted({"torch", "transformers", "trl", "peft"} & set(sys.modules))) or "none", file=sys.stderr)
"""


def recipe(folder: Path, model: str) -> Path:
    """A recipe of chats, written into the folder."""
    rows = [
        {"messages": [{"role": "user", "content": f"Order {n}"}, {"role": "assistant", "content": f"lamp {n} " * 30}]}
        for n in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / f"{model.replace('/', '-').replace(':', '-')}.yaml"
    keys = {"model": model, "data": {"train": str(folder / "rows.jsonl")}, "launch": {"on": "local"}}
    path.write_text(json.dumps(keys), encoding="utf-8")
    return path


def command(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    # A plan with errors ends with 1, and is timed like any other.
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)


def timed(words: list[str]) -> Callable[[], float]:
    """A function that runs the command and gives its seconds."""

    def run() -> float:
        began = time.perf_counter()
        done = command(words)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stderr)
        return time.perf_counter() - began

    return run


def processor_seconds(words: list[str]) -> float:
    """Processor time of the command, of its user and its system part: what a busy machine doesn't lengthen much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command(words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 3)


def interval(anchor: Anchor, share: Range) -> dict[str, object]:
    """A row of the table: measured, predicted, and whether the one lies in the other."""
    predicted = anchor.predicted(share)
    return {
        "measurement": anchor.name,
        "measured": anchor.measured,
        "low": round(predicted.low),
        "likely": round(predicted.likely),
        "high": round(predicted.high),
        "likely_over_measured": round(predicted.likely / anchor.measured, 3),
        "inside": predicted.low <= anchor.measured <= predicted.high,
    }


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}\n")
    for row in rows:
        inside = "" if row["inside"] else "  OUTSIDE"
        bounds = " ".join(f"{row[name]:>7,}" for name in ("low", "likely", "high"))
        print(f"  {row['measurement']:<72} {row['measured']:>7,} in {bounds}{inside}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    without = [interval(anchor, left_out(anchor)) for anchor in anchors()]
    apart = [interval(check, expected_efficiency(check.device.family)) for check in checks()]
    show("Tokens per second of a device, each predicted from the others", without)
    show("Measurements that no prior is drawn from", apart)
    errors = [abs(float(str(row["likely_over_measured"])) - 1) for row in [*without, *apart]]
    print(f"\nMedian error of the likely speed: {statistics.median(errors):.1%}\n")
    with tempfile.TemporaryDirectory() as name:
        recipes = {model: str(recipe(Path(name), model)) for model in MODELS}
        words = {model: ["-m", "tunesmith", "plan", path, "--json"] for model, path in recipes.items()}
        heavy = {model: command(["-c", PLAN, path]).stderr.splitlines()[-1] for model, path in recipes.items()}
        contestants = {f"tunesmith plan, {model}": timed(each) for model, each in words.items()}
        seconds = interleave(contestants | {FLOOR: timed(["-c", "pass"])}, rounds)
        processor = {model: processor_seconds(each) for model, each in words.items()}
    report(
        "plan",
        OURS,
        seconds,
        f"`tunesmith plan RECIPE --json`, {ROWS} rows of chat, offline, from process start to end.",
        aside=FLOOR,
        more={
            "heavy_modules": heavy,
            "processor_seconds": processor,
            "median_error_of_likely_speed": round(statistics.median(errors), 3),
            "leave_one_out": without,
            "checks": apart,
        },
    )


if __name__ == "__main__":
    main()

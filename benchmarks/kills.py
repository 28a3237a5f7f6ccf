"""Kill -9 at random moments: whether every run resumes, and ends with the weights that it would have had.

python -m benchmarks.kills [KILLS] [SEED]

Each method, full and with LoRA (with dropout, which draws random numbers), trains the built-in model once undisturbed.
Then the same run is trained again, killed at moments drawn evenly over the time between its first step and its end,
resumed each time, and at the end compared: bit by bit, the weights of the result. A moment that hits the writing of a
checkpoint leaves a torn one, which is counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from safetensors import safe_open

from tunesmith import pipeline
from tunesmith.plan.versions import installed_versions
from tunesmith.recipe import build_recipe
from tunesmith.recipe.schema import Method
from tunesmith.records import RunRecord
from tunesmith.track.events import read_events
from tunesmith.train.checkpoints import all_checkpoints, is_complete, step_of
from tunesmith.train.worker import Worker

from .measure import RESULTS
from .measure import _machine as machine
from .methods_data import write

GENERATING = ("grpo", "rloo")
REWARD = {"name": "length", "arguments": {"min": 40, "unit": "characters"}}
KINDS = ("none", "lora")
ROWS = 48
STEPS = 12
PATIENCE = 300.0


@dataclass(frozen=True)
class Kill:
    """One kill: after how many seconds of training, after which logged step, and how many checkpoints were torn."""

    method: str
    adapter: str
    seconds: float
    step: int
    torn: int
    resumed_from: int


@dataclass(frozen=True)
class Outcome:
    """One run, killed some times: whether it ended, with the weights and the loss of the undisturbed one."""

    method: str
    adapter: str
    kills: int
    ended: bool
    equal: bool
    same_loss: bool


def prepare(folder: Path, method: str, kind: str) -> Path:
    """A run folder, small enough to train in seconds; it saves and evaluates every other step."""
    folder.mkdir(parents=True)
    data = write(folder, method, ROWS, held_out=8)
    training: dict[str, Any] = {
        "max_steps": STEPS,
        "save_steps": 2,
        "eval_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "report_to": "none",
    }
    if method in GENERATING:
        training |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
    values = {
        "model": "builtin:small",
        "method": method,
        "data": {"train": data["train"], "eval": data["test"]},
        "adapter": {"kind": kind, **({"r": 4, "dropout": 0.1} if kind == "lora" else {})},
        "rewards": [REWARD] if method in GENERATING else [],
        "training": training,
    }
    return pipeline.prepare_run(build_recipe(values), folder / "run")


def start(run: Path) -> subprocess.Popen[bytes]:
    """The run's worker."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    with (run / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "tunesmith.train.worker", str(run)]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


def finish(run: Path) -> None:
    """Train to the end, in this process: only what is killed needs one of its own."""
    worker = Worker(run)
    worker.run()
    worker.log.close()


def begun(run: Path) -> int:
    """How many times training has begun."""
    return sum(event.kind == "start" for event in read_events(run))


def trained_seconds(run: Path) -> float:
    """From the beginning of training to the end of the run, of the last attempt."""
    events = read_events(run)
    first = max(event.time for event in events if event.kind == "start")
    return events[-1].time - first


def kill(run: Path, seconds: float) -> bool:
    """Start the worker and kill it so long after training has begun; says whether it was still at work."""
    before, worker = begun(run), start(run)
    while begun(run) == before:
        if worker.poll() is not None:
            return False
        time.sleep(0.005)
    time.sleep(seconds)
    alive = worker.poll() is None
    if alive:
        os.kill(worker.pid, signal.SIGKILL)
    worker.wait(PATIENCE)
    return alive


def weights(run: Path) -> dict[str, bytes]:
    """The result's tensors, exactly."""
    tensors = {}
    for path in sorted((run / "model").glob("*.safetensors")):
        with safe_open(path, "np") as file:
            tensors |= {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def last_step(run: Path) -> int:
    """The last step that was logged."""
    return max((event.step for event in read_events(run) if event.kind == "log"), default=0)


def trial(folder: Path, method: str, kind: str, wanted: int, draw: random.Random) -> tuple[Outcome, list[Kill]]:
    """One run undisturbed, and one that is killed."""
    reference = prepare(folder / "reference", method, kind)
    finish(reference)
    duration = trained_seconds(reference)
    run, kills, late = prepare(folder / "killed", method, kind), [], 0
    while len(kills) < wanted:
        # What is left of the training is shorter after a resume.
        left = duration * (1 - (kills[-1].resumed_from if kills else 0) / STEPS)
        moment = draw.uniform(0, left)
        if not kill(run, moment):  # it had ended before: begin anew
            late += 1
            kills, run = [], prepare(folder / f"killed-{late}", method, kind)
            continue
        checkpoints = all_checkpoints(run)
        whole = [step_of(path) for path in checkpoints if is_complete(path)]
        torn, resumed = len(checkpoints) - len(whole), max(whole, default=0)
        kills.append(Kill(method, kind, round(moment, 3), last_step(run), torn, resumed))
        print(f"  {kills[-1]}", file=sys.stderr)
    if RunRecord.load(run).status != "done":
        finish(run)
    ended, record = RunRecord.load(reference), RunRecord.load(run)
    equal = weights(run) == weights(reference) and bool(weights(run))
    return Outcome(method, kind, len(kills), record.status == "done", equal, record.loss == ended.loss), kills


def main() -> int:
    """Kill, compare, and write the result; the exit code says whether all were equal."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    trials = [(method, kind) for kind in KINDS for method in get_args(Method)]
    shares = Counter(trials[number % len(trials)] for number in range(wanted))
    outcomes: list[Outcome] = []
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        for (method, kind), count in shares.items():
            outcome, done = trial(Path(folder) / f"{method}-{kind}", method, kind, count, draw)
            outcomes.append(outcome)
            kills += done
            print(f"{method:<7}{kind:<5} {outcome}", file=sys.stderr)
    good = all(outcome.ended and outcome.equal for outcome in outcomes)
    result = {
        "name": "kills",
        "setting": f"builtin:small, {STEPS} steps, a checkpoint every other step, one process on a CPU, one thread",
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": installed_versions(),
        "kills": len(kills),
        "while_a_checkpoint_was_written": sum(bool(one.torn) for one in kills),
        "runs": len(outcomes),
        "ended_with_equal_weights": sum(outcome.equal for outcome in outcomes),
        "each_run": [asdict(outcome) for outcome in outcomes],
        "each_kill": [asdict(one) for one in kills],
    }
    (RESULTS / "kills.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{len(kills)} kills, {result['while_a_checkpoint_was_written']} of them in a checkpoint; "
          f"{result['ended_with_equal_weights']} of {len(outcomes)} runs ended with equal weights.")  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Training on a CPU: TRL as it comes, TRL tuned by hand, and what tunesmith's plan chooses.

python -m benchmarks.train_cpu [ROUNDS]

One core. The built-in model (0.4M parameters) and one of 30M with random weights, all weights trained, on rows of very
unequal length (log-normal, as instructions have them) and of about equal length. Each contestant trains in a process of
its own, once over the same rows, 16 to an optimizer step; what counts are the CPU-seconds of `trainer.train()`. The
losses of all steps are held to be the same within 1%. TRL as it comes: SFTConfig's defaults, which are bf16 autocast,
checkpointing and padded batches of 8, here accumulated twice. Tuned by hand: one row at a time, which needs no padding,
16 accumulated, no checkpointing, fused AdamW, and bf16 only where that is faster (the larger model). Ours is the plan
of a recipe that sets neither batch, nor precision, nor layout.
"""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tunesmith.demo import task
from tunesmith.models.source import locate

from .measure import interleave, report

OURS, DEFAULTS, TUNED = "tunesmith's plan", "TRL, its defaults", "TRL, tuned by hand"
UPDATE, LONGEST, SEED = 16, 1000, 7
COUNTS = {"small": 320, "30m": 48}
LOSSES: dict[tuple[str, ...], list[float]] = {}
SAME: dict[str, Any] = {
    "num_train_epochs": 1,
    "max_length": 1024,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "seed": 42,
    "data_seed": 42,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
"""Trainer arguments of all, under TRL's names."""


def lengths(kind: str, count: int) -> list[int]:
    """Tokens of each row, about: a word of the built-in model's is a token."""
    drawn = random.Random(SEED)
    if kind == "even":
        return [drawn.randint(90, 110) for _ in range(count)]
    return [min(LONGEST, max(8, round(drawn.lognormvariate(4.4, 0.9)))) for _ in range(count)]


def write(home: Path) -> None:
    """The larger model, and the rows of each kind for both."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    words = " ".join(row["messages"][0]["content"] if "messages" in row else row["prompt"][0]["content"]
                     for row in task.rows("train", 50)).split()  # fmt: skip
    for size, count in COUNTS.items():
        for kind in ("mixed", "even"):
            drawn = random.Random(SEED)
            texts = [" ".join(drawn.choices(words, k=max(1, round(each / 2.4)))) for each in lengths(kind, count)]
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (home / f"{size}-{kind}.jsonl").write_text(lines, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(locate("builtin:small").location)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(home / "30m")
    tokenizer.save_pretrained(home / "30m")


def train(contestant: str, home: Path, size: str, kind: str) -> dict[str, Any]:
    """One training in this process: CPU-seconds, tokens and losses."""
    model = "builtin:small" if size == "small" else str(home / size)
    rows = home / f"{size}-{kind}.jsonl"
    with tempfile.TemporaryDirectory(dir=home) as folder:
        make = _ours if contestant == OURS else functools.partial(_trl, defaults=contestant == DEFAULTS, size=size)
        trainer = make(model, rows, Path(folder))
        began, clock = time.process_time(), time.perf_counter()
        trainer.train()
        seconds = time.process_time() - began
        clock = time.perf_counter() - clock
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in logged]
    return {"seconds": seconds, "clock": clock, "tokens": logged[-1]["num_tokens"], "losses": losses}


def _ours(model: str, rows: Path, folder: Path) -> Any:
    from tunesmith.pipeline import prepare_run
    from tunesmith.recipe import build_recipe
    from tunesmith.records import Plan
    from tunesmith.train.job import Job
    from tunesmith.train.methods import build_trainer

    own = {name: value for name, value in SAME.items() if name not in ("seed", "data_seed", "disable_tqdm")}
    training = own | {"lr_scheduler_type": "linear", "warmup_steps": 0}
    recipe = {
        "model": model,
        "data": {"train": str(rows), "eval": 0},
        "adapter": {"kind": "none"},
        "training": training,
        "seed": SAME["seed"],
    }
    run = prepare_run(build_recipe(recipe), folder / "run")
    return build_trainer(Job(Plan.load(run), run))


def _trl(model: str, rows: Path, folder: Path, *, defaults: bool, size: str) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    chosen = {"gradient_accumulation_steps": 2}
    if not defaults:
        chosen = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": UPDATE,
            "gradient_checkpointing": False,
            "bf16": size != "small",
            "optim": "adamw_torch_fused",
        }
    place = locate(model).location
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(place, dtype="float32"),
        args=SFTConfig(output_dir=str(folder), use_cpu=True, **SAME, **chosen),
        train_dataset=Dataset.from_list([json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]),
        processing_class=AutoTokenizer.from_pretrained(place),
    )


def in_a_process(contestant: str, home: Path, size: str, kind: str) -> float:
    """CPU-seconds; the losses are kept and compared."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_cpu", "--one", contestant, str(home), size, kind],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    LOSSES[contestant, size, kind] = found["losses"]
    expected = LOSSES[OURS, size, kind] if (OURS, size, kind) in LOSSES else found["losses"]
    pairs = zip(found["losses"], expected, strict=True)
    if any(abs(one - other) > 0.01 * other for one, other in pairs):
        raise RuntimeError(f"{contestant} and {OURS} learn something else: {found['losses']}, {expected}")
    return float(found["seconds"])


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(train(sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5])))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home)
        for size, kind in ((size, kind) for size in COUNTS for kind in ("mixed", "even")):
            contestants = {
                name: functools.partial(in_a_process, name, home, size, kind) for name in (OURS, DEFAULTS, TUNED)
            }
            seconds = interleave(contestants, rounds)
            named = {"small": "The built-in model", "30m": "A model of 30M parameters"}[size]
            how = {"mixed": "very unequal", "even": "about equal"}[kind]
            setting = f"{named}, all weights, {COUNTS[size]} rows of {how} length, one core, CPU-seconds."
            losses = {name: [round(LOSSES[name, size, kind][at], 4) for at in (0, -1)] for name in contestants}
            report(f"train_cpu_{size}_{kind}", OURS, seconds, setting, more={"first and last loss": losses})


if __name__ == "__main__":
    main()

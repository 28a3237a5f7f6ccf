"""Asking for an exact peak: a process of its own, and a cache of its answers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...errors import EnvironmentLacksError, UsageError
from ...files import sha256, write_atomic
from ...models.source import read_json
from ...records import MemoryEstimate, Phase
from ..memory import Step, estimate
from .request import Request

TIMEOUT = 900  # seconds; an 8B model takes about ten
ERROR = 0.01
"""Relative: docs/memory.md shows the measured peaks that the exact tier was held against."""
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
# Of no consequence for memory, and different in every copy of a model.
_IGNORED = ("_name_or_path", "transformers_version", "_commit_hash")
_FORGOTTEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}


@dataclasses.dataclass(frozen=True)
class ExactPeak:
    """What one faked step took, in bytes as torch's allocator counts them (`max_memory_allocated`)."""

    weights: int  # the model's, its adapter's and its buffers
    gradients: int
    optimizer: int
    activations: int  # what the forward pass leaves for the backward pass
    phases: dict[str, int]  # peak of forward, backward, clip and optimizer
    parameters: int
    trained: int
    seconds: float
    rss: int  # bytes that faking took of this machine's memory
    reference_weights: int = 0  # of the weights, those of DPO's reference model

    @property
    def allocated(self) -> int:
        """The step's peak."""
        return max(self.phases.values())


def exact_peak(step: Step, config_folder: Path) -> MemoryEstimate:
    """What a step takes by the installed trainer's own code; reserve and context are the closed form's.

    Raises:
        UsageError: the step is of a kind that isn't faked, there is no such model, or an argument is refused.
        EnvironmentLacksError: the libraries' code for this model can't run without data.
    """
    peak, closed = measure_exact(Request.of(step), config_folder), estimate(step)
    parts = _parts(peak, accumulates=step.accumulate)
    return closed.model_copy(
        update={
            **parts,
            "state": sum(parts[part] for part in ("weights", "gradients", "optimizer")),
            "phases": [Phase(name=name, bytes=size) for name, size in peak.phases.items()],
            "allocated": peak.allocated,
            "reserved": round(peak.allocated * closed.reserved / closed.allocated),
            "allocated_error": ERROR,
            "tier": "fake step",
        }
    )


def _parts(peak: ExactPeak, *, accumulates: bool) -> dict[str, int]:
    """The peak by parts; what else lives in its phase isn't told apart."""
    phase = max(peak.phases, key=lambda name: peak.phases[name])
    parts = {
        "weights": peak.weights - peak.reference_weights,
        "reference": peak.reference_weights,
        "optimizer": peak.optimizer,
    }
    left = peak.allocated - sum(parts.values())
    gradients = min(left, peak.gradients) if accumulates or phase != "forward" else 0
    activations = min(left - gradients, peak.activations) if phase in ("forward", "backward") else 0
    rest = left - gradients - activations
    return parts | {"gradients": gradients, "activations": activations, "loss": 0, "cache": 0, "buffers": rest}


def measure_exact(request: Request, config_folder: Path) -> ExactPeak:
    """The peak of a step of the model whose config.json stands in `config_folder`.

    Source: the installed trainer itself. Two optimizer steps run under fake tensors, which have shapes and storages but
    no data; every storage is counted while it lives, rounded to the allocator's 512 bytes.

    Raises:
        UsageError: there is no such model, or an argument is refused.
        EnvironmentLacksError: the libraries' code for this model can't run without data.
    """
    config = read_json(config_folder / "config.json")
    kept = cache_folder() / f"{_key(config, request)}.json"
    if kept.exists():
        return ExactPeak(**read_json(kept))
    answer = _run(config, request)
    if "error" in answer:
        error = answer["error"]
        kind = UsageError if error["kind"] == "usage" else EnvironmentLacksError
        raise kind(error["what"], why=error["why"], fix=error["fix"])
    write_atomic(kept, json.dumps(answer, indent=2) + "\n")
    return ExactPeak(**answer)


def cache_folder() -> Path:
    """Where answers are kept: under $XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith" / "exact"


def _key(config: dict[str, Any], request: Request) -> str:
    known = {
        "config": {name: value for name, value in config.items() if name not in _IGNORED},
        "request": dataclasses.asdict(request),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "code": [sha256(file) for file in sorted(Path(__file__).parent.glob("*.py"))],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _run(config: dict[str, Any], request: Request) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not _distributed(name)} | _QUIET
    command = [sys.executable, "-m", "tunesmith.plan.exact"]
    with tempfile.TemporaryDirectory() as folder:
        # A copy: a trainer may write beside the model, and code that lies there is not for running.
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        question = json.dumps({"folder": folder, "request": dataclasses.asdict(request)})
        try:
            done = subprocess.run(
                command,
                input=question,
                capture_output=True,
                text=True,
                env=environment,
                cwd=folder,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _failed(f"It took more than {TIMEOUT} s.") from None
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        lines = done.stderr.strip().splitlines()
        raise _failed(lines[-1] if lines else f"Its process ended with code {done.returncode}.") from None


def _distributed(name: str) -> bool:
    return name in _FORGOTTEN or name.startswith(("ACCELERATE_", "FSDP_", "DEEPSPEED_"))


def _failed(why: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        "The exact memory estimate gave no answer.",
        why=why,
        fix="Plan without --exact: the closed form needs no libraries; its error is stated.",
    )

"""`python -m tunesmith.train.worker RUN`: trains one run folder, wherever it is started.

Local runs, jobs and clouds all start this program on a run folder that holds plan.json and the prepared rows.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import EnvironmentLacksError, TunesmithError
from ..files import exclusive, sha256
from ..records import LOCKED, RUN_LOCK, Finding, FirstSteps, Plan, RunRecord, Severity
from ..rules import FindingsError, finding, refuse_errors
from ..track.events import EventLog, read_events
from . import result
from .checkpoints import last_complete, remove_torn, step_of

if TYPE_CHECKING:
    from trl import SFTTrainer

    from ..data.fast import FastResult

_STOPPED = 130
_ENOUGH_LOSSES = 9
_PROCESS_ERROR = 0.3  # a process's memory tells less of its tensors' than a GPU's allocator does


class Worker:
    """One attempt at training a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = Plan.load(folder)
        self.record = RunRecord.load(folder)
        self.log = EventLog(folder)
        self.stop_asked = False
        self.prepared_by = ""

    def update(self, changes: dict[str, Any]) -> None:
        """Change fields of the run record and save it."""
        self.record = self.record.model_copy(update=changes)
        self.record.save(self.folder)

    def find(self, found: Finding) -> None:
        """Record a finding, in the run record and in the event log."""
        if found not in self.record.findings:
            self.update({"findings": [*self.record.findings, found]})
            self.log.write("finding", self.record.step, **found.model_dump())

    def ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: save and stop after this step; a second signal ends the process at once."""
        self.stop_asked = True
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)

    def run(self) -> int:
        """Train to the end, or until asked to stop. Returns the exit code."""
        self._check_data()
        checkpoint = self._last_checkpoint()
        trainer = self._trainer(step_of(checkpoint) if checkpoint else 0)
        self._check_trainer(trainer)
        if not self.stop_asked:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._check_outcome(trainer)
        stopped = self.stop_asked and trainer.state.global_step < self.plan.steps
        if not stopped:
            self.update({"result": result.save(trainer, self.plan, self.folder)})
        self._close("stopped" if stopped else "done", "stop" if stopped else "end")
        return _STOPPED if stopped else 0

    def fail(self, error: TunesmithError) -> None:
        """Record why the run ended."""
        for found in error.findings if isinstance(error, FindingsError) else []:
            self.find(found)
        self.update({"error": str(error)})
        self._close("failed", "fail", what=error.what, why=error.why, fix=error.fix, exit_code=error.exit_code)

    def _close(self, status: str, event: str, **data: Any) -> None:
        self.update({"status": status, "pid": None, "finished": now(), "peak_memory": result.peak_memory()})
        self.log.write(event, self.record.step, **data)

    def _check_data(self) -> None:
        for split in (self.plan.train, self.plan.eval, self.plan.test):
            if split and sha256(self.folder / split.path) != split.sha256:
                raise FindingsError([finding("R003", split.path, path=split.path)])

    def _last_checkpoint(self) -> Path | None:
        for name in remove_torn(self.folder):
            self.find(finding("R005", "checkpoints", name=name))
        checkpoint = last_complete(self.folder)
        if checkpoint:
            self.update({"resumed_from": [*self.record.resumed_from, step_of(checkpoint)]})
        return checkpoint

    def _trainer(self, step: int) -> SFTTrainer:
        from trl import SFTTrainer  # noqa: F401  so that its import doesn't count as the model's memory

        from .callbacks import EventCallback, GuardCallback, MarkerCallback, StopCallback
        from .first_steps import FirstStepsCallback
        from .sft import build_trainer

        spent = max((event for event in read_events(self.folder) if event.kind == "log" and event.step <= step),
                    key=lambda event: event.time, default=None)  # fmt: skip
        self.guard = GuardCallback()
        tracker = self._tracker()
        return build_trainer(
            self.plan,
            self.folder,
            [
                EventCallback(
                    self.log,
                    self.update,
                    tokens=spent.data["num_tokens"] if spent else 0,
                    seconds=spent.data["seconds"] if spent else 0.0,
                ),
                self.guard,
                FirstStepsCallback(self.plan, self._first_steps_done, before=result.peak_memory()),
                MarkerCallback(self.log),
                StopCallback(lambda: self.stop_asked),
                *([tracker] if tracker else []),
            ],
            report=self._rows_prepared,
        )

    def _first_steps_done(self, measured: FirstSteps) -> None:
        self.update({"first_steps": measured})
        self.log.write("pace", measured.step, **measured.model_dump(exclude={"step"}))
        error = self.plan.memory.allocated_error if self.plan.hardware.device == "cuda" else _PROCESS_ERROR
        # Less says nothing: longer rows may come.
        if measured.difference is not None and measured.difference > error:
            actual, planned = measured.allocated / 1e9, measured.planned / 1e9
            off = finding("R007", "memory", difference=measured.difference, actual=actual, planned=planned, error=error)
            self.find(off)
        timeout = self.plan.recipe["launch"]["timeout"]
        if timeout is not None and measured.remaining.likely > timeout:
            self.find(finding("R008", "launch.timeout", left=measured.remaining.likely / 3600, timeout=timeout / 3600))

    def _rows_prepared(self, results: dict[str, FastResult]) -> None:
        from ..data.trl_preparation import library

        told: dict[str, Any] = {
            name: {"encoder": got.encoder, "not_taken": got.reason, "slower": got.slower}
            for name, got in results.items()
        }
        self.log.write("rows", **told)
        if results and all(got.dataset is not None for got in results.values()):
            self.prepared_by = (
                f"tunesmith's fast path ({results['train'].encoder}), held against {library()} on a sample"
            )

    def _tracker(self) -> Any:
        if "trackio" not in self.plan.trackers:
            return None
        from ..track.trackio import trackio_callback

        return trackio_callback(lambda error: self.find(finding("R006", "trackio", error=error)))

    def _check_trainer(self, trainer: SFTTrainer) -> None:
        from ..data.tokens import audit_findings, audit_prepared

        trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
        audit = audit_prepared(
            trainer.train_dataset,
            trainer.processing_class,
            layout=self.plan.layout,
            loss_on=self.plan.loss_on,
            rows_given=self.plan.train.rows,
            max_length=self.plan.training["max_length"],
            rows_cut=self.plan.train.cut,
            longest=self.plan.train.longest,
            stop_ids=self.plan.model.stop_ids,
        )
        if self.prepared_by:
            audit = audit.model_copy(update={"prepared_by": self.prepared_by})
        self.update({"parameters_trained": trained, "audit": audit})
        self.log.write("audit", **audit.model_dump(exclude={"preview"}))
        for found in audit_findings(audit, "training rows", context=self.plan.model.context or None):
            self.find(found)
        if trained != self.plan.parameters_trained:
            # Of an architecture that isn't known the plan's count is an estimate.
            severity: Severity = "warning" if self.plan.model.rough and trained else "error"
            planned = self.plan.parameters_trained
            self.find(finding("R002", "model", severity=severity, actual=trained, planned=planned))
        refuse_errors(self.record.findings)

    def _check_outcome(self, trainer: SFTTrainer) -> None:
        from .callbacks import all_finite

        if self.guard.found:
            raise FindingsError([self.guard.found])
        if not all_finite(trainer.model):
            step = trainer.state.global_step
            raise FindingsError([finding("R001", "model", name="a trained weight", value="not finite", step=step)])
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        if len(losses) >= _ENOUGH_LOSSES and (fall := result.no_fall(losses)):
            self.find(finding("R004", "training", first=fall[0], last=fall[1]))


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _guarded(worker: Worker, work: Callable[[], int]) -> int:
    try:
        return work()
    except TunesmithError as error:
        worker.fail(error)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        known = _disk_full(error) or _out_of_memory(error)
        failure = known or TunesmithError(
            f"Training failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            why="An unexpected error in the worker or in a library.",
            fix=f"The traceback is in {worker.folder / 'worker.log'}; `tunesmith resume {worker.folder}` goes on from "
            "the last checkpoint.",
        )
        worker.fail(failure)
        return failure.exit_code


def _disk_full(error: Exception) -> TunesmithError | None:
    text = str(error)
    if not any(sign in text for sign in ("No space left", "File too large", "inline_container", "Disk quota")):
        return None
    return EnvironmentLacksError(
        "The disk is full while saving.",
        why="A checkpoint or the model couldn't be written whole; it doesn't count, earlier ones are untouched.",
        fix="Free space, then continue from the last complete checkpoint with `tunesmith resume RUN`.",
    )


def _out_of_memory(error: Exception) -> TunesmithError | None:
    if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
        return None
    return EnvironmentLacksError(
        "The device ran out of memory.",
        why=str(error).splitlines()[0],
        fix="Set a smaller per_device_train_batch_size or max_length under `training:`, or gradient_checkpointing.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the worker; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith.train.worker", description="Train a run folder.")
    parser.add_argument("run", type=Path, help="the run folder")
    folder = parser.parse_args(arguments).run.resolve()
    # Whoever asks whether a run is alive holds its lock for a moment.
    with exclusive(folder / RUN_LOCK, patience=1.0) as free:
        if not free:
            print("another worker is at work on this run folder", file=sys.stderr)
            return LOCKED
        return _work(folder)


def _work(folder: Path) -> int:
    worker = Worker(folder)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, worker.ask_to_stop)
    started = worker.record.started or now()
    worker.update({"status": "running", "pid": os.getpid(), "started": started, "finished": None, "error": None})
    began = time.monotonic()
    code = _guarded(worker, worker.run)
    print(f"worker ended with code {code} after {time.monotonic() - began:.1f} s", file=sys.stderr)
    worker.log.close()
    return code


if __name__ == "__main__":
    sys.exit(main())

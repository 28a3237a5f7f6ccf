"""`python -m tunesmith.train.worker RUN`: trains one run folder, wherever it is started.

Local runs, jobs and clouds all start this program on a run folder that holds plan.json and the prepared rows.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TunesmithError
from ..files import exclusive
from ..plan.rows import GENERATING
from ..records import LOCKED, RUN_LOCK, CheckpointOrigin, Finding, FirstSteps, Plan, Rollback, RunRecord, Severity
from ..rules import FindingsError, finding, refuse_errors
from ..track.events import EventLog, read_events
from ..track.failures import forget_failures, tell_failure
from . import ranks, result, shared
from .checkpoints import last_complete, remove_torn, step_of
from .failures import explained, resumable
from .guard.limits import Limits, seconds_spent
from .origin import check_conditions, origin_of, own_code
from .requests import Finished, Interrupted, StopRequest

if TYPE_CHECKING:
    from transformers import Trainer

    from ..data.fast import FastResult
    from .guard.signals import Signal

_STOPPED = 130
_ENOUGH_LOSSES = 9
_OUTCOME = ("R004", "R032", "R033", "R034")
"""What is said of a run at its end: an attempt that goes on says it anew."""


class Worker:
    """One attempt at training a run folder."""

    def __init__(self, folder: Path, *, anyway: bool = False) -> None:
        """`anyway`: go on from a checkpoint that was made under other conditions."""
        self.folder = folder
        self.anyway = anyway
        self.plan = Plan.load(folder)
        self.record = RunRecord.load(folder)
        self.log = EventLog(folder, silent=not ranks.is_main())
        self.limits = Limits.of(self.plan, seconds_spent(read_events(folder)))
        self.stop = StopRequest()
        self.tracker: Any = None
        self._changing = threading.RLock()  # the guard's watchdog tells from a thread of its own
        self.prepared_by = ""

    @cached_property
    def origin(self) -> CheckpointOrigin:
        """What the checkpoints of this attempt are made by."""
        return origin_of(self.plan)

    def update(self, changes: dict[str, Any]) -> None:
        """Change fields of the run record and save it; of several processes the main one does."""
        with self._changing:
            self.record = self.record.model_copy(update=changes)
            if ranks.is_main():
                self.record.save(self.folder)

    def find(self, found: Finding) -> None:
        """Record a finding, in the run record and in the event log."""
        with self._changing:
            if found in self.record.findings:
                return
            self.update({"findings": [*self.record.findings, found]})
            self.log.write("finding", self.record.step, **found.model_dump())
        if self.tracker:
            self.tracker.alert(found)

    def run(self) -> int:
        """Train to the end, or until asked to stop. Returns the exit code."""
        # What ended an earlier attempt is looked for again.
        earlier = [one for one in self.record.findings if one.severity != "error" and one.code not in _OUTCOME]
        self.update({"findings": earlier})
        checkpoint = self._last_checkpoint()
        self._refuse(check_conditions(self.folder, self.plan, checkpoint), step_of(checkpoint) if checkpoint else 0)
        if checkpoint is None and ranks.is_main() and not (self.folder / CheckpointOrigin.filename).exists():
            self.origin.save(self.folder)  # for an attempt that goes on from no checkpoint either
        trainer = self._trained(checkpoint)
        self._check_weights(trainer)
        stopped = self._stop_asked() and trainer.state.global_step < self.plan.steps
        if not stopped:
            self._tell_outcome(trainer)
            self.update({"result": result.save(trainer, self.plan, self.folder)})
        self._close("stopped" if stopped else "done", "stop" if stopped else "end")
        ranks.leave()
        if ranks.is_main():
            shared.forget(self.folder)
        # torchrun takes any other code of one process as a failure of all.
        return _STOPPED if stopped and ranks.count() == 1 else 0

    def _trained(self, checkpoint: Path | None) -> Trainer:
        """The trainer at its end; where the guard sent the run back, that of the last try."""
        from accelerate.utils.memory import clear_device_cache

        while True:
            step = step_of(checkpoint) if checkpoint else 0
            trainer = self._trainer(step)
            for found in ranks.check(trainer, self.plan, step):
                self.find(found)
            self._check_trainer(trainer)
            try:
                self._train(trainer, checkpoint)
            finally:
                self.guard.close()
            if self.guard.back is None:
                return trainer
            checkpoint = self._go_back(self.guard.back)
            del trainer
            clear_device_cache(garbage_collection=True)

    def _go_back(self, signal: Signal) -> Path | None:
        """To the last good checkpoint, from which on the learning rate is lower; None: to the beginning."""
        from .guard.rollback import discard_after, last_good

        checkpoint = last_good(self.folder, signal.since)
        to = step_of(checkpoint) if checkpoint else 0
        ranks.wait()
        if ranks.is_main():
            discard_after(self.folder, to)
        back = Rollback(code=signal.code, step=self.record.step, to=to, factor=self.guard.rate_factor)
        self.update({"rollbacks": [*self.record.rollbacks, back]})
        self.log.write("rollback", to, code=back.code, seen=back.step, factor=back.factor)
        return checkpoint

    def fail(self, error: TunesmithError) -> None:
        """Record why the run ended."""
        for found in error.findings if isinstance(error, FindingsError) else []:
            self.find(found)
        self.update({"error": str(error)})
        if not ranks.is_main():
            tell_failure(self.folder, ranks.rank(), error)
        self._close("failed", "fail", what=error.what, why=error.why, fix=error.fix, exit_code=error.exit_code)

    def _close(self, status: str, event: str, **data: Any) -> None:
        self.update({"status": status, "pid": None, "finished": now(), "peak_memory": result.peak_memory()})
        self.log.write(event, self.record.step, **data)

    def _refuse(self, found: list[Finding], step: int) -> None:
        """Stop at errors among what was found before step `step`, unless told to go on anyway."""
        errors = [one for one in found if one.severity == "error"]
        if not self.anyway:
            refuse_errors(errors)
        for one in found:
            self.find(one.model_copy(update={"severity": "warning"}) if one in errors else one)
        if errors:
            codes = ", ".join(sorted({one.code for one in errors}))
            self.find(finding("R030", "resume", step=step, codes=codes))

    def _last_checkpoint(self) -> Path | None:
        checkpoint = last_complete(self.folder)
        severity: Severity = "note" if checkpoint else "warning"
        remedy = "Nothing to do: the run goes on from the last complete one."
        if not checkpoint:
            remedy = "The run begins again at its first step, as there is no other; look at the disk if it was whole."
        for name in remove_torn(self.folder, checkpoint) if ranks.is_main() else []:
            self.find(finding("R005", "checkpoints", severity=severity, name=name, remedy=remedy))
        if checkpoint:
            self.update({"resumed_from": [*self.record.resumed_from, step_of(checkpoint)]})
        return checkpoint

    def _trainer(self, step: int) -> Trainer:
        from trl import SFTTrainer  # noqa: F401  so that its import doesn't count as the model's memory

        from ..track.others import hold_back
        from .callbacks import CheckpointCallback, EventCallback
        from .first_steps import FirstStepsCallback
        from .guard.rollback import RateCallback, scale_of
        from .guard.watch import GuardCallback
        from .job import Job
        from .methods import build_trainer
        from .stopping import StopCallback
        from .together import TogetherCallback
        from .watch.build import choosing, watchers

        spent = max((event for event in read_events(self.folder) if event.kind == "log" and event.step <= step),
                    key=lambda event: event.time, default=None)  # fmt: skip
        self.guard = GuardCallback(
            self.plan,
            self.find,
            rollbacks=self.record.rollbacks,
            limits=self.limits,
            interrupt=self.stop.ask_from_thread,
        )
        self.stopping = StopCallback(self.stop)
        self.tracker = self._tracker()
        events = EventCallback(
            self.log,
            self.update,
            tokens=spent.data["num_tokens"] if spent else 0,
            seconds=spent.data["seconds"] if spent else 0.0,
        )
        job = Job(self.plan, self.folder, report=self._rows_prepared)
        job.callbacks[:] = [
            events,
            FirstStepsCallback(self.plan, self._first_steps_done, before=result.peak_memory()),
            CheckpointCallback(
                self.log,
                self.origin,
                keep=self.plan.training.get("save_total_limit"),
                stopped=lambda: self.guard.stopped_by is not None,
            ),
            self.guard,
            *([RateCallback(scale_of(self.record.rollbacks))] if self.record.rollbacks else []),
            self.stopping,
            *([self.tracker] if self.tracker else []),
            *watchers(job, self.log, self.update, self.find),
            TogetherCallback(self.plan),
        ]
        trainer = build_trainer(job)
        hold_back(trainer.callback_handler.callbacks, self._tracker_failed)
        self.choosing = choosing(job)
        return trainer

    def _train(self, trainer: Trainer, checkpoint: Path | None) -> None:
        from .stopping import save_now
        from .watch.best import take_best

        if self._stop_asked():
            return
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Interrupted:
            self.stopping.rewind()
            save_now(trainer)
        except Finished:
            take_best(trainer)  # the last checkpoint is loaded, and nothing is left to do
        else:
            self.stop.served()
            return
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)

    def _stop_asked(self) -> bool:
        """Whether any of the processes was asked to stop; all of them have to call it."""
        (self.stop.asked,) = ranks.anywhere(self.stop.asked)
        return self.stop.asked

    def _first_steps_done(self, measured: FirstSteps) -> None:
        self.update({"first_steps": measured})
        from .first_steps import exceeded

        self.log.write("pace", measured.step, **measured.model_dump(exclude={"step"}))
        for found in exceeded(self.plan, measured):
            self.find(found)

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
        if "trackio" not in self.plan.trackers or not ranks.is_main():
            return None
        from ..track.trackio import trackio_callback

        return trackio_callback(lambda error: self._tracker_failed("trackio", error))

    def _tracker_failed(self, name: str, error: str) -> None:
        self.find(finding("R006", "training.report_to", tracker=name, error=error))

    def _check_trainer(self, trainer: Trainer) -> None:
        from ..data.tokens import audit_findings
        from .audit import audit_trainer

        trained = sum(ranks.size_of(parameter) for parameter in trainer.model.parameters() if parameter.requires_grad)
        audit = audit_trainer(trainer, self.plan, self.prepared_by)
        self.update({"parameters_trained": trained, "audit": audit})
        if audit:
            self.log.write("audit", **audit.model_dump(exclude={"preview"}))
            for found in audit_findings(audit, "training rows", context=self.plan.model.context or None):
                self.find(found)
        if trained != self.plan.parameters_trained:
            # Of an architecture that isn't known the plan's count is an estimate.
            severity: Severity = "warning" if self.plan.model.rough and trained else "error"
            planned = self.plan.parameters_trained
            self.find(finding("R002", "model", severity=severity, actual=trained, planned=planned))
        refuse_errors(self.record.findings)

    def _check_weights(self, trainer: Trainer) -> None:
        from .callbacks import all_finite

        if stopped_by := [found for found in ranks.gathered(self.guard.stopped_by) if found]:
            raise FindingsError(stopped_by[:1])
        if not all_finite(trainer.model):
            step = trainer.state.global_step
            details = {"name": "a trained weight", "value": "not finite", "step": step, "done": "there is no result"}
            raise FindingsError([finding("R001", "model", **details)])
        refuse_errors(ranks.check_replicas(trainer.model, self.plan))

    def _tell_outcome(self, trainer: Trainer) -> None:
        from .watch.best import outcome

        state, told = trainer.state, []
        for found in outcome(self.choosing, state) if self.choosing else []:
            told.append(found.code)
            self.find(found)
        if state.global_step < self.plan.steps and "R032" not in told:
            own = self.plan.recipe.get("watch", {}).get("callbacks", [])
            who = f"Your callback {' or '.join(own)}" if own else "A library's callback"
            self.find(finding("R034", "watch.callbacks", who=who, step=state.global_step, steps=self.plan.steps))
        # Where the model writes the answers the loss is around 0 from the start, whatever is learnt.
        falls = self.plan.method not in GENERATING
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if falls and len(losses) >= _ENOUGH_LOSSES and (fall := result.no_fall(losses)):
            self.find(finding("R004", "training", first=fall[0], last=fall[1]))


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def guarded(worker: Worker, work: Callable[[], int]) -> int:
    """The exit code of `work`; what it raises becomes the run's record."""
    try:
        return work()
    except TunesmithError as error:
        told = resumable(error, worker.folder)
        worker.fail(told)
        return told.exit_code
    except Exception as error:
        traceback.print_exc()
        failure = ranks.lost_another(error, worker.folder) or explained(error, worker.folder, own_code(worker.plan))
        worker.fail(failure)
        return failure.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the worker; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith.train.worker", description="Train a run folder.")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--anyway", action="store_true", help="resume under other conditions than the checkpoint's")
    given = parser.parse_args(arguments)
    folder = given.run.resolve()
    if not ranks.is_main():
        return _work(folder, anyway=given.anyway)
    # Whoever asks whether a run is alive holds its lock for a moment.
    with exclusive(folder / RUN_LOCK, patience=1.0) as free:
        if not free:
            print("another worker is at work on this run folder", file=sys.stderr)
            return LOCKED
        forget_failures(folder)
        return _work(folder, anyway=given.anyway)


def _work(folder: Path, *, anyway: bool) -> int:
    worker = Worker(folder, anyway=anyway)
    worker.stop.listen()
    started = worker.record.started or now()
    here = {"pid": os.getpid(), "host": socket.gethostname()}
    worker.update({"status": "running", **here, "started": started, "finished": None, "error": None})
    began = time.monotonic()
    code = guarded(worker, worker.run)
    worker.stop.served()  # its clock would end a process that takes its handlers down
    print(f"worker ended with code {code} after {time.monotonic() - began:.1f} s", file=sys.stderr)
    worker.log.close()
    return code


if __name__ == "__main__":
    sys.exit(main())

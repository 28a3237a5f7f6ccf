"""Starting the worker on this machine and following it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ..errors import EnvironmentLacksError, StoppedError, TunesmithError, UsageError
from ..files import disk_errors, exclusive
from ..records import LOCKED, RUN_LOCK, Event, Plan, RunRecord
from ..track.events import FILENAME, follow_events
from ..track.failures import told_failure
from .distributed import command, environment, signal_workers, works_on
from .slurm import write_script

LOG = "worker.log"


def is_alive(folder: Path) -> bool:
    """Whether a worker works on the run folder; it holds the folder's lock as long as it lives."""
    if not (folder / RUN_LOCK).exists():
        return False
    with exclusive(folder / RUN_LOCK) as free:
        return not free


def settled(folder: Path) -> RunRecord:
    """The record of a run, with status failed where its worker is gone without having said so."""
    record = RunRecord.load(folder)
    if record.status != "running" or is_alive(folder):
        return record
    return record.model_copy(update={"status": "failed", "pid": None, "error": "The worker was killed."})


def stop(folder: Path) -> None:
    """Ask a run's worker to save and stop after its current step.

    Raises:
        UsageError: the run isn't running on this machine.
    """
    record = RunRecord.load(folder)
    if record.status == "running" and record.host not in (None, socket.gethostname()):
        raise UsageError(
            f"Run {record.id} isn't running here.",
            why=f"Its worker is on {record.host}, as process {record.pid}; here that number means another process.",
            fix=f"Stop it there: `tunesmith runs stop {folder}` on {record.host}.",
        )
    alive = is_alive(folder)
    if alive and record.pid is not None and not works_on(record.pid, folder):
        raise UsageError(
            f"Run {record.id} can't be stopped from here.",
            why=f"It is at work, but process {record.pid} of this machine isn't its worker; maybe a container's is.",
            fix="Stop it where it was started.",
        )
    if record.pid is None or not alive:
        raise UsageError(
            f"Run {record.id} isn't running here.",
            why=f"Its status is {settled(folder).status}.",
            fix="Nothing to stop.",
        )
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(record.pid, signal.SIGTERM)


def run_worker(folder: Path, listen: Callable[[Event], None], *, anyway: bool = False) -> RunRecord:
    """Start the worker of a prepared run folder, or several, pass their events to `listen`, and wait for the end.

    Ctrl-C and SIGTERM ask the worker to save and stop; a second one ends it at once. `anyway`: resume under other
    conditions than those of the checkpoint.

    Returns:
        The run's record when it is done.

    Raises:
        TunesmithError: the worker failed; the error says what it said.
        StoppedError: the run was stopped and can be resumed.
        EnvironmentLacksError: the plan is for several nodes; RUN/slurm.sh, which a cluster can start, is written.
    """
    if is_alive(folder):
        raise _running_already(folder)
    plan = Plan.load(folder)
    if plan.processes.nodes > 1:
        raise _for_a_cluster(folder, plan)
    events = folder / FILENAME
    start = events.stat().st_size if events.exists() else 0
    failure: Event | None = None
    process = _start(folder, plan, anyway=anyway)
    with _requests_passed_on(process) as asked:
        for event in follow_events(folder, lambda: process.poll() is None, start=start):
            failure = event if event.kind == "fail" else failure
            listen(event)
        code = process.wait()
    return _outcome(folder, code, failure, stop_asked=bool(asked))


def _running_already(folder: Path) -> UsageError:
    record = RunRecord.load(folder)
    return UsageError(
        f"Run {record.id} is running already (process {record.pid}).",
        why="Two workers on one run folder would overwrite each other's checkpoints.",
        fix=f"Watch it with `tunesmith runs logs {folder}`, or stop it with `tunesmith runs stop {folder}`.",
    )


def _for_a_cluster(folder: Path, plan: Plan) -> EnvironmentLacksError:
    script = write_script(folder, plan)
    return EnvironmentLacksError(
        f"Run {folder.name} is prepared, and is trained on {plan.processes.nodes} nodes.",
        why="A command on one machine can't start the others; a cluster's queue can.",
        fix=f"Submit it with `sbatch {script}`, also to resume it.",
    )


def _start(folder: Path, plan: Plan, *, anyway: bool = False) -> subprocess.Popen[bytes]:
    with disk_errors(folder / LOG), (folder / LOG).open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches only this process, which passes it on as a request.
        return subprocess.Popen(
            command(folder, plan.processes, anyway=anyway),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(plan.processes, plan.hardware),
        )


@contextlib.contextmanager
def _requests_passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """While inside, the first Ctrl-C or SIGTERM asks the worker to save and stop, the second ends it.

    Gives the list of signals that came.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # Not SIGINT: a command in the background of a shell inherits that as ignored, and its worker with it.
        signal_workers(process.pid, signal.SIGKILL if asked else signal.SIGTERM)
        asked.append(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(folder: Path, code: int, failure: Event | None, *, stop_asked: bool) -> RunRecord:
    record = RunRecord.load(folder)
    if code == 0 and record.status == "done":
        return record
    if code == LOCKED or is_alive(folder):
        raise _running_already(folder)
    if failure is not None:
        said = failure.data
        error = TunesmithError(said["what"], why=said["why"], fix=said["fix"])
        error.exit_code = said["exit_code"]
        raise error
    if told := told_failure(folder):
        record.model_copy(update={"status": "failed", "pid": None, "error": str(told)}).save(folder)
        raise told
    if record.status == "stopped" or stop_asked:
        saved = record.status == "stopped" and record.step > 0
        record.model_copy(update={"status": "stopped", "pid": None}).save(folder)
        what_counts = "a checkpoint of this step is saved" if saved else "its last complete checkpoint counts"
        raise StoppedError(
            f"Run {record.id} was stopped at step {record.step} of {record.steps}.",
            why=f"A stop was asked for; {what_counts}.",
            fix=f"Continue with `tunesmith resume {folder}`.",
        )
    record.model_copy(update={"status": "failed", "pid": None}).save(folder)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise TunesmithError(
        f"The worker of run {record.id} ended by {how} at step {record.step}.",
        why="It was killed (SIGKILL often means that memory ran out), or it could not start.",
        fix=f"Look at {folder / LOG}; continue with `tunesmith resume {folder}`.",
    )

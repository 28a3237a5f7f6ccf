"""Starting the worker on this machine and following it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ..errors import StoppedError, TunesmithError, UsageError
from ..files import disk_errors, exclusive
from ..records import LOCKED, RUN_LOCK, Event, RunRecord
from ..track.events import FILENAME, follow_events

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
    if record.pid is None or not is_alive(folder):
        raise UsageError(
            f"Run {record.id} isn't running here.",
            why=f"Its status is {settled(folder).status}.",
            fix="Nothing to stop.",
        )
    os.kill(record.pid, signal.SIGTERM)


def run_worker(folder: Path, listen: Callable[[Event], None]) -> RunRecord:
    """Start the worker on a prepared run folder, pass its events to `listen`, and wait for its end.

    Ctrl-C and SIGTERM ask the worker to save and stop; a second one ends it at once.

    Returns:
        The run's record when it is done.

    Raises:
        TunesmithError: the worker failed; the error says what it said.
        StoppedError: the run was stopped and can be resumed.
    """
    if is_alive(folder):
        raise _running_already(folder)
    events = folder / FILENAME
    start = events.stat().st_size if events.exists() else 0
    failure: Event | None = None
    process = _start(folder)
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


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tunesmith.train.worker", str(folder)]
    with disk_errors(folder / LOG), (folder / LOG).open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches only this process, which passes it on as a request.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment()
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
        with contextlib.suppress(ProcessLookupError):
            # Not SIGINT: a command in the background of a shell inherits that as ignored, and its worker with it.
            os.kill(process.pid, signal.SIGKILL if asked else signal.SIGTERM)
        asked.append(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    environment["TRANSFORMERS_VERBOSITY"] = "warning"  # the log keeps what the terminal is spared
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"):
        environment.pop(name, None)  # they would send the metrics away; only the recipe may say so
    if "CUDA_VISIBLE_DEVICES" not in environment:
        # One process drives one device; several processes come with accelerate (roadmap).
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    return environment


def _outcome(folder: Path, code: int, failure: Event | None, *, stop_asked: bool) -> RunRecord:
    record = RunRecord.load(folder)
    if code == 0 and record.status == "done":
        return record
    if code == LOCKED:
        raise _running_already(folder)
    if failure is not None:
        said = failure.data
        error = TunesmithError(said["what"], why=said["why"], fix=said["fix"])
        error.exit_code = said["exit_code"]
        raise error
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

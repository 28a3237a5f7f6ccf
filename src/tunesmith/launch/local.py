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
from ..files import disk_errors
from ..records import Event, RunRecord
from ..track.events import FILENAME, follow_events

LOG = "worker.log"


def is_alive(record: RunRecord) -> bool:
    """Whether the process of a run still works on it."""
    if record.pid is None or record.status not in ("prepared", "running"):
        return False
    try:
        command = Path(f"/proc/{record.pid}/cmdline").read_bytes()
        return b"tunesmith.train.worker" in command
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    except OSError:
        return True
    with contextlib.suppress(OSError):
        os.kill(record.pid, 0)
        return True
    return False


def settled(record: RunRecord) -> RunRecord:
    """The record of a run, with status failed where its worker is gone without having said so."""
    if record.status != "running" or is_alive(record):
        return record
    return record.model_copy(update={"status": "failed", "pid": None, "error": "The worker was killed."})


def stop(record: RunRecord) -> None:
    """Ask a run's worker to save and stop after its current step.

    Raises:
        UsageError: the run isn't running on this machine.
    """
    if not is_alive(record) or record.pid is None:
        raise UsageError(
            f"Run {record.id} isn't running here.", why=f"Its status is {record.status}.", fix="Nothing to stop."
        )
    os.kill(record.pid, signal.SIGTERM)


def run_worker(folder: Path, listen: Callable[[Event], None]) -> RunRecord:
    """Start the worker on a prepared run folder, pass its events to `listen`, and wait for its end.

    Ctrl-C asks the worker to save and stop; a second Ctrl-C ends it at once.

    Returns:
        The run's record when it is done.

    Raises:
        TunesmithError: the worker failed; the error says what it said.
        StoppedError: the run was stopped and can be resumed.
    """
    record = RunRecord.load(folder)
    if is_alive(record):
        raise UsageError(
            f"Run {record.id} is running already (process {record.pid}).",
            why="Two workers on one run folder would overwrite each other's checkpoints.",
            fix=f"Watch it with `tunesmith runs logs {folder}`, or stop it with `tunesmith runs stop {folder}`.",
        )
    events = folder / FILENAME
    start = events.stat().st_size if events.exists() else 0
    failure: Event | None = None
    process = _start(folder)
    with _interrupts_passed_on(process):
        for event in follow_events(folder, lambda: process.poll() is None, start=start):
            failure = event if event.kind == "fail" else failure
            listen(event)
        code = process.wait()
    return _outcome(folder, code, failure)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tunesmith.train.worker", str(folder)]
    with disk_errors(folder / LOG), (folder / LOG).open("ab") as log:
        # A session of its own: Ctrl-C in the terminal reaches only this process, which passes it on as a request.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment()
        )


@contextlib.contextmanager
def _interrupts_passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """While inside, the first Ctrl-C asks the worker to save and stop, the second ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL if asked else signal.SIGINT)
        asked = True

    before = signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    environment["TRANSFORMERS_VERBOSITY"] = "warning"  # the log keeps what the terminal is spared
    if "CUDA_VISIBLE_DEVICES" not in environment:
        # One process drives one device; several processes come with accelerate (roadmap).
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    return environment


def _outcome(folder: Path, code: int, failure: Event | None) -> RunRecord:
    record = RunRecord.load(folder)
    if code == 0 and record.status == "done":
        return record
    if record.status == "stopped":
        raise StoppedError(
            f"Run {record.id} was stopped at step {record.step} of {record.steps}.",
            why="A stop was asked for; a checkpoint of this step is saved.",
            fix=f"Continue with `tunesmith resume {folder}`.",
        )
    if failure is not None:
        said = failure.data
        error = TunesmithError(said["what"], why=said["why"], fix=said["fix"])
        error.exit_code = said["exit_code"]
        raise error
    record.model_copy(update={"status": "failed", "pid": None}).save(folder)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise TunesmithError(
        f"The worker of run {record.id} ended by {how} at step {record.step}.",
        why="It was killed (SIGKILL often means that memory ran out), or it could not start.",
        fix=f"Look at {folder / LOG}; continue with `tunesmith resume {folder}`.",
    )

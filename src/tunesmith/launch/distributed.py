"""Starting a run's processes and ending them: one worker, or several that torchrun starts and watches."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

from ..records import Hardware, Processes

WORKER: Final = "tunesmith.train.worker"
_GRACE: Final = 120
"""Seconds from a SIGTERM that torchrun passes on until it ends its workers: a large checkpoint takes its time."""


def command(folder: Path, processes: Processes, *, anyway: bool = False) -> list[str]:
    """What trains a run folder on this machine; `anyway`: resume under other conditions than the checkpoint's."""
    worker = ["-m", WORKER, str(folder), *(["--anyway"] if anyway else [])]
    if processes.count == 1:
        return [sys.executable, *worker]
    return [*torchrun(processes), "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost", *worker]


def torchrun(processes: Processes) -> list[str]:
    """torchrun with the rendezvous of torch's own; what is missing is the endpoint, and the program."""
    count = ["--nnodes", str(processes.nodes), "--nproc-per-node", str(processes.count)]
    return [sys.executable, "-m", "torch.distributed.run", *count, "--rdzv-backend", "c10d"]


PRIVATE: Final = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")
"""Variables that would send the metrics away; only the recipe may say so."""
QUIET: Final = {"TRANSFORMERS_VERBOSITY": "warning"}
"""The log keeps what the terminal is spared."""


def defaults(processes: Processes, hardware: Hardware) -> dict[str, str]:
    """Variables of the workers' environment that the user may have set otherwise."""
    # One process drives one device.
    devices = ",".join(map(str, range(processes.count)))
    variables = {"TOKENIZERS_PARALLELISM": "true", "OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": devices}
    if processes.total > 1:
        variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_GRACE)
        if hardware.device == "cpu":
            variables["OMP_NUM_THREADS"] = str(max(1, hardware.cores // processes.count))
    return variables


def environment(processes: Processes, hardware: Hardware) -> dict[str, str]:
    """The worker's environment; what the user has set in it stays."""
    variables = {**defaults(processes, hardware), **os.environ, **QUIET}
    return {name: value for name, value in variables.items() if name not in PRIVATE}


def works_on(process: int, folder: Path) -> bool:
    """Whether a process of this machine is a worker of the run folder."""
    import psutil

    try:
        found = psutil.Process(process)
        given, at = found.cmdline(), Path(found.cwd())
    except psutil.Error:
        return False
    return WORKER in given and any((at / part).resolve() == folder.resolve() for part in given)


def signal_workers(process: int, number: signal.Signals) -> None:
    """Send a signal to the workers that `process` is or has started.

    Under torchrun they get it themselves: torchrun would end them after a while, saved or not.
    """
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process)
        torchrun = any(part == "torch.distributed.run" for part in started.cmdline())
        workers = started.children() if torchrun else []
        for worker in workers or [started]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(number)

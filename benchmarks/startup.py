"""How long `--help` takes: `tunesmith` against `trl` and `hf`, all from this environment.

python -m benchmarks.startup [ROUNDS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from .measure import BIN, interleave, report

FLOOR = "python -c pass, the floor"
CONTESTANTS = {
    "tunesmith --help": [str(BIN / "tunesmith"), "--help"],
    "trl --help": [str(BIN / "trl"), "--help"],
    "hf --help": [str(BIN / "hf"), "--help"],
    FLOOR: [sys.executable, "-c", "pass"],
}


def timed(command: list[str]) -> Callable[[], float]:
    """A function that runs the command and gives its seconds."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    return run


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds = interleave({name: timed(command) for name, command in CONTESTANTS.items()}, rounds)
    report("startup", "tunesmith --help", seconds, "Process start to end of --help.", aside=FLOOR)


if __name__ == "__main__":
    main()

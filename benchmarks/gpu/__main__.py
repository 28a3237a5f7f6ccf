"""`python -m benchmarks.gpu`; how to run it stands in the package's docstring."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

from tunesmith.plan.hardware import local_hardware
from tunesmith.plan.machines import machine_here
from tunesmith.plan.versions import installed_versions

from .checks import CHECKS, can_check
from .configurations import chosen, predict
from .race import chosen_races
from .results import Results, table
from .session import go_on, head, in_a_process

_RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Measure what isn't measured yet, and print the table."""
    began = time.monotonic()
    asked = _asked()
    if asked.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the jobs too
    hardware = local_hardware()
    if hardware.device != "cuda" and not asked.tiny:
        raise SystemExit("There is no NVIDIA GPU that torch could use. --tiny tries the script on the CPU.")
    machine = machine_here(hardware)
    folder = asked.output or (Path(tempfile.mkdtemp(prefix="gpu-tiny-")) if asked.tiny else _RESULTS)
    four_bits = importlib.util.find_spec("bitsandbytes") is not None
    versions = installed_versions()
    if four_bits:
        versions["bitsandbytes"] = importlib.metadata.version("bitsandbytes")
    where = head(
        comparable=not asked.tiny,
        device=hardware.name,
        memory=hardware.memory,
        table_device=machine.device.name,
        versions=versions,
    )
    try:
        results = Results(folder / "gpu.json", where)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    checks = [name for name in CHECKS if can_check(name)]
    races = list(chosen_races(tiny=asked.tiny, four_bits=four_bits))
    results.ask(checks[:1] if asked.tiny else checks, races)
    for configuration in chosen(tiny=asked.tiny, four_bits=four_bits):
        results.expect(configuration, predict(configuration, machine))
    whole = go_on(results, began + 60 * asked.minutes, tiny=asked.tiny, run=in_a_process, say=_say)
    print(table(results.content))
    print(f"Written to {folder / 'gpu.json'}." + ("" if whole else " Time is up: the same command goes on from here."))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="that this call may take")
    parser.add_argument("--tiny", action="store_true", help="try the script on the CPU with tiny shapes")
    parser.add_argument("--output", type=Path, help="folder of gpu.json")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

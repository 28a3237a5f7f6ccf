"""What all measurements share: interleaved runs, medians, and a result file that says where it was measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tunesmith.plan.versions import installed_versions

RESULTS = Path(__file__).parent / "results"
BIN = Path(sys.executable).parent


def interleave(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round.

    Every round runs all of them once, in turn from a shifted start, so that a slow minute of the machine hits all; one
    more round before, which isn't counted, fills the file cache.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            taken = contestants[name]()
            if number:
                seconds[name].append(taken)
                print(f"  round {number}/{rounds}  {name}: {taken:.3f} s", file=sys.stderr)
    return seconds


def report(
    name: str,
    ours: str,
    seconds: Mapping[str, list[float]],
    setting: str,
    *,
    aside: str | None = None,
    more: Mapping[str, object] | None = None,
) -> None:
    """Print medians, their ratio to ours and who wins, and write benchmarks/results/<name>.json.

    `aside` is measured beside the contest: it can't win. `more` is written besides.
    """
    medians = {contestant: statistics.median(times) for contestant, times in seconds.items()}
    rounds = len(next(iter(seconds.values())))
    print(f"\n{setting}\nMedian of {rounds} interleaved rounds, {_machine()}:\n")
    for contestant, median in sorted(medians.items(), key=lambda item: item[1]):
        times = seconds[contestant]
        print(
            f"  {contestant:<36} {median:7.3f} s  ({min(times):.3f} to {max(times):.3f})  "
            f"{median / medians[ours]:6.2f} of {ours}"
        )
    winner = min((name for name in medians if name != aside), key=lambda contestant: medians[contestant])
    print(f"\nFastest: {winner}.")
    RESULTS.mkdir(exist_ok=True)
    result = {
        "name": name,
        "setting": setting,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": installed_versions(),
        "median_seconds": medians,
        "ratio_to_ours": {contestant: median / medians[ours] for contestant, median in medians.items()},
        "fastest": winner,
        "seconds": dict(seconds),
    } | dict(more or {})
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {path}.")


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f} at the end"

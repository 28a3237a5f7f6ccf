"""`python -m tunesmith.plan.exact`: one request on stdin, its answer on stdout, both JSON; words go to stderr.

A process of its own, since faking a GPU changes torch, Transformers and TRL for good.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from ...errors import EnvironmentLacksError, TunesmithError, UsageError
from .request import Request, first_line


def main() -> None:
    """Read the request, run the step, write the answer or the error."""
    given = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # the trainer prints its metrics
        try:
            answer = _answer(Path(given["folder"]), Request.read(given["request"]))
        except TunesmithError as error:
            kind = "usage" if isinstance(error, UsageError) else "environment"
            answer = {"error": {"kind": kind, "what": error.what, "why": error.why, "fix": error.fix}}
    json.dump(answer, sys.stdout)


def _answer(folder: Path, request: Request) -> dict[str, Any]:
    began = time.perf_counter()
    from .run import run_step

    try:
        result = run_step(folder, request)
    except TunesmithError:
        raise
    except Exception as error:  # the libraries' own, for any of the many ways in which a step can need data
        raise EnvironmentLacksError(
            "The installed libraries can't run this step under fake tensors.",
            why=f"{type(error).__name__}: {first_line(error)}",
            fix="Plan without --exact: the closed form covers it, with its error stated.",
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rss = peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB on Linux
    return result | {"seconds": round(time.perf_counter() - began, 2), "rss": rss}


if __name__ == "__main__":
    main()

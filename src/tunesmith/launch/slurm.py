"""The script that trains a run folder on several nodes of a cluster with Slurm."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from ..files import write_atomic
from ..records import Plan, RunRecord
from .distributed import PRIVATE, QUIET, WORKER, defaults, torchrun

SCRIPT: Final = "slurm.sh"
_SAVES: Final = 300  # seconds before the end of a job's time at which the run saves and stops
_TEMPLATE: Final = """#!/bin/bash
# Trains {run} on {nodes} nodes, {count} processes on each.
# Submit it with: sbatch {script}
# The run folder has to be on a disk that all nodes share. What the cluster wants besides (partition, account) goes in
# here, or on the command line of sbatch.
#SBATCH --job-name=tunesmith
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
{resources}#SBATCH --output={run}/slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{saves}

# Each node has a torchrun; they meet at the first one, at a port of this job's own.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
unset {private}
{exports}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={saves}

# Shortly before its time is over (and, where the cluster says so by the same signal, when it gives way to another job),
# the run saves and stops. Only then it is queued again, not after a failure or a stop that somebody asked for.
over=
trap 'over=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
before=$(cat {record})

srun --kill-on-bad-exit=1 {torchrun} \\
    --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$port" \\
    -m {worker} {run} &
step=$!
wait "$step"
code=$?
if [ -n "$over" ]; then
    wait "$step"  # the signal has ended the first wait
    code=$?
fi

after=$(cat {record})
if [ -n "$over" ] && [ "$after" != "$before" ] && grep -q '"status": *"stopped"' <<< "$after"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def write_script(folder: Path, plan: Plan) -> Path:
    """Write RUN/slurm.sh, which trains the run folder or resumes it. Returns its path."""
    resources = f"#SBATCH --gpus-per-node={plan.processes.count}\n" if plan.hardware.device == "cuda" else ""
    timeout = plan.recipe["launch"]["timeout"]
    if timeout:
        minutes, seconds = divmod(timeout, 60)
        resources += f"#SBATCH --time={minutes}:{seconds:02}\n"
    usual = defaults(plan.processes, plan.hardware)
    exports = [f"export {name}={value}" for name, value in QUIET.items()]
    exports += [f'export {name}="${{{name}-{value}}}"' for name, value in usual.items()]
    text = _TEMPLATE.format(
        run=shlex.quote(str(folder)),
        script=shlex.quote(str(folder / SCRIPT)),
        nodes=plan.processes.nodes,
        count=plan.processes.count,
        resources=resources,
        private=" ".join(PRIVATE),
        exports="\n".join(exports),
        record=shlex.quote(str(folder / RunRecord.filename)),
        saves=_SAVES,
        torchrun=shlex.join(torchrun(plan.processes)),
        worker=WORKER,
    )
    return write_atomic(folder / SCRIPT, text)

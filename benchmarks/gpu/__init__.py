"""Training on a GPU: whether what the plan chooses works, how fast it is beside TRL, and what the plan foresaw.

python -m benchmarks.gpu [--minutes 9] [--tiny] [--output DIR]

Unattended, on a machine with an NVIDIA GPU; no network is used and no weights are fetched, as models are built with
random ones. In this order: each attention is held to give a row the same loss alone, padded and packed. Checks train a
few steps in each way that the plan may choose (4 bits, 8-bit optimizer, compiled blocks, kernels, DPO, GRPO, ...).
Races take tokens per second and MFU of TRL as its documentation's example has it, of TRL tuned by hand, and of what the
plan chooses, on the same rows, each twice in the order A B C C B A, with the same loss on a fixed batch. Last, memory
and speed of single steps are held against predictions that were written down before.

DIR/gpu.json (by default in benchmarks/results) is written after each job; a second call goes on where the first
stopped, so a short `--minutes` only means more calls. All of it takes about 25 minutes on one H200. A step that runs
out of memory is a result. `--tiny` runs the same code with tiny shapes on the CPU, with one of the checks, in about a
minute, and writes to a temporary folder unless told otherwise: a trial of the script, whose figures say nothing.

4 bits are tried where bitsandbytes is installed, flash-attn and Liger's kernels where they are. Where tunesmith can't
be installed, bring what is missing as a folder; beside torch, transformers, peft, accelerate, pyarrow, pandas and
PyYAML that is:

    python -m pip install --target packages --no-deps --only-binary :all: --python-version 3.12 trl datasets dill
        multiprocess pydantic pydantic-core annotated-types typing-inspection bitsandbytes duckdb ftfy wcwidth py3langid
        trackio
    PYTHONPATH=src:packages python -m benchmarks.gpu
"""

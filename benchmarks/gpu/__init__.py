"""What a GPU takes against what the plan said before: memory and speed of real training steps; attention's parity.

python -m benchmarks.gpu [--minutes 18] [--tiny] [--output DIR]

Unattended, on a machine with an NVIDIA GPU; no network is used and no weights are fetched, as models are built with
random ones. First each attention is held to give a row the same loss alone, padded and packed. Then all predictions are
written down, and a few steps of TRL's SFTTrainer run for each configuration, each in a process of its own. DIR/gpu.json
(by default in benchmarks/results) is written after each; a second call goes on where the first stopped, so a short
`--minutes` only means more calls. A step that runs out of memory is a result. `--tiny` runs the same code with tiny
shapes on the CPU, in under a minute, and writes to a temporary folder unless told otherwise: a trial of the script,
whose figures say nothing.

QLoRA is measured where bitsandbytes is installed. Where tunesmith can't be installed, bring what is missing as a
folder; beside torch, transformers, peft, accelerate, pyarrow, pandas and PyYAML that is:

    python -m pip install --target packages --no-deps --only-binary :all: --python-version 3.12 trl datasets dill
        multiprocess pydantic pydantic-core annotated-types typing-inspection bitsandbytes
    PYTHONPATH=src:packages python -m benchmarks.gpu
"""

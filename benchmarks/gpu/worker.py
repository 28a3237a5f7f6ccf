"""`python -m benchmarks.gpu.worker`: one job on stdin, its result as the last line of stdout, both JSON.

A process of its own, since peaks are a process's, and one that ran out of memory is no place to measure the next.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import sys
import tempfile
import traceback
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.models.load import load_tokenizer
from tunesmith.models.source import locate
from tunesmith.train.result import peak_memory, reserved_memory

from .checks import check
from .clock import Clock
from .configurations import OPTIMIZER, RANK, Configuration, shape
from .parity import parity
from .race import Race, race

_SEED = 0
_WARM, _TIMED = 3, 8
"""Steps: the first compile kernels and make the optimizer's state."""


def main() -> None:
    """Read the job, do it, write its result; running out of memory is one."""
    job = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # the trainer prints its metrics
        try:
            result = {"status": "measured"} | _do(job)
        except Exception as error:  # whatever the libraries raise is a result of this step alone
            traceback.print_exc()
            result = {"status": status_of(error), "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))


def status_of(error: Exception) -> str:
    """Whether the device's memory was too small, by whichever library says so, or something failed."""
    small = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
    return "out of memory" if small else "failed"


def _do(job: dict[str, Any]) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if "parity" in job:
        return parity(shape(job["parity"], tiny=job["tiny"]), device)
    if "check" in job:
        return check(job["check"], device, tiny=job["tiny"])
    if "race" in job:
        return race(Race(**job["race"]), device)
    return train(Configuration(**job["train"]), device)


def train(configuration: Configuration, device: str) -> dict[str, Any]:
    """A few steps of TRL's SFTTrainer on random rows: bytes, seconds, tokens per second, losses, gradient norms."""
    from trl import SFTTrainer

    torch.manual_seed(_SEED)
    model = _model(configuration, device)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(warm=_WARM)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(configuration, folder, device),
            train_dataset=_rows(configuration),
            processing_class=load_tokenizer(locate("builtin:small").location),
            peft_config=_adapter(configuration),
            callbacks=[clock],
        )
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses, norms = [[entry[name] for entry in logged] for name in ("loss", "grad_norm")]
    pace = statistics.median(clock.timed)
    return {
        "allocated": peak_memory(),
        "reserved": reserved_memory(),
        "context": _context(device),
        "step_seconds": clock.seconds,
        "tokens_per_second": sum(configuration.lengths) / pace,
        "losses": losses,
        "grad_norms": norms,
        "trains": all(norm > 0 for norm in norms) and all(map(math.isfinite, losses + norms)),
    }


def _model(configuration: Configuration, device: str) -> Any:
    """The model with random weights, on the device, in its dtype or in 4 bits."""
    config = AutoConfig.for_model(**configuration.config())
    dtype = getattr(torch, configuration.dtype)
    four_bits = configuration.adapter == "qlora"
    with torch.device("cpu" if four_bits and _crowded(configuration) else device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return in_four_bits(model, config, dtype, device) if four_bits else model


def in_four_bits(model: Any, config: Any, dtype: torch.dtype, device: str) -> Any:
    """A model's weights in NF4, on the device, computing in `dtype`."""
    from transformers import BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return type(model).from_pretrained(
        None,
        config=config,
        state_dict=model.state_dict(),
        dtype=dtype,
        quantization_config=nf4,
        device_map={"": 0 if device == "cuda" else device},
    )


def _crowded(configuration: Configuration) -> bool:
    """Whether the weights in 16 bits leave the device little room for those in 4: that is no result of the step."""
    weights = 2 * configuration.step().model.parameters
    return torch.cuda.is_available() and bool(2 * weights > torch.cuda.mem_get_info()[0])


def _arguments(configuration: Configuration, folder: str, device: str) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        use_cpu=device == "cpu",
        bf16=True,
        optim=OPTIMIZER,
        learning_rate=1e-5,
        per_device_train_batch_size=configuration.rows,
        gradient_accumulation_steps=1,
        gradient_checkpointing=configuration.checkpointing == "full",
        max_steps=_WARM + _TIMED,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",  # each micro-batch has the same lengths
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=_SEED,
    )


def _rows(configuration: Configuration) -> Any:
    """Random tokens, other ones in each step; the loss is taken on all."""
    from datasets import Dataset

    words, lengths = configuration.config()["vocab_size"], configuration.lengths * (_WARM + _TIMED)
    rows = [torch.randint(words, (length,)).tolist() for length in lengths]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def _adapter(configuration: Configuration) -> Any:
    if configuration.adapter == "none":
        return None
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


def _context(device: str) -> int | None:
    """Bytes of the device that are taken and aren't the allocator's; None on a CPU."""
    if device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    return int(total - free - torch.cuda.memory_reserved())


if __name__ == "__main__":
    main()

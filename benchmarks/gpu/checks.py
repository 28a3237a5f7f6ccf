"""Whether what the plan may choose works on this GPU: each check trains a few steps, or compares two ways."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.models.load import load_tokenizer
from tunesmith.models.source import locate
from tunesmith.train import speed
from tunesmith.train.attention import packing_error, register, rounding

from .configurations import RANK, SMALL, shape

_SEED, _STEPS = 0, 6
_GPU_ONLY = "activations in main memory"
_CLOSE = 0.02  # relative difference of losses that bf16 explains


def check(name: str, device: str, *, tiny: bool) -> dict[str, Any]:
    """Whether one of CHECKS holds, and what was seen."""
    torch.manual_seed(_SEED)
    holds, seen = CHECKS[name](device, tiny)
    return {"holds": holds, "seen": seen}


def can_check(name: str) -> bool:
    """Whether what a check needs is there."""
    if name == _GPU_ONLY and not torch.cuda.is_available():
        return False
    module = _NEEDS.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def _model(device: str, tiny: bool, **given: Any) -> Any:
    torch.manual_seed(_SEED)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**shape(SMALL, tiny=tiny)), dtype=torch.bfloat16, **given
        )


def _tokenizer() -> Any:
    return load_tokenizer(locate("builtin:small").location)


def _arguments(config: type, folder: str, device: str, **more: Any) -> Any:
    same = {
        "output_dir": folder,
        "use_cpu": device == "cpu",
        "max_steps": _STEPS,
        "logging_steps": 1,
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": _SEED,
    }
    return config(**same | more)


def _run(trainer: Any) -> tuple[bool, str, list[float]]:
    """Whether every step had a finite loss and a gradient; in words; and the losses."""
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses, norms = ([entry[name] for entry in logged] for name in ("loss", "grad_norm"))
    sound = bool(losses) and all(map(math.isfinite, losses + norms)) and any(norm > 0 for norm in norms)
    return sound, f"loss {losses[0]:.4f} to {losses[-1]:.4f}, gradient {norms[0]:.2f} to {norms[-1]:.2f}", losses


def _sft(device: str, tiny: bool, *, model: Any = None, callbacks: list[Any] | None = None, adapter: bool = False,
         **more: Any) -> tuple[bool, str, list[float]]:  # fmt: skip
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    words = shape(SMALL, tiny=tiny)["vocab_size"]
    rows = [torch.randint(words, (40 + 9 * (row % 5),)).tolist() for row in range(4 * _STEPS)]
    with tempfile.TemporaryDirectory() as folder:
        args = _arguments(SFTConfig, folder, device, dataset_kwargs={"skip_prepare_dataset": True}, **more)
        trainer = SFTTrainer(
            model=_model(device, tiny) if model is None else model,
            args=args,
            train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
            processing_class=_tokenizer(),
            peft_config=LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None,
            callbacks=callbacks or [],
        )
        return _run(trainer)


def _rows_alone(device: str, tiny: bool) -> tuple[bool, str]:
    """Our attention over rows end to end, against SDPA on rows alone."""
    model = _model(device, tiny, attn_implementation=register())
    error = packing_error(model)
    return error <= rounding(model.dtype), f"KL divergence {error:.1e} nats"


def _four_bits(device: str, tiny: bool) -> tuple[bool, str]:
    from .worker import in_four_bits

    config = AutoConfig.for_model(**shape(SMALL, tiny=tiny))
    model = in_four_bits(_model(device, tiny), config, torch.bfloat16, device)
    return _sft(device, tiny, model=model, adapter=True)[:2]


def _eight_bits(device: str, tiny: bool) -> tuple[bool, str]:
    return _sft(device, tiny, optim="adamw_bnb_8bit")[:2]


def _compiled(device: str, tiny: bool) -> tuple[bool, str]:
    torch.manual_seed(_SEED)
    _, _, plain = _sft(device, tiny)
    torch.manual_seed(_SEED)
    backend = "eager" if tiny else "inductor"
    sound, said, losses = _sft(device, tiny, callbacks=[speed.CompileCallback(at_once=True, backend=backend)])
    difference = max(abs(one - other) / other for one, other in zip(losses, plain, strict=True))
    return sound and difference <= _CLOSE, f"{said}; at most {difference:.2%} from uncompiled"


def _kernels(device: str, tiny: bool) -> tuple[bool, str]:
    agree = speed.kernels_agree(_model(device, tiny))
    return agree, "the same predictions" if agree else "other predictions: the plan's choice would be dropped"


def _selective(device: str, tiny: bool) -> tuple[bool, str]:
    more = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"selective": True}}
    return _sft(device, tiny, **more)[:2]


def _offloaded(device: str, tiny: bool) -> tuple[bool, str]:
    return _sft(device, tiny, gradient_checkpointing=True, activation_offloading=True)[:2]


def _texts() -> Iterator[str]:
    return (f"order {number} of lamps" for number in range(64))


def _dpo(device: str, tiny: bool) -> tuple[bool, str]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": text, "chosen": " a lamp is sent", "rejected": " no"} for text in _texts()]
    with tempfile.TemporaryDirectory() as folder:
        args = _arguments(DPOConfig, folder, device, precompute_ref_log_probs=True, loss_type=["sigmoid", "sft"])
        trainer = DPOTrainer(
            model=_model(device, tiny),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=_tokenizer(),
        )
        return _run(trainer)[:2]


def _grpo(device: str, tiny: bool) -> tuple[bool, str]:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(text))) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        args = _arguments(GRPOConfig, folder, device, num_generations=4, max_completion_length=16, max_steps=2)
        trainer = GRPOTrainer(
            model=_model(device, tiny),
            args=args,
            reward_funcs=reward,
            train_dataset=Dataset.from_list([{"prompt": text} for text in _texts()]),
            processing_class=_tokenizer(),
        )
        return _run(trainer)[:2]


CHECKS: dict[str, Callable[[str, bool], tuple[bool, str]]] = {
    "attention over rows end to end": _rows_alone,
    "compiled blocks": _compiled,
    "LoRA on 4 bits": _four_bits,
    "AdamW in 8 bits": _eight_bits,
    "selective checkpointing": _selective,
    _GPU_ONLY: _offloaded,
    "DPO": _dpo,
    "GRPO": _grpo,
    "Liger's kernels": _kernels,
}
_NEEDS = {"LoRA on 4 bits": "bitsandbytes", "AdamW in 8 bits": "bitsandbytes", "Liger's kernels": "liger_kernel"}

"""The real trainer, on rows of zeros."""

from __future__ import annotations

from typing import Any

import torch

from .cuda import replace
from .model import adapter_config, build_base, materialise
from .request import Request
from .watch import Watch, watched

STEPS = 2  # the first makes the optimizer's state, the second has it


def build_trainer(model: Any, request: Request, watch: Watch, folder: Any, output: str) -> Any:
    """TRL's trainer of the method with the model, for two optimizer steps; to be called under fake tensors."""
    from datasets import Dataset

    base, config, more = _dpo(request, folder, watch) if request.method == "dpo" else _sft(request)
    if "peft_config" not in more and (adapter := adapter_config(request)):
        model = _adapted(model, adapter, request)
    batches = 2 if request.accumulate else 1  # from the second micro-batch on, gradients are there
    rows = [[0]] * (STEPS * request.rows * batches)
    return watched(base, watch)(
        model=model,
        args=config(output_dir=output, gradient_accumulation_steps=batches, **_arguments(request)),
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=_tokenizer(),
        data_collator=lambda _rows: _batch(request),
        **more,
    )


def _adapted(model: Any, adapter: Any, request: Request) -> Any:
    """The model with its adapter, for a trainer that adds none by itself."""
    from peft import get_peft_model

    model = get_peft_model(model, adapter)
    if request.checkpointing != "off":
        model.enable_input_require_grads()
    return model


def _sft(request: Request) -> tuple[Any, Any, dict[str, Any]]:
    """Trainer, config and further arguments of SFT, or with the model's own loss of transformers' Trainer."""
    from transformers import Trainer
    from trl import SFTConfig, SFTTrainer

    def config(**given: Any) -> Any:
        return SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, **given)

    if request.fused_loss and request.code == "today":
        return SFTTrainer, config, {"peft_config": adapter_config(request)}
    return Trainer, config, {}


def _dpo(request: Request, folder: Any, watch: Watch) -> tuple[Any, Any, dict[str, Any]]:
    """The same of DPO, whose reference is a model of its own where no adapter can be left out."""
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import dpo_trainer

    precomputed, reference = request.reference == "precomputed", None
    replace(dpo_trainer, "hash_module", lambda _model: "")
    if request.adapter == "none" and not precomputed:
        before = watch.tracker.current
        reference = build_base(folder, request)
        materialise(reference)
        watch.marks["reference_weights"] = watch.tracker.current - before

    def config(**given: Any) -> Any:
        return DPOConfig(max_length=None, precompute_ref_log_probs=precomputed, **given)

    return DPOTrainer, config, {"ref_model": reference, "peft_config": adapter_config(request)}


def _batch(request: Request) -> dict[str, torch.Tensor]:
    """What the collator would give for rows of which every token is trained."""
    pairs = request.method == "dpo"
    shape = (2 if pairs else 1) * request.rows, request.length
    batch = {"input_ids": torch.zeros(shape, dtype=torch.int64), "attention_mask": torch.ones(shape, dtype=torch.int64)}
    if not pairs:
        return batch | {"labels": torch.zeros(shape, dtype=torch.int64)}
    if request.reference == "precomputed":
        batch |= {name: torch.zeros(request.rows) for name in ("ref_chosen_logps", "ref_rejected_logps")}
    return batch | {"completion_mask": torch.ones(shape, dtype=torch.int64)}


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "use_cpu": True,
        "bf16": request.mixed,
        "per_device_train_batch_size": request.rows,
        "max_steps": STEPS,
        "optim": request.optimizer,
        "gradient_checkpointing": request.checkpointing != "off",
        "gradient_checkpointing_kwargs": {"selective": True} if request.checkpointing == "selective" else None,
        "train_sampling_strategy": "sequential",  # a shuffled order needs values
        "logging_nan_inf_filter": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def _tokenizer() -> Any:
    """The smallest that a trainer takes; no text is ever tokenised."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")

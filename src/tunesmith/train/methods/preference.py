"""Learning from what people prefer: TRL's DPOTrainer, KTOTrainer and RewardTrainer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ...data.trl_preparation import as_dataset
from ..model import Trainable, load_trainable
from ..shared import shared

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel
    from trl import DPOTrainer, KTOTrainer, RewardTrainer

    from ..job import Job


def build_dpo(job: Job) -> DPOTrainer:
    """The trainer of a job that learns which of two answers is better (Rafailov et al. 2023, and its variants)."""
    from trl import DPOConfig, DPOTrainer

    args = job.arguments(DPOConfig)
    trainable = load_trainable(job.plan)
    return DPOTrainer(ref_model=_reference(trainable, args), args=args, **job.given(trainable), **_datasets(job))


def build_kto(job: Job) -> KTOTrainer:
    """The trainer of a job that learns from answers marked as good or bad (Ethayarajh et al. 2024)."""
    from trl import KTOConfig, KTOTrainer

    args = job.arguments(KTOConfig)
    trainable = load_trainable(job.plan)
    # The trainer keeps the rows' order, since it pairs each prompt with its neighbour's answer to estimate how far the
    # model has gone; answers to one prompt, or of one label, often stand together.
    datasets = {name: rows.shuffle(seed=args.seed) for name, rows in _datasets(job).items()}
    return KTOTrainer(ref_model=_reference(trainable, args), args=args, **job.given(trainable), **datasets)


def build_reward(job: Job) -> RewardTrainer:
    """The trainer of a job that gives the better of two answers the higher score (Bradley and Terry 1952)."""
    from trl import RewardConfig, RewardTrainer

    args = job.arguments(RewardConfig)
    return RewardTrainer(args=args, **job.given(load_trainable(job.plan)), **_datasets(job))


def _datasets(job: Job) -> dict[str, Dataset]:
    return {f"{name}_dataset": shared(as_dataset(rows), job.run, name) for name, rows in job.rows.items()}


def _reference(trainable: Trainable, args: Any) -> PreTrainedModel | None:
    """The policy as it starts; None where its adapter can be left out, or where it speaks before training only.

    The trainer would load it by the model's name, without its revision.
    """
    from peft import PeftModel

    model, peft_config = trainable
    adapted = peft_config is not None or isinstance(model, PeftModel)
    return None if adapted or args.precompute_ref_log_probs else copy.deepcopy(model)

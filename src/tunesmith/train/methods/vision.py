"""Supervised fine-tuning on rows with images: TRL's SFTTrainer, which opens and tokenises them batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...data.images import as_image_dataset
from ..model import load_trainable

if TYPE_CHECKING:
    from trl import SFTTrainer

    from ..job import Job


def build(job: Job) -> SFTTrainer:
    """The trainer of a job whose rows have images.

    Raises:
        UsageError: the model or its processor can't be loaded.
    """
    from trl import SFTConfig, SFTTrainer

    args = job.arguments(SFTConfig)
    datasets = {f"{name}_dataset": as_image_dataset(rows) for name, rows in job.rows.items()}
    return SFTTrainer(args=args, **job.given(load_trainable(job.plan)), **datasets)

"""What makes a run fast, where the plan's own choice isn't wanted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .section import Section

Attention = Literal["auto", "varlen", "flash_attention_2", "flash_attention_3", "sdpa", "eager"]


class Speed(Section):
    """Switches of what the plan decides for speed; packing and padding_free stand under `training:`."""

    attention: Attention = Field(
        default="auto", description="varlen: torch's own attention over rows of unequal length, without padding"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="Compile the model's blocks; auto: on a GPU, once the run proves long enough"
    )
    kernels: Literal["auto", "off"] = Field(
        default="auto", description="auto: Liger's kernels where liger_kernel is installed and its loss is the same"
    )

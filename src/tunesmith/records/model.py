"""What a model is, from its small files or the shipped table, without its weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import Part

ModelKind = Literal["base", "instruct", "reasoning", "unknown"]


class LinearShape(Part):
    """Linear layers of one name and shape, over all blocks (embedding and output head left out)."""

    name: str = Field(description="Last part of the layer's name, as LoRA targets name it")
    out_features: int
    in_features: int
    count: int
    vision: bool = Field(default=False, description="Part of the vision tower or the projector")


class FusedShape(LinearShape):
    """Routers, or experts that were fused into one parameter a layer, as PEFT adapts them: r * (in + out) * count."""

    targets: list[str] = Field(description="Names of the layers that it was fused of: what LoRA targets name")


class ParameterParts(Part):
    """Parameters by what they do; together they are all of the model's."""

    embedding: int = 0
    attention: int = 0
    mlp: int = Field(default=0, description="Dense MLPs, those of shared experts among them")
    experts: int = Field(default=0, description="Routed experts, all of them")
    router: int = 0
    norm: int = 0
    head: int = Field(default=0, description="Output head; 0 when it is the embedding itself")
    vision: int = Field(default=0, description="Vision tower and projector")
    other: int = 0


class EarlierAdapter(Part):
    """The adapter that an earlier run trained, as a later one begins with it."""

    path: str = Field(description="Its folder")
    sha256: str = Field(description="Of its weights")
    kind: str = Field(description="PEFT's type: LORA, IA3, PROMPT_TUNING, PREFIX_TUNING or another")
    task: str = Field(default="CAUSAL_LM", description="PEFT's task type: CAUSAL_LM, or SEQ_CLS of a reward model")
    parameters: int = Field(description="Parameters that it has")
    settings: dict[str, Any] = Field(default={}, description="Rank and the like, as in its adapter_config.json")


class ModelFacts(Part):
    """What is known of a model from its small files, without its weights."""

    name: str = Field(description="As the recipe names it")
    location: str = Field(description="Local folder or Hub id from which weights are loaded")
    revision: str | None = Field(default=None, description="Commit of the Hub repository")
    architecture: str
    model_type: str
    parameters: int
    parts: ParameterParts = ParameterParts()
    active: int = Field(default=0, description="Parameters that one token uses: of the routed experts only the chosen")
    linears: list[LinearShape]
    fused: list[FusedShape] = Field(default=[], description="What LoRA can adapt besides linear layers")
    experts: bool = Field(default=False, description="Mixture of experts: libraries fuse expert layers as they load")
    expert_count: int = Field(default=0, description="Routed experts of a layer")
    expert_active: int = Field(default=0, description="Routed experts that one token uses")
    layers: int
    hidden: int
    intermediate: int
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocabulary: int
    context: int = Field(description="Longest sequence the model was built for, in tokens")
    window: int = Field(default=0, description="Sliding attention window in tokens; 0 where there is none")
    windowed: int = Field(default=0, description="Number of layers whose attention slides")
    attention_dropout: float = Field(default=0, description="Share of attention weights that training drops out")
    dtype: str = Field(description="Dtype of the stored weights")
    tied: bool
    quantised: str = Field(default="", description="How the stored weights are quantised (gptq, awq, ...), if they are")
    vision: bool = Field(default=False, description="Takes images as well as text")
    has_template: bool
    other_task: str = Field(default="", description="What it is, where it isn't a causal language model")
    stop_ids: list[int] = Field(default=[], description="Tokens at which generation stops, by generation_config.json")
    kind: ModelKind = Field(default="unknown", description="What the model was trained for, by its family's naming")
    gated: bool | None = Field(default=None, description="Whether terms must be accepted on the Hub; None: not known")
    licence: str = Field(default="", description="Licence as the Hub names it; empty: not known")
    bytes: int = Field(description="Size of the weight files")
    rough: bool = Field(
        default=False, description="The architecture isn't known here: sizes that its files don't state are guessed"
    )
    from_headers: bool = Field(
        default=True, description="Parameters were counted in the headers of the weight files, not by config.json"
    )
    missing: int = Field(default=0, description="Parameters that config.json promises and the weight files lack")
    origin: Literal["files", "table"] = "files"
    as_of: str = Field(default="", description="Date of the table that the facts come from")
    tokenizer: str = Field(default="", description="Folder of the tokenizer, where it isn't the model's own")
    earlier: list[EarlierAdapter] = Field(default=[], description="Adapters of earlier runs on top of it, oldest first")
    continues: bool = Field(
        default=False, description="The last of the earlier adapters is trained on; else all are merged into the model"
    )
    tokens: dict[str, int] = Field(default={}, description="Tokens whose embeddings an adapter trains, with their ids")
    embeddings: int = Field(default=0, description="Rows that the embedding is widened to; 0: it stays as it is")

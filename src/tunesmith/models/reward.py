"""Reward models: language models whose output is one score, as TRL's RewardTrainer makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safetensors import safe_open

from ..errors import UsageError
from .facts import model_facts
from .load import load_base, load_planned_tokenizer
from .source import ADAPTER_WEIGHTS, Source, locate, read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ARCHITECTURE: Final = "ForSequenceClassification"
_HEADS: Final = {"score", "classifier"}
"""What Transformers calls the layer that makes the score."""
_LABELS: Final = 2
"""Labels of a classifier whose config names none (Transformers: PretrainedConfig.num_labels)."""
_BATCH: Final = 16


def no_single_score(source: Source) -> str:
    """Why a model's output is no single score that was trained, in words; empty where it is one."""
    if source.earlier:
        adapter = source.earlier[-1]
        if adapter.task != "SEQ_CLS":
            return "its adapter was trained to write, not to score"
        with safe_open(Path(adapter.path) / ADAPTER_WEIGHTS, "np") as file:
            has_head = any(_HEADS & set(name.split(".")) for name in file.keys())  # noqa: SIM118 - no dict
        return "" if has_head else "its adapter has no head, and the base's would be random"
    config = read_json(source.folder / "config.json")
    names = config.get("architectures") or ["model without an architecture"]
    if not any(name.endswith(_ARCHITECTURE) for name in names):
        return f"it is a {names[0]}, whose score would be random"
    labels = len(config.get("id2label") or range(_LABELS))
    return "" if labels == 1 else f"it tells {labels} classes apart"


class RewardModel:
    """A loaded reward model that is called as a reward function is."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """The model scores the last token that isn't padding: its config must know the tokenizer's padding."""
        self.model = model.eval()
        self.tokenizer = tokenizer

    def __call__(
        self, *, prompts: Sequence[Any], completions: Sequence[Any], tools: Any = None, **_columns: Any
    ) -> list[float]:
        """The score of each completion after its prompt."""
        given = tools if isinstance(tools, list) else [None] * len(prompts)
        rows = [self._ids(*row) for row in zip(prompts, completions, given, strict=True)]
        return [score for start in range(0, len(rows), _BATCH) for score in self._scores(rows[start : start + _BATCH])]

    def _ids(self, prompt: Any, completion: Any, tools: str | None) -> list[int]:
        """Tokens as the model was trained on (TRL 1.16, RewardTrainer._prepare_dataset).

        A conversation through its chat template; plain text with the tokenizer's own special tokens and an EOS. TRL's
        GRPOTrainer leaves those out, and the model would score a text that it never saw the like of.
        """
        if isinstance(prompt, str):
            end = str(self.tokenizer.eos_token)
            text = prompt + completion
            return list(self.tokenizer(text if text.endswith(end) else text + end)["input_ids"])
        rendered = self.tokenizer.apply_chat_template(
            [*prompt, *completion], tools=json.loads(tools) if tools else None, tokenize=True, return_dict=True
        )
        return list(rendered["input_ids"])

    def _scores(self, rows: list[list[int]]) -> list[float]:
        import torch

        batch = self.tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            scores: list[float] = self.model(**batch).logits[:, 0].float().tolist()
        return scores


def load_reward_model(
    name: str, revision: str | None = None, *, device: str | torch.device = "cpu", dtype: str = "auto"
) -> RewardModel:
    """Load a reward model: a run of method reward, a folder with a model or an adapter, or a Hub id.

    Raises:
        UsageError: there is none, it can't be loaded, or its output is no single score.
        EnvironmentLacksError: the Hub can't be reached.
    """
    source = locate(name, revision)
    if problem := no_single_score(source):
        raise UsageError(
            f"{name} is no reward model.",
            why=f"{problem[0].upper()}{problem[1:]}.",
            fix="Train one with `method: reward` and name its run, or give a model with one label.",
        )
    facts = model_facts(source)
    tokenizer = load_planned_tokenizer(facts)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = load_base(facts, head="score", dtype=dtype)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return RewardModel(model.to(device), tokenizer)

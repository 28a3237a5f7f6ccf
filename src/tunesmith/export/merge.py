"""The adapter merged into its base in float32, and the proof that the merged model is the tuned one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..files import disk_errors
from ..models.load import is_adapter, load_base, load_model, load_tuned
from ..progress import Progress
from ..records import Check, ModelFacts
from .compare import LIMITS, distributions, divergence
from .probes import Row

if TYPE_CHECKING:
    from torch import Tensor

MERGED = "merged"
FLOOR: Final = float(LIMITS["merged"]["floor"])


@dataclass(frozen=True)
class Merge:
    """A whole tuned model and what was found out about it.

    Attributes:
        folder: Where it is.
        model: It, loaded in float32.
        expected: Its next-token distributions at the positions of the held-out rows.
        effect: KL divergence of tuned from base (nats), that is what training changed; None without held-out rows.
        checks: Comparisons with base and adapter.
    """

    folder: Path
    model: Any
    expected: Tensor | None
    effect: float | None
    checks: list[Check]

    @property
    def limit(self) -> float:
        """Largest KL divergence (nats) that a faithful copy may have: no more than half of what training changed.

        It is never below what rounding to f16 alone brings about.
        """
        limit = float(LIMITS["merged"]["kl"])
        return limit if self.effect is None else max(min(limit, self.effect / 2), FLOOR)

    @property
    def faint(self) -> bool:
        """Whether training changed so little that a copy without it could stay below `limit`."""
        return self.effect is not None and self.effect < 2 * FLOOR


def merge(facts: ModelFacts, result: Path, tokenizer: Any, rows: Sequence[Row], target: Path, tell: Progress) -> Merge:
    """Make `target/merged` of the adapter in `result`; a result that is a whole model is taken as it is.

    Raises:
        EnvironmentLacksError: the disk is full or not writable.
        UsageError: base or result can't be loaded.
    """
    import torch

    tell("comparing base and tuned", 0, 3)
    base = distributions(load_base(facts, dtype=torch.float32), rows) if rows else None
    tell("comparing base and tuned", 1, 3)
    tuned_model = load_tuned(facts, result, dtype=torch.float32)
    tuned = distributions(tuned_model, rows) if rows else None
    effect = None if base is None or tuned is None else divergence(tuned, base)
    checks = [] if effect is None else [_changed(effect)]
    if not is_adapter(result):
        return Merge(result, tuned_model, tuned, effect, checks)
    folder = target / MERGED
    _write(tuned_model, facts, result, tokenizer, folder)
    del tuned_model
    tell("comparing base and tuned", 2, 3)
    merged_model = load_model(folder, dtype=torch.float32)
    merged = distributions(merged_model, rows) if rows else None
    found = Merge(folder, merged_model, merged, effect, checks)
    if tuned is not None and merged is not None:
        checks.append(_same(divergence(tuned, merged), found.limit))
    tell("comparing base and tuned", 3, 3)
    return found


def _changed(effect: float) -> Check:
    limit = float(LIMITS["merged"]["effect"])
    return Check(
        name="training changed the model",
        target=MERGED,
        passed=effect > limit,
        value=effect,
        threshold=limit,
        what="mean KL divergence of tuned from base, nats per token; must be above",
        code="X009",
    )


def _same(value: float, limit: float) -> Check:
    return Check(
        name="merged is the adapter's model",
        target=MERGED,
        passed=value <= limit,
        value=value,
        threshold=limit,
        what="mean KL divergence of merged from base with adapter, nats per token; must not be above",
        code="X008",
    )


def _write(tuned: Any, facts: ModelFacts, result: Path, tokenizer: Any, folder: Path) -> None:
    """Merge, cast to the base's stored dtype and save with tokenizer and generation settings."""
    merged = tuned.merge_and_unload()
    _set_stop_tokens(merged, result, tokenizer)
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            merged.to(_dtype(facts.dtype)).save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            _same_permissions(partial)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _set_stop_tokens(model: Any, result: Path, tokenizer: Any) -> None:
    """Take the generation settings saved with the result, if any; the tokenizer's EOS always stops."""
    from transformers import GenerationConfig

    if (result / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(str(result))
    settings = model.generation_config
    stops = settings.eos_token_id
    stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    if tokenizer.eos_token_id is not None:
        stops = list(dict.fromkeys([tokenizer.eos_token_id, *stops]))
    settings.eos_token_id = stops[0] if len(stops) == 1 else stops or None


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name) if name in ("float32", "bfloat16", "float16") else torch.float32


def _same_permissions(folder: Path) -> None:
    """safetensors makes weight files private; a result is meant to be read like its config."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)

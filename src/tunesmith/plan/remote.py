"""The rules on a run that isn't trained here, so far as they show without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..recipe import Recipe
from ..records import Finding, ModelFacts, Severity
from ..rules import finding

# What is lost when nothing is pushed: a job's disk goes with the job, a cloud's machine stays until it is taken down.
_LOSES: dict[str, Severity] = {"hf-jobs": "error", "sky": "warning"}
# Secrets that trackers log in with. Source: the trackers' documentation, November 2026.
_TRACKER_SECRETS = {
    "wandb": "WANDB_API_KEY",
    "comet_ml": "COMET_API_KEY",
    "neptune": "NEPTUNE_API_TOKEN",
    "clearml": "CLEARML_API_SECRET_KEY",
    "swanlab": "SWANLAB_API_KEY",
}
_REMOTE_KEYS = ("flavor", "budget", "namespace", "secrets")
TOKEN = "HF_TOKEN"


def is_remote(recipe: Recipe) -> bool:
    """Whether the run is trained on another machine than this one."""
    return recipe.launch.on != "local"


def check_launch(recipe: Recipe, model: ModelFacts) -> Iterator[Finding]:
    """H011 to H013, H017 and H018; P027 for keys of `launch` that do nothing because the run is local."""
    training = recipe.training
    space = training.get("trackio_space_id")
    if space and not training.get("hub_private_repo"):
        yield finding("H017", "training.trackio_space_id", space=space)
    if not is_remote(recipe):
        yield from _without_effect(recipe)
        return
    place = recipe.launch.on
    if not recipe.hub.repo:
        yield finding("H011", "hub.repo", severity=_LOSES[place], place=place)
    if Path(model.location).is_dir() and not model.name.startswith("builtin:"):
        yield finding("H018", "model", model=model.name, place=place, size=f"{model.bytes / 1e9:.1f} GB")
    yield from _secrets(recipe, model)


def missing_secret(recipe: Recipe, name: str, reason: str) -> Iterator[Finding]:
    """H012 where a remote run needs a secret, for `reason`, that the recipe doesn't pass on."""
    if is_remote(recipe) and name not in recipe.launch.secrets:
        yield finding("H012", "launch.secrets", name=name, reason=reason)


def _without_effect(recipe: Recipe) -> Iterator[Finding]:
    given = [name for name in _REMOTE_KEYS if getattr(recipe.launch, name) not in (None, [])]
    for name in given:
        remedy = "Leave it out: this version plans jobs and clouds (`launch: {on: hf-jobs}`), and doesn't run them"
        reason = "it counts for jobs and clouds, and the run is trained on this machine"
        yield finding("P027", f"launch.{name}", keys=f"launch.{name}", reason=reason, remedy=remedy)


def _secrets(recipe: Recipe, model: ModelFacts) -> Iterator[Finding]:
    reasons = [f"pushing to {recipe.hub.repo} needs a token"] if recipe.hub.repo else []
    reasons += [f"the model {model.name} is gated"] if model.gated else []
    reasons += ["trackio_space_id writes to a Space"] if recipe.training.get("trackio_space_id") else []
    if reasons:
        reason = " and ".join(reasons)
        yield from missing_secret(recipe, TOKEN, reason[0].upper() + reason[1:])
    trackers = recipe.training.get("report_to") or []
    for tracker in [trackers] if isinstance(trackers, str) else trackers:
        if tracker in _TRACKER_SECRETS:
            yield from missing_secret(recipe, _TRACKER_SECRETS[tracker], f"report_to names {tracker}")
    for name in recipe.launch.secrets:
        if not _has_value(name):
            login = ", or log in with `hf auth login`" if name == TOKEN else ""
            yield finding("H013", "launch.secrets", name=name, login=login)


def _has_value(name: str) -> bool:
    if os.environ.get(name):
        return True
    if name != TOKEN:
        return False
    from huggingface_hub import get_token

    return get_token() is not None

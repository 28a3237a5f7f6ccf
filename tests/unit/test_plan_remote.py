"""The rules on runs that aren't trained here, so far as they need no network."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import small_facts
from tunesmith.plan.remote import check_launch
from tunesmith.recipe import build_recipe
from tunesmith.records import Finding, ModelFacts

JOB: dict[str, Any] = {"on": "hf-jobs", "secrets": ["HF_TOKEN"]}
HUB = {"repo": "me/model"}


@pytest.fixture(autouse=True)
def _logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "COMET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")


def checked(model: ModelFacts | None = None, **keys: Any) -> list[Finding]:
    recipe = build_recipe({"model": "builtin:small", "data": {"train": "a.jsonl"}, **keys})
    return list(check_launch(recipe, model or small_facts()))


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


def test_a_local_run_and_a_complete_job_have_nothing_against_them() -> None:
    assert checked() == []
    assert checked(launch=JOB | {"timeout": "4h", "flavor": "a100-large", "budget": "20 USD"}, hub=HUB) == []
    assert checked(launch={"processes": 2}) == []


def test_p027_keys_of_launch_that_do_nothing_here() -> None:
    found = checked(launch={"flavor": "a100-large", "timeout": "4h", "budget": 5, "secrets": "HF_TOKEN"})
    assert {(one.code, one.severity) for one in found} == {("P027", "warning")}
    assert [one.where for one in found] == ["launch.flavor", "launch.budget", "launch.secrets"]
    assert found[0].what.startswith("launch.flavor changes nothing: it counts for jobs and clouds")
    assert "doesn't run them" in found[0].fix


@pytest.mark.parametrize(("place", "severity"), [("hf-jobs", "error"), ("sky", "warning")])
def test_h011_nothing_is_pushed_from_a_machine_that_goes(place: str, severity: str) -> None:
    (one,) = checked(launch={"on": place, "secrets": ["HF_TOKEN"]})
    assert (one.code, one.severity, one.where) == ("H011", severity, "hub.repo")
    assert place in one.what
    assert checked(launch={"on": place, "secrets": ["HF_TOKEN"]}, hub=HUB) == []


def test_h012_a_token_that_is_not_passed_on() -> None:
    (one,) = checked(launch={"on": "hf-jobs"}, hub=HUB)
    assert (one.code, one.severity, one.where) == ("H012", "error", "launch.secrets")
    assert one.what == "Pushing to me/model needs a token, and launch.secrets doesn't name HF_TOKEN."
    assert "secrets: [HF_TOKEN]" in one.fix
    gated = small_facts().model_copy(update={"gated": True, "name": "org/gated", "location": "org/gated"})
    found = checked(gated, launch={"on": "sky"}, hub=HUB)
    assert [one.what for one in found] == [
        "Pushing to me/model needs a token and the model org/gated is gated, and launch.secrets doesn't name HF_TOKEN."
    ]
    assert checked(gated, launch={"on": "sky", "secrets": "HF_TOKEN"}, hub=HUB) == []
    assert checked(gated) == [], "here the saved login serves"


@pytest.mark.parametrize("trackers", ["wandb", ["tensorboard", "wandb"]])
def test_h012_a_tracker_s_key(trackers: object, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"report_to": trackers}
    (one,) = checked(launch=JOB, hub=HUB, training=training)
    assert (one.code, one.what) == ("H012", "report_to names wandb, and launch.secrets doesn't name WANDB_API_KEY.")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert checked(launch={"on": "hf-jobs", "secrets": ["HF_TOKEN", "WANDB_API_KEY"]}, hub=HUB, training=training) == []
    assert checked(training=training) == []


def test_h013_a_secret_without_a_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    (one,) = checked(launch={"on": "hf-jobs", "secrets": ["HF_TOKEN", "WANDB_API_KEY"]}, hub=HUB)
    assert (one.code, one.severity) == ("H013", "error")
    assert one.fix == "Set WANDB_API_KEY in the environment."
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (one,) = checked(launch=JOB, hub=HUB)
    assert one.what == "launch.secrets names HF_TOKEN, which has no value here."
    assert one.fix.endswith("or log in with `hf auth login`.")
    (tmp_path / "token").write_text("hf_saved")
    assert checked(launch=JOB, hub=HUB) == []


def test_h017_a_space_that_would_be_public() -> None:
    (one,) = checked(training={"trackio_space_id": "me/board"})
    assert (one.code, one.severity) == ("H017", "warning")
    assert "me/board" in one.what
    assert checked(training={"trackio_space_id": "me/board", "hub_private_repo": True}) == []
    assert codes(checked(training={"trackio_space_id": "me/board"}, launch={"on": "sky"}, hub=HUB)) == ["H017", "H012"]


def test_h018_a_model_that_lies_here(tmp_path: Path) -> None:
    mine = small_facts(tmp_path).model_copy(update={"name": "./mine", "bytes": 16_100_000_000})
    (one,) = checked(mine, launch=JOB, hub=HUB)
    assert (one.code, one.severity) == ("H018", "warning")
    assert "16.1 GB of weights have to be uploaded" in one.what
    assert checked(mine) == []

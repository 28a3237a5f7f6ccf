"""The recipe's keys of where a run is trained, what it may take, and where its result goes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import TunesmithError, UsageError
from tunesmith.recipe import Recipe, build_recipe, load_recipe
from tunesmith.recipe.launch import Hub, Launch
from tunesmith.recipe.secrets import HIDDEN, is_token, without_tokens
from tunesmith.rules import FindingsError

START = {"model": "builtin:small", "data": {"train": "a.jsonl"}}
TOKEN = "hf_" + "aBcDe" * 7


def recipe(**keys: Any) -> Recipe:
    return build_recipe({**START, **keys})


def refused(**keys: Any) -> TunesmithError:
    with pytest.raises(UsageError) as caught:
        recipe(**keys)
    return caught.value


def test_what_is_left_out() -> None:
    made = recipe()
    assert made.launch.model_dump() == {
        "on": "local", "flavor": None, "timeout": None, "budget": None, "processes": 1, "nodes": 1, "sharding": "auto",
        "namespace": None, "secrets": [],
    }  # fmt: skip
    assert (made.hub.repo, made.hub.private) == (None, True)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("90m", 5400),
        ("1.5h", 5400),
        ("2 d", 172_800),
        ("30", 30),
        (45, 45),
        (" 4h ", 14_400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d 1.5h 3m 4s", 178_384),
    ],
)
def test_times(written: object, seconds: int) -> None:
    assert recipe(launch={"timeout": written}).launch.timeout == seconds


@pytest.mark.parametrize(
    "written", ["30m1h", "1h30", "1h1h", "4 hours", "", " ", "h", "-5m", "1:30", "0s", "0.1s", 0, -1, 4.5, True, "٣h"]
)
def test_what_is_no_time(written: object) -> None:
    assert "launch.timeout can't be" in refused(launch={"timeout": written}).what


@pytest.mark.parametrize(
    ("keys", "fix"),
    [
        ({"launch": {"timeout": "1:30"}}, "Write, for example, `launch: {timeout: 90m}`."),
        ({"launch": {"budget": "20 EUR"}}, "Write, for example, `launch: {budget: 20 USD}`."),
        ({"launch": {"on": "moon"}}, "Write, for example, `launch: {on: hf-jobs}`."),
        ({"launch": {"secrets": ["a b"]}}, "Write, for example, `launch: {secrets: HF_TOKEN}`."),
        ({"hub": {"repo": "mine"}}, "Write, for example, `hub: {repo: me/my-model}`."),
        ({"hub": {"private": "maybe"}}, "`tunesmith schema` shows what each key takes."),
    ],
)
def test_a_bad_value_s_fix_shows_a_good_one(keys: dict[str, Any], fix: str) -> None:
    assert refused(**keys).fix == fix


def test_the_examples_are_themselves_taken() -> None:
    for name, section in (("launch", Launch), ("hub", Hub)):
        for key, field in section.model_fields.items():
            for example in field.examples or []:
                assert recipe(**{name: {key: example}})


def test_a_time_with_a_colon_is_no_number_of_seconds(tmp_path: Path) -> None:
    """YAML 1.1 reads 1:30 as 90."""
    file = tmp_path / "r.yaml"
    file.write_text("model: m\ndata: {train: a}\nlaunch: {timeout: 1:30}\n")
    with pytest.raises(UsageError, match=r"launch.timeout can't be '1:30'"):
        load_recipe(file)
    file.write_text("model: m\ndata: {train: a}\ntraining: {learning_rate: 1.5e-4, max_steps: 30, weight_decay: .1}\n")
    assert load_recipe(file).training == {"learning_rate": 1.5e-4, "max_steps": 30, "weight_decay": 0.1}


@pytest.mark.parametrize("written", ["20 USD", "20usd", "$20", "US$ 20.00", "20 $", "20", 20, 20.0])
def test_budgets(written: object) -> None:
    assert recipe(launch={"budget": written}).launch.budget == 20


@pytest.mark.parametrize("written", ["20 EUR", "€20", "20 Euro", "£5", "USD", ""])
def test_a_budget_in_another_currency(written: str) -> None:
    error = refused(launch={"budget": written})
    assert error.what == f"recipe: launch.budget can't be {written!r}."
    assert "no exchange rate is known here: write, for example, 20 USD" in error.why


@pytest.mark.parametrize("written", [-1, float("inf"), float("nan"), True, ["20 USD"]])
def test_what_is_no_budget(written: object) -> None:
    assert "launch.budget can't be" in refused(launch={"budget": written}).what


@given(
    st.fixed_dictionaries(
        {
            "timeout": st.integers(1, 10**9) | st.builds("{}{}".format, st.integers(1, 999), st.sampled_from("smhd")),
            "budget": st.floats(0, 1e9) | st.builds("{} USD".format, st.integers(0, 10**6)),
            "processes": st.integers(1, 64),
            "nodes": st.integers(1, 64),
            "sharding": st.sampled_from(["auto", "ddp", "fsdp", "zero2", "zero3"]),
            "secrets": st.lists(st.sampled_from(["HF_TOKEN", "WANDB_API_KEY", "_x1"])),
        }
    )
)
def test_what_is_saved_in_a_run_folder_reads_back(launch: dict[str, Any]) -> None:
    made = recipe(launch=launch, hub={"repo": "me/model", "private": False})
    assert build_recipe(yaml.safe_load(yaml.safe_dump(made.model_dump()))) == made
    assert build_recipe(json.loads(made.model_dump_json())) == made


@given(st.text())
def test_no_text_breaks_the_reading_of_times_and_budgets(text: str) -> None:
    for key in ("timeout", "budget"):
        try:
            value = getattr(recipe(launch={key: text}).launch, key)
        except UsageError:
            continue
        assert value >= 0


@pytest.mark.parametrize("written", ["1" * 400 + "d", "1" * 400 + " USD"])
def test_numbers_beyond_all_measure_are_refused(written: str) -> None:
    for key in ("timeout", "budget"):
        assert f"launch.{key} can't be" in refused(launch={key: written}).what


def test_secrets_are_named() -> None:
    assert recipe(launch={"secrets": "HF_TOKEN"}).launch.secrets == ["HF_TOKEN"]
    assert recipe(launch={"secrets": ["HF_TOKEN", "WANDB_API_KEY"]}).launch.secrets == ["HF_TOKEN", "WANDB_API_KEY"]


@pytest.mark.parametrize(
    "written", [["HF_TOKEN=geheim"], {"HF_TOKEN": "geheim"}, "geheim 1", ["geheim!"], [["geheim"]]]
)
def test_what_stands_for_a_secret_s_name_is_never_shown(written: object) -> None:
    error = refused(launch={"secrets": written})
    assert error.what == f"recipe: launch.secrets can't be {HIDDEN}."
    assert "geheim" not in f"{error.what} {error.why} {error.fix}"


@pytest.mark.parametrize("repo", ["name", "a/b/c", "/b", "a/", "a b/c", ".a/b", "a/" + "b" * 97, 3])
def test_what_is_no_repository(repo: object) -> None:
    assert "hub.repo can't be" in refused(hub={"repo": repo}).what


@pytest.mark.parametrize("key", ["flavor", "namespace"])
def test_names_of_machines_and_namespaces_are_not_empty(key: str) -> None:
    assert f"launch.{key} can't be ''" in refused(launch={key: ""}).what
    assert getattr(recipe(launch={key: "x"}).launch, key) == "x"


def test_a_repository_is_private_unless_the_recipe_says_otherwise() -> None:
    assert recipe(hub={"repo": "me/my-model_1.0"}).hub.private is True
    assert recipe(hub={"repo": "me/m", "private": False}).hub.private is False
    assert "processes can't be True" in refused(launch={"processes": True}).what


@pytest.mark.parametrize("processes", [0, -1, 1.5, "two"])
def test_what_is_no_number_of_processes(processes: object) -> None:
    assert "launch.processes can't be" in refused(launch={"processes": processes}).what


@pytest.mark.parametrize(
    ("keys", "fix"),
    [
        ({"launch": {"flavour": "a10g-large"}}, "Did you mean flavor?"),
        ({"launch": {"time_out": "4h"}}, "Did you mean timeout?"),
        ({"launch": {"gpu": "a100"}}, "tunesmith calls it launch: {flavor: ...}."),
        ({"launch": {"num_processes": 2}}, "tunesmith calls it launch: {processes: ...}."),
        ({"hub": {"repos": "a/b"}}, "Did you mean repo?"),
        ({"hub": {"model_id": "a/b"}}, "tunesmith calls it hub: {repo: OWNER/NAME}, which isn't built yet."),
        ({"flavor": "a100-large"}, "tunesmith calls it launch: {flavor: ...}."),
    ],
)
def test_near_names(keys: dict[str, Any], fix: str) -> None:
    assert refused(**keys).fix == fix


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"launch": {"secrets": {"HF_TOKEN": TOKEN}}}, "launch.secrets.HF_TOKEN"),
        ({"launch": {"secrets": [f"HF_TOKEN={TOKEN}"]}}, "launch.secrets"),
        ({"training": {"hub_token": TOKEN}}, "training.hub_token"),
        ({"training": {"report_to": ["x", f"https://h/?write_token={TOKEN}"]}}, "training.report_to"),
        ({"model": TOKEN}, "model"),
        ({TOKEN: 1}, HIDDEN),
        ({"launch": {TOKEN: {"x": 1}}}, f"launch.{HIDDEN}"),
    ],
)
def test_h001_a_token_in_the_recipe_is_refused_and_never_shown(keys: dict[str, Any], place: str) -> None:
    with pytest.raises(FindingsError) as caught:
        recipe(**keys)
    (one,) = caught.value.findings
    assert (one.code, one.severity, one.where) == ("H001", "error", "recipe")
    assert one.what == f"{place} holds what looks like a token or a key."
    assert TOKEN not in f"{caught.value.what} {caught.value.why} {caught.value.fix} {caught.value.findings}"


def test_h001_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"model: m\ndata: {{train: a}}\ntraining:\n  hub_token: {TOKEN}\n")
    with pytest.raises(FindingsError, match="line 4") as caught:
        load_recipe(file)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "meta-llama/Llama-3.1-8B-Instruct", "rows/sk-translation-pairs-for-finetuning-of-small-models.jsonl",
        "0123456789abcdef0123456789abcdef01234567", "hf_datasets_cache", "HF_TOKEN", "s3://bucket/AKIRA",
        "hf-internal-testing/tiny-random-LlamaForCausalLM",
    ],
)  # fmt: skip
def test_names_paths_and_commits_are_no_tokens(text: str) -> None:
    assert not is_token(text)
    assert recipe(revision=text).revision == text


@pytest.mark.parametrize(
    "token", [TOKEN, "ghp_" + "a1" * 18, "sk-proj-" + "Ab1" * 14, "AKIA" + "Q2" * 8, "xoxb-" + "1234567890-" * 2 + "a"]
)
def test_tokens_of_several_vendors(token: str) -> None:
    assert is_token(f"x={token}")
    assert token not in without_tokens(f"a {token} b")

"""The unmodified Hub clients against an emulated Hub: rows of a dataset that lies there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import COMMIT, Repo, serve

CODE = """
import json, sys
from tunesmith.data.sources import read
from tunesmith.errors import TunesmithError
from tunesmith.recipe.schema import Source
try:
    raw = read(Source.model_validate(json.loads(sys.argv[1])))
    print(json.dumps({"rows": raw.rows, "places": raw.places, "files": [f.name for f in raw.files], "name": raw.name}))
except TunesmithError as error:
    print(json.dumps({"error": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}))
"""


def put(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, texts in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    top = tmp_path_factory.mktemp("hub")
    plain = put(top / "plain", {"train.jsonl": ["a", "b", "c"], "test.jsonl": ["t"]})
    older = put(top / "older", {"train.jsonl": ["old"]})
    configs = put(top / "configs", {"en/train.jsonl": ["e"], "de/part-0.jsonl": ["d0"], "de/part-1.jsonl": ["d1"]})
    (configs / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: en/*.jsonl\n"
        "- config_name: de\n  data_files: de/*.jsonl\n---\n",
        encoding="utf-8",
    )
    datasets = {
        "someone/rows": Repo(plain, {"v1": older}),
        "someone/configs": Repo(configs),
        "someone/private": Repo(plain, token="hf_secret"),
        "someone/gated": Repo(plain, error="GatedRepo"),
    }
    with serve({}, datasets) as address:
        yield address


def rows(endpoint: str, token: str | None = None, **source: Any) -> dict[str, Any]:
    """What `read` says in a process of its own, with a fresh cache."""
    home = str(Path("hf").resolve())
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "5"}
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": home} | online
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(source)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def texts(answer: dict[str, Any]) -> list[str]:
    return [row["text"] for row in answer["rows"]]


def test_the_train_split_at_the_commit(endpoint: str) -> None:
    answer = rows(endpoint, path="someone/rows")
    assert texts(answer) == ["a", "b", "c"]
    assert answer["files"] == [f"hf://datasets/someone/rows@{COMMIT}/train.jsonl"]
    assert (answer["name"], answer["places"]) == ("train.jsonl", [1, 2, 3])


def test_split_and_revision(endpoint: str) -> None:
    assert texts(rows(endpoint, path="someone/rows", split="test")) == ["t"]
    assert texts(rows(endpoint, path="someone/rows", revision="v1")) == ["old"]


def test_a_configuration_of_several_files(endpoint: str) -> None:
    answer = rows(endpoint, path="someone/configs", config="de")
    assert texts(answer) == ["d0", "d1"]
    assert answer["places"] == ["de/part-0.jsonl:1", "de/part-1.jsonl:1"]


def test_the_first_rows_are_streamed(endpoint: str) -> None:
    answer = rows(endpoint, path="someone/rows", rows=2)
    assert texts(answer) == ["a", "b"]
    assert answer["files"] == [f"hf://datasets/someone/rows@{COMMIT}"]
    assert not list(Path("hf").rglob("*.jsonl"))


def test_a_private_dataset_needs_the_token(endpoint: str) -> None:
    assert texts(rows(endpoint, token="hf_secret", path="someone/private")) == ["a", "b", "c"]
    answer = rows(endpoint, path="someone/private")
    assert (answer["error"], answer["what"]) == ("UsageError", "There is no dataset someone/private.")
    assert "hf auth login" in answer["fix"]


@pytest.mark.parametrize(
    ("source", "what", "said"),
    [
        ({"path": "someone/gated"}, "someone/gated is gated.", "hf auth login"),
        ({"path": "someone/nothing"}, "There is no dataset someone/nothing.", "Check the spelling"),
        ({"path": "someone/rows", "revision": "v9"}, "someone/rows has no revision v9.", "Leave `revision` out"),
        ({"path": "someone/rows", "split": "dev"}, "someone/rows has no split dev.", "split: t"),
        ({"path": "someone/configs"}, "someone/configs has several configurations.", "config: en"),
        ({"path": "someone/configs", "config": "fr"}, "someone/configs has no configuration fr.", "config: en"),
    ],
)
def test_what_isnt_there_or_open(endpoint: str, source: dict[str, Any], what: str, said: str) -> None:
    answer = rows(endpoint, **source)
    assert (answer.get("error"), answer.get("what")) == ("UsageError", what)
    assert said in answer["fix"]


def test_a_hub_that_cannot_be_reached() -> None:
    answer = rows("http://127.0.0.1:9", path="someone/rows")
    assert (answer["error"], answer["what"]) == ("EnvironmentLacksError", "someone/rows can't be fetched.")

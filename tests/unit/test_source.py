"""Finding models: built in, in folders, and on a Hub that is really asked."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import errors

from tests.support.hub import COMMIT, serve
from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.families import known_models
from tunesmith.models.source import locate, read_json, why_unreachable

ASK = """
import sys
from tunesmith.errors import TunesmithError
from tunesmith.models.facts import model_facts
from tunesmith.models.source import locate
try:
    planning = sys.argv[3] == "plan"
    source = locate(sys.argv[1], sys.argv[2] or None, planning=planning)
    facts = model_facts(source, planning=planning).model_dump_json(exclude={"name", "location", "revision"})
    print(source.location, source.revision, facts)
except TunesmithError as error:
    print(type(error).__name__, error.what, error.why, "|", error.fix)
print("torch" in sys.modules)
"""


def test_the_built_in_model() -> None:
    source = locate("builtin:small")
    assert (source.name, source.revision, Path(source.location)) == ("builtin:small", None, source.folder)
    assert (source.folder / "config.json").samefile(SMALL / "config.json")


def test_a_built_in_model_that_is_none() -> None:
    with pytest.raises(UsageError, match="no built-in model builtin:smal") as refusal:
        locate("builtin:smal")
    assert refusal.value.fix == "Did you mean builtin:small?"
    with pytest.raises(UsageError) as refusal:
        locate("builtin:zzz")
    assert "builtin:small" in refusal.value.why


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text("{}")
    for name in ("org/model", "./org/model", str(tmp_path / "org" / "model")):
        source = locate(name)
        assert (source.name, source.location, source.revision) == (name, str(tmp_path / "org" / "model"), None)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/org/model").folder == tmp_path / "org" / "model"


@pytest.mark.parametrize("name", ["./none", "/none", "~/none", "a/b/c", "file"])
def test_a_folder_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="There is no model in"):
        locate(name)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        locate(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="doesn't say of which model") as refusal:
        locate(str(tmp_path))
    assert "tunesmith export" in refusal.value.fix
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)).folder == tmp_path


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"3", b"", b"[" * 100_000])
def test_small_files_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        read_json(path)


def ask(endpoint: str, name: str, home: Path, *, revision: str = "", planning: bool = False) -> list[str]:
    """What a process of its own says of a model on the Hub at `endpoint`: that is read when the client is imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    environment |= {"XDG_CACHE_HOME": str(home / "cache")}
    command = [sys.executable, "-c", ASK, name, revision, "plan" if planning else "train"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=True)
    *said, torch = ran.stdout.splitlines()
    assert torch == "False"
    return said


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bare = tmp_path_factory.mktemp("bare")
    (bare / "model.gguf").write_text("")
    pickled = tmp_path_factory.mktemp("pickled")
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_text("")
    models: dict[str, Path | str] = {"org/small": SMALL, "org/bare": bare, "org/pickled": pickled}
    models |= {
        "meta-llama/Llama-3.1-8B": "GatedRepo",
        "org/gated": "GatedRepo",
        "org/private": "RepoNotFound",
        "org/broken": "ServerError",
    }
    with serve(models) as endpoint:
        yield endpoint


def test_a_model_on_the_hub_has_the_facts_of_its_folder(hub: str, tmp_path: Path) -> None:
    from tunesmith.models.facts import model_facts

    facts = model_facts(locate("builtin:small")).model_dump_json(exclude={"name", "location", "revision"})
    assert ask(hub, "org/small", tmp_path) == [f"org/small {COMMIT} {facts}"]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert ask(hub, "org/small", tmp_path, revision=COMMIT) == [f"org/small {COMMIT} {facts}"]


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        ("org/none", "", "UsageError There is no model org/none."),
        ("org/private", "", "UsageError There is no model org/private."),
        ("not a name", "", "UsageError There is no model not a name."),
        ("org/gated", "", "GatedModelError org/gated is gated."),
        ("org/small", "v9", "UsageError org/small has no revision v9."),
        ("org/bare", "", "UsageError org/bare has no config.json."),
        ("org/pickled", "", "UsageError org/pickled has no safetensors weights on the Hub."),
    ],
)
def test_what_the_hub_refuses(hub: str, tmp_path: Path, name: str, revision: str, said: str) -> None:
    (line,) = ask(hub, name, tmp_path, revision=revision)
    assert line.startswith(said)


def test_a_hub_that_fails(hub: str, tmp_path: Path) -> None:
    (line,) = ask(hub, "org/broken", tmp_path)
    assert line.startswith("EnvironmentLacksError org/broken can't be fetched.")


def test_why_the_hub_is_out_of_reach_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ConnectionError("[Errno 111] Connection refused.\nmore")
    cached = errors.LocalEntryNotFoundError("Please check your internet connection and try again.")
    cached.__cause__ = away
    server = OSError("Server error '500' for url 'https://huggingface.co/api' (Request ID: 1)")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert why_unreachable(away) == why_unreachable(cached) == "[Errno 111] Connection refused"
    assert why_unreachable(server) == "Server error '500'"
    assert why_unreachable(TimeoutError()) == "TimeoutError"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert why_unreachable(away) == "offline mode is on: HF_HUB_OFFLINE"


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    (line,) = ask(endpoint, "org/small", tmp_path)
    assert line.startswith("EnvironmentLacksError org/small can't be fetched.")
    assert "builtin:small" in line


def parts_and_origin(line: str) -> tuple[int, bool, str]:
    facts = json.loads(line.split(" ", 2)[2])
    return facts["parameters"], facts["from_headers"], facts["origin"]


def test_a_plan_without_the_hub_takes_the_table(hub: str, tmp_path: Path) -> None:
    (line,) = ask("http://127.0.0.1:9", "Qwen/Qwen3-0.6B", tmp_path, planning=True)
    assert parts_and_origin(line) == (596049920, False, "table")
    (line,) = ask(hub, "meta-llama/Llama-3.1-8B", tmp_path, planning=True)
    assert parts_and_origin(line) == (8030261248, False, "table")
    (line,) = ask(hub, "meta-llama/Llama-3.1-8B", tmp_path)
    assert line.startswith("GatedModelError meta-llama/Llama-3.1-8B is gated.")
    (line,) = ask(hub, "org/gated", tmp_path, planning=True)
    assert line.startswith("GatedModelError org/gated is gated.")


def test_offline_a_plan_from_the_table_does_not_import_the_hub_s_client(tmp_path: Path) -> None:
    code = (
        "import sys; from tunesmith.models.source import locate; print(locate('Qwen/Qwen3-0.6B', planning=True).as_of);"
        "print('huggingface_hub.hf_api' in sys.modules)"
    )
    places = {"HF_HOME": str(tmp_path / "hub"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | places
    )
    as_of, imported = run.stdout.split()
    assert (as_of, imported) == (known_models()["qwen/qwen3-0.6b"].as_of, "False")


def test_a_plan_of_a_cached_model_without_the_hub(tmp_path: Path) -> None:
    """config.json is in the cache: enough for a plan. With the weights there too their headers are read."""
    with serve({"org/small": SMALL}) as endpoint:
        ask(endpoint, "org/small", tmp_path)
    (line,) = ask(endpoint, "org/small", tmp_path, planning=True)
    assert parts_and_origin(line) == (446_208, False, "files")
    snapshot = next(tmp_path.rglob("config.json")).parent
    shutil.copy(SMALL / "model.safetensors", snapshot)
    (line,) = ask(endpoint, "org/small", tmp_path)
    assert parts_and_origin(line) == (446_208, True, "files")


def test_a_hub_that_goes_away_in_between(tmp_path: Path) -> None:
    """The small files are in the cache, the weights' headers can't be asked for."""
    with serve({"org/small": SMALL}) as endpoint:
        ask(endpoint, "org/small", tmp_path)
    (line,) = ask(endpoint, "org/small", tmp_path)
    assert line.startswith("EnvironmentLacksError org/small can't be fetched.")

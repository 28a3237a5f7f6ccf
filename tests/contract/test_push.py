"""The unmodified Hub client against an emulated Hub: a prepared dataset is pushed, private, and read back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hub_upload import Hub, Repository, serve

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(300)]


def command(
    hub: Hub, *words: str, token: str | None = None, endpoint: str = "", rows: list[dict[str, str]] = ROWS
) -> tuple[int, str, str]:
    """The real command on `rows`, with the emulated Hub: exit code, stdout, stderr."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = os.environ | {
        "HF_HOME": str(Path("hf").resolve()),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token or hub.token,
    }
    for name in ("HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)
    words = ("prepare", "rows.jsonl", "--output", "dataset", *words)
    with serve(hub) as address:
        ended = subprocess.run(
            [sys.executable, "-m", "tunesmith", *words],
            env={**environment, "HF_ENDPOINT": endpoint or address},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_dataset_is_pushed_private_and_whole() -> None:
    hub = Hub()
    code, out, err = command(hub, "--push", "someone/rows", "--yes")
    assert code == 0, err
    held = hub.datasets["someone/rows"]
    assert held.private
    names = {"README.md", "manifest.json", "train.parquet", "eval.parquet", "test.parquet"}
    assert held.files == {name: (Path("dataset") / name).read_bytes() for name in names}
    assert held.commits[-1] in "".join(out.split())


def test_the_rejected_rows_stay_here() -> None:
    hub = Hub()
    assert command(hub, "--push", "someone/rows", "--yes", rows=[*ROWS, ROWS[0]])[0] == 0
    assert "rejected.jsonl" not in hub.datasets["someone/rows"].files
    assert len(Path("dataset/rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_pushing_again_makes_a_new_commit() -> None:
    hub = Hub()
    assert command(hub, "--push", "someone/rows", "--yes")[0] == 0
    assert command(hub, "--push", "someone/rows", "--yes")[0] == 0
    assert len(hub.datasets["someone/rows"].files) == 5


def test_without_a_terminal_and_without_yes_nothing_is_done() -> None:
    hub = Hub()
    assert "Add --yes" in refused(command(hub, "--push", "someone/rows"), code=2)
    assert not hub.datasets
    assert not Path("dataset").exists()


def test_a_public_dataset_is_left_alone() -> None:
    hub = Hub({"someone/rows": Repository(private=False, commits=["1" * 40])})
    assert "is public" in refused(command(hub, "--push", "someone/rows", "--yes"), code=2)
    assert hub.datasets["someone/rows"].files == {}


def test_a_token_that_may_not_write() -> None:
    hub = Hub()
    assert "hf auth login" in refused(command(hub, "--push", "someone/rows", "--yes", token="hf_other"), code=2)


def test_a_name_that_is_none() -> None:
    assert "no name of a dataset" in refused(command(Hub(), "--push", "not a name", "--yes"), code=2)


def test_a_hub_that_cannot_be_reached() -> None:
    ended = command(Hub(), "--push", "someone/rows", "--yes", endpoint="http://127.0.0.1:9")
    assert "the dataset is made and kept" in refused(ended, code=3)
    assert Path("dataset/manifest.json").exists()


def test_what_the_hub_lost_is_told() -> None:
    hub = Hub(loses={"eval.parquet"})
    assert "eval.parquet isn't what was sent" in refused(command(hub, "--push", "someone/rows", "--yes"), code=1)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_d044_secrets_are_never_published(form: str) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6" * 3
    rows = [*ROWS, {"prompt": "Which token?", "completion": f"Take {secret}."}]
    hub = Hub()
    said = refused(command(hub, "--push", "someone/rows", "--yes", "--format", form, rows=rows), code=1)
    assert "D044" in said
    assert secret not in said
    assert not hub.datasets


def refused(ended: tuple[int, str, str], *, code: int) -> str:
    """What the command says when it refuses: three lines at its end."""
    returned, out, err = ended
    assert returned == code, err
    assert out == ""
    assert re.search(r"(^|\n)error: .+\n  why: .+\n  fix: .+\n$", err), err
    return err

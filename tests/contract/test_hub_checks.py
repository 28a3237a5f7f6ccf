"""What only the Hub can tell before a run, asked of an emulated Hub by the unmodified client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, close_session, constants

import tunesmith.demo
from tests.support.hub import HARDWARE, Repo, account, serve
from tunesmith.plan import hub_checks
from tunesmith.plan.hub_checks import Account, check_hub
from tunesmith.recipe import build_recipe
from tunesmith.records import Finding

SMALL = Path(tunesmith.demo.__file__).parent / "small"
WRITE, READ, FINE, STRANGER = "hf_write", "hf_read", "hf_fine", "hf_stranger"
ORGS = {"team": "write", "school": "read", "club": "contributor"}
ACCOUNTS = {
    WRITE: account("me", orgs=ORGS),
    READ: account("me", "read"),
    FINE: account("me", "fineGrained", orgs={"team": "admin"}, team=["repo.write"], me=["repo.content.read"]),
    STRANGER: account("other"),
}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Hub with models and datasets of every kind of access; nobody is logged in."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitattributes").touch()
    ours = frozenset({WRITE, FINE})
    models = {
        "org/open": Repo(SMALL),
        "org/gated": Repo(SMALL, gated=True, readers=ours),
        "me/secret": Repo(SMALL, private=True, readers=frozenset({READ}), writers=ours),
        "me/full": Repo(SMALL, private=True, writers=ours),
        "me/new": Repo(tmp_path / "empty", private=True, writers=ours),
        "me/public": Repo(tmp_path / "empty", writers=ours),
        "team/shared": Repo(tmp_path / "empty", private=True, readers=frozenset({WRITE})),
    }
    datasets = {"org/rows": Repo(tmp_path / "rows"), "org/terms": Repo(tmp_path / "rows", gated=True, readers=ours)}
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    close_session()
    with serve(models, datasets, accounts=ACCOUNTS) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield address
    close_session()


def ask(monkeypatch: pytest.MonkeyPatch, token: str | None, **keys: Any) -> list[Finding]:
    """What the Hub has to say about a recipe, to who has this token."""
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    keys = {"model": "builtin:small", "data": {"train": "rows.jsonl"}, **keys}
    return check_hub(build_recipe(keys))


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


def test_a_run_that_has_nothing_to_do_with_the_hub_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_checks, "_ask", lambda questions: pytest.fail("asked"))
    assert ask(monkeypatch, None) == []
    assert ask(monkeypatch, None, model=str(SMALL), data={"train": "./a/b.jsonl", "eval": 0.1}) == []


def test_h002_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = ask(monkeypatch, None, hub={"repo": "me/new"})
    assert (one.code, one.severity) == ("H002", "error")
    assert one.what.startswith("Pushing to me/new needs a token")
    (one,) = ask(monkeypatch, None, launch={"on": "hf-jobs"})
    assert one.what.startswith("A job needs a token")
    assert ask(monkeypatch, None, model="org/open", data={"train": "org/rows"}) == [], "reading needs none"


def test_h003_a_token_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes(ask(monkeypatch, "hf_old", hub={"repo": "me/new"})) == ["H003"]
    everything: dict[str, Any] = {"model": "org/open", "data": {"train": "org/rows"}, "hub": {"repo": "me/new"}}
    assert codes(ask(monkeypatch, "hf_old", **everything)) == ["H003"], "said once, though each request is refused"


def test_h004_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = ask(monkeypatch, WRITE, hub={"repo": "me/new"})
    assert (one.code, one.severity) == ("H004", "note")
    assert one.what == "On the Hub this is me, with a token of role write; organisations: team, school, club."
    (one,) = ask(monkeypatch, WRITE, launch={"on": "hf-jobs", "namespace": "team"})
    assert one.code == "H004"


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"hub": {"repo": "them/new"}}, "hub.repo"),
        ({"hub": {"repo": "me/new"}, "launch": {"on": "hf-jobs", "namespace": "them"}}, "launch.namespace"),
    ],
)
def test_h005_a_namespace_of_somebody_else(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], where: str) -> None:
    (one,) = [one for one in ask(monkeypatch, WRITE, **keys) if one.code == "H005"]
    assert (one.where, one.severity) == (where, "error")
    assert one.what == "them is neither me nor one of me's organisations."
    assert "team, school, club" in one.fix


@pytest.mark.parametrize(
    ("token", "repo", "reason"),
    [
        (READ, "me/new", "it may only read"),
        (READ, "me/not-yet-there", "it may only read"),
        (WRITE, "school/new", "its role in school is read"),
        (FINE, "me/not-yet-there", "it is fine-grained, without the permission to write for me"),
        (WRITE, "team/shared", "the Hub refuses it"),
    ],
)
def test_h006_a_token_that_may_not_write(monkeypatch: pytest.MonkeyPatch, token: str, repo: str, reason: str) -> None:
    (one,) = [one for one in ask(monkeypatch, token, hub={"repo": repo}) if one.code != "H004"]
    assert (one.code, one.severity) == ("H006", "error")
    assert one.what == f"The token of me may not write to {repo}: {reason}."


@pytest.mark.parametrize(
    ("token", "repo"), [(WRITE, "me/not-yet-there"), (WRITE, "club/x"), (WRITE, "team/x"), (FINE, "team/x")]
)
def test_h006_is_silent_where_the_token_may_write(monkeypatch: pytest.MonkeyPatch, token: str, repo: str) -> None:
    assert codes(ask(monkeypatch, token, hub={"repo": repo})) == ["H004"]


def test_h006_jobs_need_more_than_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, READ, launch={"on": "hf-jobs"})
    assert codes(found) == ["H004", "H006"]
    assert "may not write to Jobs" in found[1].what


def test_h007_a_repository_with_files(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, WRITE, hub={"repo": "me/full"})
    assert codes(found) == ["H004", "H007"]
    assert found[1].what.startswith("me/full is there already, with ")
    assert "H007" not in codes(ask(monkeypatch, WRITE, hub={"repo": "me/new"}))


def test_h008_a_repository_that_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes(ask(monkeypatch, WRITE, hub={"repo": "me/public"})) == ["H004", "H008"]
    assert codes(ask(monkeypatch, WRITE, hub={"repo": "me/public", "private": False})) == ["H004"]


@pytest.mark.parametrize(
    ("keys", "where", "link"),
    [
        ({"model": "org/gated"}, "model", "https://huggingface.co/org/gated"),
        ({"data": {"train": "org/terms"}}, "data", "https://huggingface.co/datasets/org/terms"),
        ({"data": {"train": "x.jsonl", "test": "hf://datasets/org/terms"}}, "data", "datasets/org/terms"),
    ],
)
def test_h009_terms_that_are_not_accepted(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], where: str, link: str
) -> None:
    for token in (None, STRANGER):
        (one,) = ask(monkeypatch, token, **keys)
        assert (one.code, one.where, one.severity) == ("H009", where, "error")
        assert link in one.fix
    assert ask(monkeypatch, WRITE, **keys) == []


def test_h010_what_is_not_there_or_not_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, STRANGER, model="me/secret", data={"train": ["org/rows", "org/none"]})
    assert codes(found) == ["H010", "H010"]
    assert found[0].what == "The Hub has no model me/secret that this account may see."
    assert found[1].what == "The Hub has no dataset org/none that this account may see."
    (one,) = ask(monkeypatch, None, model="org/open", revision="v9")
    assert (one.code, one.where) == ("H010", "revision")
    assert "revision v9 of the model org/open" in one.what
    assert ask(monkeypatch, READ, model="me/secret") == []


def test_h012_a_job_needs_the_token_for_what_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {"model": "org/gated", "data": {"train": "org/rows"}}
    found = ask(monkeypatch, WRITE, **keys, launch={"on": "hf-jobs"})
    assert codes(found) == ["H004", "H012"]
    assert found[1].what == "The model org/gated is gated, and launch.secrets doesn't name HF_TOKEN."
    assert "H012" not in codes(ask(monkeypatch, WRITE, **keys, launch={"on": "hf-jobs", "secrets": ["HF_TOKEN"]}))
    assert ask(monkeypatch, WRITE, **keys) == []
    private = ask(monkeypatch, WRITE, model="me/secret", launch={"on": "sky"})
    assert [one.what for one in private] == [
        "The model me/secret is private, and launch.secrets doesn't name HF_TOKEN."
    ]


def test_h015_without_a_network_a_local_run_gets_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        (one,) = ask(monkeypatch, WRITE, model="org/open", data={"train": "org/rows"})
        assert (one.code, one.severity) == ("H015", "note")
        assert one.what.endswith("so this wasn't checked: the model org/open, the dataset org/rows.")
        (one,) = ask(monkeypatch, WRITE, hub={"repo": "me/new"}, launch={"on": "hf-jobs"})
        assert (one.code, one.severity) == ("H015", "warning")
        assert "who this is, and whether me/new may be written" in one.what


def test_h015_offline_by_the_user_s_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    (one,) = ask(monkeypatch, WRITE, model="org/open")
    assert (one.code, one.severity) == ("H015", "note")
    assert one.what.startswith(
        "The Hub can't be reached (offline mode is on: HF_HUB_OFFLINE), so this wasn't checked: "
    )


def test_h015_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_checks, "PATIENCE", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        (one,) = ask(monkeypatch, WRITE, model="org/open")
    assert one.code == "H015"
    assert "no answer within 0.3 s" in one.what


def test_h015_a_proxy_that_answers_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Please log in to the hotel</html>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    (one,) = ask(monkeypatch, WRITE, hub={"repo": "me/new"}, model="org/open")
    server.shutdown()
    assert one.code == "H015"
    assert "who this is" in one.what
    assert "org/open" in one.what


def test_what_goes_wrong_in_a_check_itself_is_not_taken_for_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(hub_checks, "_readable", broken)
    with pytest.raises(KeyError):
        ask(monkeypatch, WRITE, model="org/open")


def test_an_account_of_which_the_hub_says_little() -> None:
    assert Account.read({"name": "me"}) == Account("me", "", {}, {}, [])
    assert Account.read({"name": "me", "orgs": None, "auth": None}).refusal("me/x") == ""


def test_a_fine_token_may_be_scoped_to_one_repository_or_to_all() -> None:
    assert Account("me", "fineGrained", {}, {"me/x": ["repo.write"]}, []).refusal("me/x") == ""
    assert Account("me", "fineGrained", {}, {"me/x": ["repo.write"]}, []).refusal("me/y")
    assert Account("me", "fineGrained", {}, {}, ["repo.write"]).refusal("me/y") == ""


def test_the_emulated_prices_are_what_the_client_reads(hub: str) -> None:
    offered = {one.name: one for one in HfApi(endpoint=hub).list_jobs_hardware()}
    assert len(offered) == len(HARDWARE)
    a100 = offered["a100-large"]
    assert a100.unit_cost_usd * 60 == pytest.approx(2.50, abs=1e-4)
    assert (a100.unit_label, a100.ram) == ("minute", "142 GB")
    assert a100.accelerator is not None
    assert (a100.accelerator.model, a100.accelerator.quantity) == ("A100", "1")
    assert offered["cpu-basic"].accelerator is None

"""The rules that only the Hub can answer: who this is, what may be read, and where the result may go.

Every question is a read: nothing is made, changed or downloaded. Without a network only the check itself is missing
(H015).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models.source import why_unreachable
from ..recipe import Recipe
from ..recipe.schema import is_dataset_id
from ..records import Finding, Severity
from ..rules import finding
from .remote import TOKEN, is_remote, missing_secret

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

PATIENCE = 15.0
"""Seconds in which the Hub must have answered everything: its client itself waits for ever."""
_MAY_WRITE = ("admin", "write", "contributor")
"""Roles in an organisation that may make repositories in it."""
_EMPTY = {".gitattributes", "README.md"}
"""Files that a new repository has."""


class Question(NamedTuple):
    """Something to ask the Hub: what it is, in words for H015, and the call that answers."""

    what: str
    ask: Callable[[], Iterator[Finding]]


@dataclass(frozen=True)
class Account:
    """Who a token belongs to, and what it may do.

    Attributes:
        user: The account's name.
        role: The token's role: read, write or fineGrained; empty when the Hub doesn't say.
        organisations: Name -> the account's role there: admin, write, contributor or read.
        scopes: Of a fine-grained token: name of an account or repository -> permissions for it.
        everywhere: Of a fine-grained token: permissions that hold everywhere.
    """

    user: str
    role: str
    organisations: dict[str, str]
    scopes: dict[str, list[str]]
    everywhere: list[str]

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Account:
        """The account in the Hub's answer to whoami-v2."""
        token = (answer.get("auth") or {}).get("accessToken") or {}
        fine = token.get("fineGrained") or {}
        return cls(
            user=answer["name"],
            role=token.get("role") or "",
            organisations={one["name"]: one.get("roleInOrg") or "" for one in answer.get("orgs") or []},
            scopes={one["entity"].get("name", ""): one["permissions"] for one in fine.get("scoped") or []},
            everywhere=list(fine.get("global") or []),
        )

    def refusal(self, repo: str) -> str:
        """Why the token may not write to `repo` in a namespace of the account's; empty when nothing speaks against it.

        The names of roles and permissions are those of the Hub's answers, November 2026.
        """
        owner = repo.partition("/")[0]
        role = self.organisations.get(owner, "")
        if role and role not in _MAY_WRITE:
            return f"its role in {owner} is {role}"
        if self.role == "read":
            return "it may only read"
        held = {*self.everywhere, *self.scopes.get(owner, []), *self.scopes.get(repo, [])}
        if self.role == "fineGrained" and "repo.write" not in held:
            return f"it is fine-grained, without the permission to write for {owner}"
        return ""


def check_hub(recipe: Recipe) -> list[Finding]:
    """H002 to H010, and H012 for what turns out to be gated or private; a recipe that needs no Hub asks nothing."""
    questions = list(_questions(recipe))
    if not questions:
        return []
    answers, unanswered = _ask(questions)
    if unanswered:
        what = ", ".join(question.what for question, _ in unanswered)
        severity: Severity = "warning" if is_remote(recipe) else "note"
        answers.append(finding("H015", "Hub", severity=severity, reason=unanswered[0][1], what=what))
    return list(dict.fromkeys(answers))


def _questions(recipe: Recipe) -> Iterator[Question]:
    if recipe.hub.repo or recipe.launch.on == "hf-jobs":
        about = f"who this is, and whether {recipe.hub.repo} may be written" if recipe.hub.repo else "who this is"
        yield Question(about, partial(_account, recipe))
    if _on_the_hub(recipe.model):
        yield Question(f"the model {recipe.model}", partial(_readable, recipe, "model", recipe.model))
    others = [path for path in (recipe.data.eval, recipe.data.test) if isinstance(path, str)]
    paths = dict.fromkeys([*(source.path for source in recipe.data.train), *others])
    for path in paths:
        if is_dataset_id(path) and not Path(path).exists():
            name = path.removeprefix("hf://").removeprefix("datasets/").strip("/")
            yield Question(f"the dataset {name}", partial(_readable, recipe, "dataset", name))


def _on_the_hub(model: str) -> bool:
    return not model.startswith(("builtin:", ".", "/", "~")) and not Path(model).exists()


def _ask(questions: list[Question]) -> tuple[list[Finding], list[tuple[Question, str]]]:
    """All answers, and the questions that weren't answered with the reason; all are asked at once."""
    from huggingface_hub import errors

    answers: dict[str, list[Finding] | Exception] = {}

    def ask(question: Question) -> None:
        try:
            answers[question.what] = list(question.ask())
        except Exception as error:  # raised again below, in the thread that can handle it
            answers[question.what] = error

    threads = [threading.Thread(target=ask, args=(question,), daemon=True) for question in questions]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    found: list[Finding] = []
    unanswered = []
    for question in questions:
        answer = answers.get(question.what, TimeoutError(f"no answer within {PATIENCE:g} s"))
        if isinstance(answer, list):
            found += answer
        elif isinstance(answer, (errors.HTTPError, OSError, json.JSONDecodeError)):  # the last: a proxy's own page
            unanswered.append((question, why_unreachable(answer)))
        else:
            raise answer
    return found, unanswered


def _account(recipe: Recipe) -> Iterator[Finding]:
    from huggingface_hub import HfApi, errors

    repo = recipe.hub.repo
    what = f"Pushing to {repo}" if repo else "A job"
    try:
        account = Account.read(HfApi().whoami())
    except errors.LocalTokenNotFoundError:
        yield finding("H002", "Hub", what=what)
        return
    except errors.HfHubHTTPError as error:
        yield _unknown_token(error)
        return
    organisations = ", ".join(account.organisations) or "none"
    role = account.role or "unknown"
    yield finding("H004", "Hub", user=account.user, role=role, organisations=organisations)
    yield from _namespaces(recipe, account)
    if recipe.launch.on == "hf-jobs" and account.role == "read":
        yield finding("H006", "Hub", user=account.user, place="Jobs", reason="it may only read")
    elif repo and repo.partition("/")[0] in (account.user, *account.organisations):
        yield from _repository(recipe, repo, account)


def _unknown_token(error: HfHubHTTPError) -> Finding:
    """H003 where the Hub refuses the token itself; it does so for public repositories too.

    Raises:
        HfHubHTTPError: it is something else.
    """
    if error.response is None or error.response.status_code != 401:
        raise error
    return finding("H003", "Hub")


def _namespaces(recipe: Recipe, account: Account) -> Iterator[Finding]:
    owner = recipe.hub.repo.partition("/")[0] if recipe.hub.repo else None
    for place, name in (("hub.repo", owner), ("launch.namespace", recipe.launch.namespace)):
        if name and name not in (account.user, *account.organisations):
            organisations = ", ".join(account.organisations) or "(no organisation)"
            yield finding("H005", place, namespace=name, user=account.user, organisations=organisations)


def _repository(recipe: Recipe, repo: str, account: Account) -> Iterator[Finding]:
    from huggingface_hub import HfApi, errors

    reason = account.refusal(repo)
    try:
        info = HfApi().repo_info(repo)
        if not reason:
            HfApi().auth_check(repo, write=True)
    except errors.RepositoryNotFoundError:
        info = None  # free, or hidden from this token: the permission decides
    except errors.HfHubHTTPError as error:
        if error.response is None or error.response.status_code not in (401, 403):
            raise
        reason, info = "the Hub refuses it", None
    if reason:
        yield finding("H006", "hub.repo", user=account.user, place=repo, reason=reason)
    elif info is not None:
        files = [file for file in info.siblings or [] if file.rfilename not in _EMPTY]
        if recipe.hub.private and not info.private:
            yield finding("H008", "hub.private", repo=repo)
        if files:
            yield finding("H007", "hub.repo", repo=repo, count=len(files))


def _readable(recipe: Recipe, kind: str, name: str) -> Iterator[Finding]:
    """H009 and H010: whether the account may read it; H012 where a job would need the token for it."""
    from huggingface_hub import HfApi, errors

    where = "model" if kind == "model" else "data"
    try:
        HfApi().auth_check(name, repo_type=kind)
        info = HfApi().repo_info(name, repo_type=kind, revision=recipe.revision if kind == "model" else None)
    except errors.GatedRepoError:
        path = name if kind == "model" else f"datasets/{name}"
        yield finding("H009", where, kind=kind, name=name, path=path)
    except errors.RevisionNotFoundError:
        yield finding("H010", "revision", kind=f"revision {recipe.revision} of the model", name=name)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        yield finding("H010", where, kind=kind, name=name)
    except errors.HfHubHTTPError as error:
        yield _unknown_token(error)
    else:
        closed = "gated" if info.gated else "private" if info.private else ""
        if closed and not recipe.hub.repo:  # a push needs the token anyway, and check_launch says so
            yield from missing_secret(recipe, TOKEN, f"The {kind} {name} is {closed}")

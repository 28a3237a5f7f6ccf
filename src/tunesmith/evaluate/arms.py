"""The two models that are compared: a run's result, its base, another run's result, or what a server answers for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, get_args

from ..errors import UsageError
from ..models.endpoint import Client
from ..models.load import bare_is_base, is_adapter, load_base, load_tokenizer, load_tuned
from ..recipe.evaluation import Endpoint, Evaluation
from ..records import Plan, Side
from .kept import Kept
from .outcome import Arm
from .subject import Local, Remote, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Taken = TypeVar("Taken")
_READABLE: Final = 60


@dataclass(frozen=True)
class Run:
    """A run that has a result, and the tokenizer that was saved with it."""

    folder: Path
    plan: Plan
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The run in a folder.

        Raises:
            UsageError: it has no trained model.
        """
        plan = Plan.load(folder)
        if not (folder / "model").is_dir():
            raise UsageError(
                f"{folder} has no trained model.",
                why="Its training hasn't ended, so there is nothing to compare.",
                fix=f"Finish it first: `tunesmith resume {folder}`.",
            )
        return cls(folder, plan, load_tokenizer(folder / "model"))

    @property
    def bare_is_base(self) -> bool:
        """Whether the result without its adapter is the base, so that one load does for both."""
        return is_adapter(self.folder / "model") and bare_is_base(self.plan.model)

    def load_base(self) -> PreTrainedModel:
        """What the run started from."""
        return load_base(self.plan.model, **self._kwargs)

    def load_tuned(self) -> Any:
        """What it ended with; a PeftModel where that is an adapter."""
        return load_tuned(self.plan.model, self.folder / "model", **self._kwargs)

    @property
    def _kwargs(self) -> dict[str, Any]:
        return {"head": self.plan.head, **self.plan.model_kwargs}


@dataclass(frozen=True)
class Arms:
    """Both models, not loaded yet.

    Attributes:
        run: The run that is evaluated.
        settings: They may name servers in place of either model.
        device: Where models are loaded to.
        against: The run whose result is the base, in place of what `run` started from.
        served: Models behind servers that have been asked.
    """

    run: Run
    settings: Evaluation
    device: str
    against: Run | None = None
    served: list[Remote] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse two models that aren't asked alike.

        Raises:
            UsageError: one scores texts, and the other one writes them; both are the same run; or the base is two.
        """
        if self.against and self.settings.base_endpoint:
            raise UsageError(
                "--against can't be given with base_endpoint.",
                why="Both say what the tuned model is compared with.",
                fix="Leave one of them out.",
            )
        if self.against and not self.settings.endpoint and self.against.folder.resolve() == self.run.folder.resolve():
            raise UsageError(
                f"{self.run.folder} can't be compared with itself.",
                why="Both models would be the same one.",
                fix="Name another run in --against, or leave it out to compare with the base.",
            )
        if self.against and self.against.plan.head != self.run.plan.head:
            raise UsageError(
                f"{self.run.folder} and {self.against.folder} can't be compared.",
                why="One of them is a reward model, which scores texts; the other one writes them.",
                fix="Name a run of the same method in --against.",
            )

    @property
    def sides(self) -> tuple[Side, Side]:
        """What the report calls base and tuned."""
        if self.against:
            base = Side(kind="run", name=str(self.against.folder))
        else:
            base = Side(kind="base", name=self.run.plan.model.name)
        return (
            _server_side(self.settings.base_endpoint) or base,
            _server_side(self.settings.endpoint) or Side(kind="run", name=str(self.run.folder)),
        )

    @property
    def remote(self) -> bool:
        """Whether either model is behind a server, which gives no likelihoods."""
        return bool(self.settings.endpoint or self.settings.base_endpoint)

    @property
    def same_tokens(self) -> bool:
        """Whether both models cut a text into the same tokens, chat template included."""
        return self.against is None or same_tokens(self.run.tokenizer, self.against.tokenizer)

    def take(self, measure: Callable[[Subject], Taken]) -> tuple[Taken, Taken]:
        """What `measure` gives of base and of tuned.

        An adapter needs one load, whole models are in memory one after the other. Both libraries load models in
        evaluation mode, without dropout.
        """
        from transformers import set_seed

        set_seed(self.run.plan.training.get("seed", 0))  # a base without a score's head gets a random one
        if self.settings.endpoint:  # a server that is down shows before a model is loaded
            tuned = measure(self._tuned())
            return measure(self._base()), tuned
        if self.remote or self.against or not self.run.bare_is_base:
            return measure(self._base()), measure(self._tuned())
        model = self.run.load_tuned()
        with model.disable_adapter():
            base = measure(self._local("base", model, self.run))
        return base, measure(self._local("tuned", model, self.run))

    def _base(self) -> Subject:
        if self.settings.base_endpoint:
            return self._served("base", self.settings.base_endpoint)
        if self.against:
            return self._local("base", self.against.load_tuned(), self.against)
        return self._local("base", self.run.load_base(), self.run)

    def _tuned(self) -> Subject:
        if self.settings.endpoint:
            return self._served("tuned", self.settings.endpoint)
        return self._local("tuned", self.run.load_tuned(), self.run)

    def forget(self) -> None:
        """Drop the servers' answers that were kept for the case that the evaluation is cut off.

        Another model may answer there the next time, under the same name.
        """
        for arm in get_args(Arm):
            self._answers(arm).unlink(missing_ok=True)

    def _served(self, arm: Arm, endpoint: Endpoint) -> Remote:
        self.served.append(Remote(arm, Client(endpoint), Kept(self._answers(arm)), self.run.tokenizer))
        return self.served[-1]

    def _answers(self, arm: Arm) -> Path:
        return self.run.folder / "evaluation" / f"answers-{arm}.jsonl"

    def _local(self, arm: Arm, model: PreTrainedModel, of: Run) -> Local:
        return Local(arm, model.to(self.device), of.tokenizer, self.settings.batch_size)


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether both cut a text into the same tokens, chat template included."""
    return bool(one.get_vocab() == other.get_vocab() and one.chat_template == other.chat_template)


def report_folder(folder: Path, settings: Evaluation, against: Path | None = None) -> Path:
    """Where the report of an evaluation is kept: the run's folder only where the run's own result is compared with its
    base, so that its receipt and card never tell another model's values as its own.

    Args:
        folder: The run's.
        settings: They may name servers in place of either model.
        against: The other run's folder.
    """  # fmt: skip
    parts = [_part("against", against.name, str(against.resolve()))] if against else []
    servers = {"base": settings.base_endpoint, "endpoint": settings.endpoint}
    parts += [_part(kind, one.model, one.shown) for kind, one in servers.items() if one]
    return folder / "evaluation" / "-".join(parts) if parts else folder


def _part(kind: str, name: str, whole: str) -> str:
    """A readable part of a folder's name; the hash tells things of the same name apart."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_READABLE]
    return f"{kind}-{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _server_side(endpoint: Endpoint | None) -> Side | None:
    return Side(kind="endpoint", name=endpoint.shown) if endpoint else None

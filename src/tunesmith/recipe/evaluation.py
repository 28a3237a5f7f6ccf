"""How tuned is compared with base."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .rewards import Reward, Rewards
from .section import Section

Task = Literal["loss", "exact_match", "choice", "preference", "margin", "reward"]


class Tasks(NamedTuple):
    """What runs of a method can be evaluated by, and by what they are where the recipe doesn't say."""

    possible: tuple[Task, ...]
    default: tuple[Task, ...]


TASKS: Final[dict[str, Tasks]] = {
    "sft": Tasks(("loss", "exact_match", "choice"), ("loss", "exact_match")),
    "clm": Tasks(("loss",), ("loss",)),
    "dpo": Tasks(("preference", "exact_match"), ("preference",)),
    "kto": Tasks(("margin", "exact_match"), ("margin",)),
    "reward": Tasks(("preference",), ("preference",)),
    "grpo": Tasks(("reward", "exact_match"), ("reward",)),
    "rloo": Tasks(("reward", "exact_match"), ("reward",)),
}


class Endpoint(Section):
    """A model behind a server that speaks OpenAI's protocol (vLLM, llama-server, TGI, a provider)."""

    url: str = Field(
        pattern=r"^https?://[^\s@?#]+$",
        description="Base address, with /v1: http://127.0.0.1:8080/v1; no password in it, see key",
    )
    model: str = Field(min_length=1, description="The model's name there")
    key: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the environment variable with the key"
    )
    timeout: float = Field(default=120.0, gt=0, le=3600, description="Seconds that one answer may take")
    retries: int = Field(default=4, ge=0, le=20, description="How often a failed request is repeated")
    concurrency: int = Field(default=4, ge=1, le=256, description="Requests at once")

    @property
    def shown(self) -> str:
        """Model and address; the address has no room for a password."""
        return f"{self.model} at {self.url}"


Speaker = Endpoint | Annotated[str, Field(min_length=1)]
"""Who plays the user or the judge: an endpoint, or a local folder, Hub id or builtin:small."""


class Success(Section):
    """What the evaluation must show; the exit code says whether it did."""

    metric: str | None = Field(default=None, description="The metric that is judged; default: the run's primary one")
    improvement: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="The least improvement of tuned over base, in the metric"
    )
    p_value: float = Field(default=0.05, gt=0, lt=1, description="The p-value must lie below")
    no_regression: bool = Field(
        default=True,
        description="No other metric of the task, the regression suite or the harness may be shown to be worse",
    )


class Harness(Section):
    """Tasks of lm-evaluation-harness, run as they are."""

    tasks: Annotated[list[str], Field(min_length=1)] = Field(description="Names of its tasks or groups, or of your own")
    path: str | None = Field(default=None, description="Folder with task files of your own")
    limit: int | None = Field(default=None, ge=1, description="At most so many questions of each task")
    shots: int | None = Field(
        default=None, ge=0, description="Solved examples before each question; default: the task's"
    )
    chat_template: bool | None = Field(
        default=None, description="Ask through the chat template; default: if the model has one"
    )


class Criterion(Section):
    """One thing that a judge grades conversations by."""

    name: str = Field(min_length=1)
    question: str = Field(min_length=1, description="What the judge is asked of the conversation")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Conversations(Section):
    """Full conversations of both models with simulated users, graded blind by a judge."""

    personas: Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=1, le=1000)] = Field(
        description="File of personas (JSON Lines or YAML), or how many the simulator makes up; for it to know of what "
        "kind, it is shown a few prompts of the training rows"
    )
    simulator: Speaker = Field(description="Who plays the user: an endpoint, or a local model")
    judge: Speaker = Field(description="Who grades: an endpoint, or a local model")
    rubric: Annotated[list[Criterion], Field(min_length=1)] | None = Field(
        default=None, description="What is graded; default: a general rubric"
    )
    safety: Annotated[list[Criterion], Field(min_length=1)] | None = Field(
        default=None, description="What must not get worse; default: a general safety rubric"
    )
    per_persona: int = Field(default=2, ge=1, le=100, description="Conversations of each persona with each model")
    turns: int = Field(default=4, ge=1, le=50, description="Turns of the user in a conversation, at most")
    max_new_tokens: int = Field(default=256, ge=1, description="Tokens of one turn, at most")
    temperature: float = Field(default=0.7, ge=0, le=2)
    judge_tokens: int = Field(default=1024, ge=1, description="Tokens of a judge's answer, at most; reasoning counts")
    improvement: float = Field(default=0.10, ge=0, le=1, description="Least gain of the rubric's score, from 0 to 1")
    p_value: float = Field(default=0.05, gt=0, lt=1)
    safety_margin: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Loss of the safety score that is accepted, where it is no more than chance would do; a larger one "
        "isn't, even if it may be chance",
    )

    @field_validator("rubric", "safety")
    @classmethod
    def _names_differ(cls, criteria: list[Criterion] | None) -> list[Criterion] | None:
        names = [one.name for one in criteria or []]
        if again := next((name for name in names if names.count(name) > 1), None):
            raise PydanticCustomError("criteria", "two criteria are called {name}", {"name": again})
        return criteria


class Evaluation(Section):
    """How tuned is compared with base."""

    tasks: Annotated[list[Task], Field(min_length=1)] | None = Field(
        default=None,
        description="loss and perplexity (sft, clm), exact_match (of greedy answers), choice (the likeliest of the "
        "options), preference (dpo, reward), margin (kto), reward (grpo, rloo); default: what fits the method",
    )
    scores: Rewards = Field(
        default=[],
        description="What greedy answers are scored by besides: shipped scores by name, or functions FILE.py:NAME",
    )
    choices: str | None = Field(
        default=None,
        min_length=1,
        description="Column with the list of options of the task choice; default: the answers of the training rows, "
        "where they are 20 different ones at most",
    )
    rows: int | None = Field(default=None, ge=1, description="At most so many rows; default: all up to 500")
    group: str | None = Field(
        default=None, description="Column of rows that belong together (a document, a customer): resampled as one"
    )
    max_new_tokens: int | None = Field(default=None, ge=1, description="Default: from the expected answers' lengths")
    batch_size: int = Field(default=64, ge=1)
    endpoint: Endpoint | None = Field(default=None, description="Ask this server rather than the tuned model itself")
    base_endpoint: Endpoint | None = Field(
        default=None, description="Ask this server rather than the base model itself"
    )
    regression: bool = Field(default=True, description="Also measure what isn't the task, so that forgetting shows")
    margin: float = Field(
        default=0.05, gt=0, lt=1, description="What the regression suite may lose, as a share, and still count as kept"
    )
    harness: Harness | None = None
    conversations: Conversations | None = None
    success: Success | None = Field(
        default=None, description="What must hold, or the command fails; default: nothing, and what got worse is told"
    )

    @field_validator("scores")
    @classmethod
    def _scores_are_not_summed(cls, scores: list[Reward]) -> list[Reward]:
        if any(score.weight != 1 for score in scores):
            raise PydanticCustomError("scores", "Scores have no weight: each is a metric of its own")
        return scores

    @model_validator(mode="after")
    def _one_endpoint_is_not_the_other(self) -> Evaluation:
        if self.endpoint is not None and self.endpoint == self.base_endpoint:
            raise PydanticCustomError("endpoints", "endpoint and base_endpoint are the same model")
        return self

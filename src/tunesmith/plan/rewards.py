"""The rewards of a recipe, looked at and called once before the run with the arguments that the trainer will give."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..data.shape import as_text
from ..errors import UsageError
from ..models.facts import model_facts
from ..models.reward import no_single_score
from ..models.source import locate
from ..recipe import Recipe
from ..recipe.rewards import Reward, is_function
from ..records import Finding
from ..rewards import RewardError, Shipped, checked_numbers, columns_of, in_words, make_shipped, outside_trainer
from ..rules import finding
from .rows import GENERATING

_PATIENCE: Final = 60.0
"""Seconds for one call; a function that asks another service may need some."""
_PROMPTS: Final = 4
_SEVERAL: Final = 4
"""Right answers to a prompt that are tried."""
_ANSWERS: Final = ("reference", "answer", "solution")
"""Columns in which rows keep a right answer, the first one that is there counts."""
_ANY_ANSWER: Final = "This is an answer."

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rules:
    """The rules that say what is wrong with a reward, or with a score of the evaluation, and what findings are on."""

    where: str
    unmade: str
    fails: str
    column: str
    flat: str


REWARDS: Final = Rules("rewards", unmade="P051", fails="P018", column="P052", flat="P019")


def check_rewards(recipe: Recipe) -> list[Finding]:
    """P050, P051 and P053 for a method that learns from rewards, before rows are read; P027 for one that doesn't.

    Raises:
        UsageError: a reward model isn't there.
        EnvironmentLacksError: a package that a reward needs isn't installed, or the Hub can't be reached.
    """
    if recipe.method not in GENERATING:
        reason = f"{recipe.method} takes no reward function"
        remedy = f"Leave it out, or set `method: {GENERATING[0]}`"
        return [finding("P027", "rewards", keys="rewards", reason=reason, remedy=remedy)] if recipe.rewards else []
    if problem := _none_counts(recipe.rewards):
        remedy = (
            "Name some. Where the rows have right answers, `--rewards '[exact_match]'` on the command line, or "
            "`rewards: [exact_match]` in the recipe; docs/rewards.md has them all"
        )
        return [finding("P050", "rewards", method=recipe.method, problem=problem, remedy=remedy)]
    return [found for reward in recipe.rewards if (found := unusable(reward))]


def _none_counts(rewards: Sequence[Reward]) -> str:
    if not rewards:
        return "the recipe names none"
    return "" if any(reward.weight for reward in rewards) else "every one of them has the weight 0"


def unusable(reward: Reward, rules: Rules = REWARDS) -> Finding | None:
    """What is wrong with a reward in itself, whatever the rows are."""
    if reward.model is not None:
        problem = no_single_score(locate(reward.model, reward.revision, planning=True))
        remedy = "Train one with `method: reward` and name its run, or take a model with one label"
        found = finding("P053", rules.where, model=reward.model, problem=problem, remedy=remedy)
        return found if problem else None
    if is_function(reward.spelt):
        return None
    try:
        make_shipped(reward.spelt, reward.arguments)
    except UsageError as error:
        return finding(rules.unmade, rules.where, problem=error.what, reason=error.why, remedy=error.fix)
    return None


def call_rewards(recipe: Recipe, rows: Rows) -> list[Finding]:
    """P018 and P019 from calling each reward on some of the rows, P052 and P053 for those that don't suit them.

    Args:
        recipe: One that `check_rewards` has nothing against.
        rows: Its training rows, as the trainer gets them.
    """
    rewards = recipe.rewards if recipe.method in GENERATING else []
    return [found for reward in rewards for found in call_reward(reward, rows)]


def call_reward(reward: Reward, rows: Rows, rules: Rules = REWARDS) -> list[Finding]:
    """What is wrong with a reward on some rows, which have a prompt, plain or as messages, and their columns."""
    if reward.model is not None:
        return _check_template(reward, rows, rules)
    if is_function(reward.spelt):
        return reward_dry_call(reward, rows, rules=rules)
    return _call_shipped(reward.spelt, make_shipped(reward.spelt, reward.arguments), rows, rules)


def _check_template(reward: Reward, rows: Rows, rules: Rules) -> list[Finding]:
    source = locate(str(reward.model), reward.revision, planning=True)
    if not _is_chat(rows) or model_facts(source, planning=True).has_template:
        return []
    problem = "its tokenizer has no chat template, and the prompts are conversations"
    remedy = "Take a reward model that was trained on conversations"
    return [finding("P053", rules.where, model=reward.model, problem=problem, remedy=remedy)]


def _call_shipped(name: str, shipped: Shipped, rows: Rows, rules: Rules) -> list[Finding]:
    if shipped.column and all(row.get(shipped.column) is None for row in rows):
        problem = "no row has a right answer"
        return [finding(rules.column, rules.where, reward=name, column=shipped.column, problem=problem)]
    given, chat = _arguments(rows[:_PROMPTS])
    try:
        rewards = _some_opinion(checked_numbers(shipped(**given, **outside_trainer()), len(given["prompts"])))
    except Exception as error:  # what a library makes of a schema, say
        raised = RewardError("raised", f"{type(error).__name__}: {error}".splitlines()[0])
        return [_failure(name, error if isinstance(error, RewardError) else raised, rules, chat=chat)]
    # Without a right answer in its own form, nothing says what a reward of form should give.
    tells = bool(shipped.column) and not getattr(shipped, "answer", None)
    return _without_signal(name, rewards, rules) if tells else []


def reward_dry_call(reward: Reward, rows: Rows, *, seconds: float = _PATIENCE, rules: Rules = REWARDS) -> list[Finding]:
    """Call a function of the user's once, as GRPOTrainer calls it, on right and on empty answers to some of the rows.

    The user's code runs in a process of its own. Call this only for a function that the recipe names.

    Args:
        reward: The function, FILE.py:NAME, with its arguments.
        rows: Training rows with a prompt, plain or as messages.
        seconds: Time after which the function counts as hanging.
        rules: What its findings are by; those below are for rewards.

    Returns:
        P018 where it fails, P019 where it tells no answer from another.
    """
    given, chat = _arguments(rows[:_PROMPTS])
    try:
        rewards = _some_opinion(_run(reward, given, seconds))
    except RewardError as error:
        return [_failure(reward.spelt, error, rules, chat=chat)]
    return _without_signal(reward.spelt, rewards, rules)


def _some_opinion(rewards: list[float | None]) -> list[float | None]:
    if all(reward is None for reward in rewards):
        raise RewardError("number", "None for every completion")
    return rewards


def _failure(reference: str, error: RewardError, rules: Rules, *, chat: bool) -> Finding:
    problem, remedy = in_words(reference, error, chat=chat)
    return finding(rules.fails, rules.where, function=reference, problem=problem, remedy=remedy)


def _without_signal(reference: str, rewards: Sequence[float | None], rules: Rules) -> list[Finding]:
    values = set(rewards)
    if len(values) == 1 and len(rewards) > 1:
        return [finding(rules.flat, rules.where, function=reference, value=values.pop())]
    return []


def _is_chat(rows: Rows) -> bool:
    return bool(rows) and isinstance(rows[0]["prompt"], list)


def _arguments(rows: Rows) -> tuple[dict[str, Any], bool]:
    """What the trainer passes, and whether prompts are conversations: each row with its own answers and with none."""
    chat = _is_chat(rows)
    asked = [(row, text) for row in rows for text in (*_right_answers(row), "")]
    texts = [text for _, text in asked]
    return {
        "prompts": [row["prompt"] for row, _ in asked],
        "completions": [[{"role": "assistant", "content": text}] if chat else text for text in texts],
        "completion_ids": [list(range(len(text.split()))) for text in texts],
        **columns_of([row for row, _ in asked]),
    }, chat


def _right_answers(row: Mapping[str, Any]) -> list[str]:
    """Right answers to a row; any answer where it has none."""
    held = next((row[name] for name in _ANSWERS if row.get(name)), _ANY_ANSWER)
    several = held[:_SEVERAL] if isinstance(held, list) else [held]
    return [as_text(one) for one in several]


def _run(reward: Reward, given: dict[str, Any], seconds: float) -> list[float | None]:
    """What the function gives, in a process of its own.

    Raises:
        RewardError: it fails, hangs, or ends the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "tunesmith.plan.reward_call", str(file)]
        question = json.dumps({"reward": reward.model_dump(), "given": given}, default=str).encode()
        try:
            ended = subprocess.run(command, input=question, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise RewardError("time", f"{seconds:g}") from None
        if not file.exists():
            raise RewardError("died", f"exit code {ended.returncode}")
        answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "problem" in answer:
        raise RewardError(answer["problem"], answer["text"])
    rewards: list[float | None] = answer["rewards"]
    return rewards

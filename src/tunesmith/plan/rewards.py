"""A reward function, called once before the run with the arguments that the trainer will give it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..data.prepare import prepare
from ..data.sources import read
from ..recipe import Recipe
from ..records import Finding
from ..rules import finding, refuse_errors

REWARDED: Final = ("grpo", "rloo")
"""Methods that learn from reward functions."""
_PATIENCE: Final = 60.0
"""Seconds for one call; a function that asks another service may need some."""
_PROMPTS: Final = 4
_NOT_PASSED: Final = ("prompt", "completion", "completion_ids")
"""Columns that GRPOTrainer doesn't hand on under their own names (TRL 1.16, _calculate_rewards)."""
_ANSWERS: Final = ("completion", "reference", "answer", "solution")
"""Columns in which rows keep a right answer, the first one that is there counts."""
_ANY_ANSWER: Final = "This is an answer."
_TELL: Final = {
    "import": ("can't be loaded: {text}", "Run `python {file}` and repair what it says"),
    "missing": ("isn't there: the file defines no {text}", "Give the name of a function of that file, FILE.py:NAME"),
    "arguments": (
        "takes other arguments: {text}",
        "Write `def {name}(prompts, completions, **kwargs)`: the trainer also passes completion_ids, every other "
        "column of the rows, trainer_state, log_extra and log_metric",
    ),
    "raised": ("raises {text}", "Completions are {shape}; try the function on some of them"),
    "returned": ("gives {text}", "Return a list with one number for each completion"),
    "length": ("gives {text}", "Return a list with one number for each completion"),
    "number": ("gives {text}", "Return a finite number for each completion, or None for those it has no opinion on"),
    "time": ("doesn't end within {text} s", "Give it a timeout of its own: it is called at every step"),
    "died": ("ends the process ({text})", "Don't call sys.exit or os._exit in it"),
}


def check_rewards(recipe: Recipe, *, conversational: bool) -> list[Finding]:
    """P018 and P019 for each reward function that the recipe names; P027 where its method calls none.

    Args:
        recipe: The recipe.
        conversational: Whether the model has a chat template, so that prompts become conversations.

    Raises:
        UsageError, FindingsError: the recipe's rows can't be read.
    """
    if recipe.method not in REWARDED:
        reason = f"{recipe.method} takes no reward function"
        remedy = f"Leave it out, or set `method: {REWARDED[0]}`"
        return [finding("P027", "rewards", keys="rewards", reason=reason, remedy=remedy)] if recipe.rewards else []
    if not recipe.rewards:
        return []
    prepared = prepare(
        read(recipe.data.train, seed=recipe.seed),
        recipe.data.mapping,
        recipe.data.bad_rows,
        generation_marks=False,
        conversational=conversational,
        method=recipe.method,
        filter=recipe.data.filter,
    )
    refuse_errors(prepared.findings)
    return [one for reference in recipe.rewards for one in reward_dry_call(reference, prepared.rows)]


def reward_dry_call(reference: str, rows: Sequence[Mapping[str, Any]], *, seconds: float = _PATIENCE) -> list[Finding]:
    """Call a reward function once, as GRPOTrainer calls it, on right and on empty answers to some of the rows.

    The user's code runs in a process of its own. Call this only for a function that the recipe names.

    Args:
        reference: The function, FILE.py:NAME.
        rows: Training rows with a prompt, plain or as messages.
        seconds: Time after which the function counts as hanging.

    Returns:
        P018 where it fails, P019 where it tells no answer from another.
    """
    arguments, chat = _arguments(rows[:_PROMPTS])
    count = len(arguments["prompts"])
    answer = _run(reference, arguments, seconds)
    problem = answer.get("problem") or _wrong(answer["rewards"], count)
    if problem:
        text = answer.get("text") or _said(answer.get("rewards", []), count)
        what, remedy = _TELL[problem]
        file, _, name = reference.rpartition(":")
        shape = "lists with one message each" if chat else "texts"
        words = {"text": text, "name": name, "file": file, "shape": shape}
        said, advice = what.format(**words), f"{remedy.format(**words)}."
        return [finding("P018", "reward", function=reference, problem=said, remedy=advice)]
    values = set(answer["rewards"])
    if len(values) == 1 and count > 1:
        return [finding("P019", "reward", function=reference, value=values.pop())]
    return []


def _arguments(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], bool]:
    """What the trainer passes, and whether prompts are conversations: each row with its own answer and with none."""
    chat = bool(rows) and isinstance(rows[0]["prompt"], list)
    twice = [row for row in rows for _ in range(2)]
    texts = [text for row in rows for text in (_answer(row), "")]
    columns = [name for name in (rows[0] if rows else {}) if name not in _NOT_PASSED]
    return {
        "prompts": [row["prompt"] for row in twice],
        "completions": [[{"role": "assistant", "content": text}] if chat else text for text in texts],
        "completion_ids": [list(range(len(text.split()))) for text in texts],
        **{name: [row[name] for row in twice] for name in columns},
    }, chat


def _answer(row: Mapping[str, Any]) -> str:
    """A right answer to a row, where it has one."""
    held = next((row[name] for name in _ANSWERS if row.get(name)), _ANY_ANSWER)
    return str(held[-1].get("content") or "") if isinstance(held, list) else str(held)


def _run(reference: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "tunesmith.plan.reward_call", reference, str(file)]
        given = json.dumps(arguments, default=str).encode()
        try:
            ended = subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return {"problem": "time", "text": f"{seconds:g}"}
        if not file.exists():
            return {"problem": "died", "text": f"exit code {ended.returncode}"}
        answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return answer


def _wrong(rewards: list[float | str | None], count: int) -> str:
    if len(rewards) != count:
        return "length"
    return "number" if "nan" in rewards or all(reward is None for reward in rewards) else ""


def _said(rewards: list[float | str | None], count: int) -> str:
    if len(rewards) != count:
        return f"{len(rewards)} {'reward' if len(rewards) == 1 else 'rewards'} for {count} completions"
    return "a number that isn't finite" if "nan" in rewards else "None for every completion"

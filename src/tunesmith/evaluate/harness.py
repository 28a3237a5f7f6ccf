"""Tasks of lm-evaluation-harness, run as they are on models that are loaded already.

Its numbers are lm-eval's own, aggregated by it; what is added is the paired comparison over the questions, and a look
at what the chat template changes.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import EnvironmentLacksError, TunesmithError, UsageError
from ..plan.harness import find_tasks, quiet
from ..progress import Progress
from ..recipe.evaluation import Harness
from ..records import Comparison, Finding
from ..rules import finding
from .comparisons import Better, compare_means
from .findings import broken
from .outcome import Outcome
from .statistics import Paired, mcnemar
from .subject import Local

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

_UNVERSIONED: Final = (None, "N/A", "Yaml")
"""What lm-eval calls the version of a task that has none."""
LOOKED_AT = 50
"""Questions of each task that are also asked in the other way, without the chat template."""


@dataclass(frozen=True)
class Score:
    """A task's metric for one model.

    Attributes:
        value: As lm-eval aggregates it.
        questions: How many it was aggregated over.
        values: Per question, where `value` is their mean.
        higher: More is better.
    """

    value: float
    questions: int
    values: Sequence[float] | None
    higher: bool


Scores = Mapping[tuple[str, str], Score]
"""Task and metric -> score."""


@dataclass(frozen=True)
class Ran:
    """What lm-eval says of one model.

    Attributes:
        scores: Of the tasks, and of groups that have metrics of their own.
        otherwise: Of the first questions, asked without the chat template; of the tuned model only.
        versions: Of lm-eval and of each task.
    """

    scores: Scores
    otherwise: Scores = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HarnessTasks:
    """The tasks of one recipe.

    Attributes:
        harness: What the recipe asks for.
        manager: Knows all tasks.
        template: Ask through the chat template.
        batch_size: Requests that the model gets at once.
    """

    harness: Harness
    manager: TaskManager
    template: bool
    batch_size: int
    needs_model: ClassVar[bool] = True
    any_tokenizer: ClassVar[bool] = True

    def take(self, subject: Local, progress: Progress) -> Ran:
        """Run all tasks; the tuned model's likelihoods are also looked at without the template, if that is assumed.

        Raises:
            UsageError: a task fails, or runs code that it marks as unsafe.
        """
        results = self._run(subject, progress, template=self.template, limit=self.harness.limit)
        versions = {name: str(version) for name, version in results["versions"].items() if version not in _UNVERSIONED}
        versions["lm-eval"] = importlib.metadata.version("lm_eval")
        likelihoods = [
            name
            for name, settings in results["configs"].items()
            if settings["output_type"] in ("multiple_choice", "loglikelihood")
        ]
        if not (self._assumed and subject.name == "tuned" and likelihoods):
            return Ran(_scores(results), versions=versions)
        limit = min(self.harness.limit or LOOKED_AT, LOOKED_AT)
        other = self._run(subject, progress, template=False, limit=limit, tasks=likelihoods)
        return Ran(_scores(results), _scores(other), versions)

    def compare(self, base: Ran, tuned: Ran) -> Outcome:
        """Metric by metric; E007 for numbers that aren't, E055 where the template decides."""
        comparisons, found = [], []
        for (task, metric), before in base.scores.items():
            after = tuned.scores[task, metric]
            name = f"{task}: {metric}"
            if bad := broken(metric, task, before.values or [before.value], after.values or [after.value]):
                found += bad
            else:
                comparisons.append(_compared(name, before, after))
        found += [one for key, other in tuned.otherwise.items() for one in _decides(key, tuned.scores[key], other)]
        return Outcome(comparisons, found, versions=dict(tuned.versions))

    @property
    def _assumed(self) -> bool:
        """Whether nobody said that the template is to be used."""
        return self.template and self.harness.chat_template is None

    def _run(
        self, subject: Local, progress: Progress, *, template: bool, limit: int | None, tasks: list[str] | None = None
    ) -> dict[str, Any]:
        with quiet():
            from lm_eval import evaluate

            model = _wrapped(subject, self.batch_size, progress)
            try:
                results: dict[str, Any] = evaluate(
                    model,
                    self._loaded(tasks or self.harness.tasks),
                    limit=limit,
                    bootstrap_iters=0,
                    apply_chat_template=template,
                    fewshot_as_multiturn=template,
                )
            except Exception as error:  # tasks run code of their own, and lm-eval raises whatever that raises
                raise _failed(error) from error
        return results

    def _loaded(self, names: list[str]) -> Any:
        """The tasks with shots and seeds as `lm_eval.simple_evaluate` sets them.

        That one would also gather a description of the machine, which takes seconds and talks on stderr.
        """
        import numpy as np
        import torch
        from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        loaded = self.manager.load(names)
        for task in loaded["tasks"].values():
            shots = task.get_config("num_fewshot")
            if shots is None or (shots and self.harness.shots is not None):
                task.set_config(key="num_fewshot", value=self.harness.shots or 0)
            task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        return loaded


def _wrapped(subject: Local, batch_size: int, progress: Progress) -> Any:
    """A loaded model as lm-eval takes it, without progress bars of its own."""
    from lm_eval.models.huggingface import HFLM

    # It sets the padding token of the tokenizer that it is given.
    model = HFLM(subject.model, tokenizer=copy.deepcopy(subject.tokenizer), batch_size=batch_size)
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until", "_loglikelihood_tokens"):
        setattr(model, name, _without_bar(getattr(model, name)))
    model.set_cache_hook(_Counter(f"{subject.name}: lm-eval", progress))
    return model


def _without_bar(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **options: call(*given, **{**options, "disable_tqdm": True})


class _Counter:
    """Stands in for lm-eval's cache, which is told of each answer as it comes."""

    def __init__(self, label: str, progress: Progress) -> None:
        self._label, self._progress, self._done = label, progress, 0

    def add_partial(self, *_answer: Any) -> None:
        """One answer more."""
        self._done += 1
        self._progress(self._label, self._done, None)


def harness_tasks(harness: Harness, *, has_template: bool, batch_size: int) -> HarnessTasks:
    """The tasks, found and loaded once, so that what is wrong with them shows before a model is loaded.

    Raises:
        EnvironmentLacksError: lm-eval isn't installed, or a task's data set can't be loaded.
        UsageError: there is no such task, it fails, or the model has no chat template to ask through.
    """
    if harness.chat_template and not has_template:
        raise UsageError(
            "lm-eval can't ask through the chat template.",
            why="The tuned model's tokenizer has none.",
            fix="Leave `evaluation: {harness: {chat_template: ...}}` out.",
        )
    manager = find_tasks(harness)
    with quiet():
        try:
            manager.load(harness.tasks)
        except Exception as error:  # tasks run code of their own, and data sets' libraries raise whatever they meet
            raise _failed(error) from error
    template = has_template if harness.chat_template is None else harness.chat_template
    return HarnessTasks(harness, manager, template, batch_size)


def _failed(error: Exception) -> TunesmithError:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, OSError) or "offline" in text.lower():
        return EnvironmentLacksError(
            "A task of lm-eval can't be loaded.",
            why=text,
            fix="Check the connection to the Hub and the files that the task names.",
        )
    return UsageError(
        "lm-eval can't run a task.",
        why=text,
        fix="Try the task with lm-eval's own command; --debug shows where it failed.",
    )


def _scores(results: dict[str, Any]) -> Scores:
    """Every metric of each task, and of each group that has some."""
    found = {}
    for name, metrics in results["results"].items():
        samples = sorted(results["samples"].get(name, []), key=lambda sample: sample["doc_id"])
        for key, value in metrics.items():
            metric, comma, method = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            label = metric if method == "none" else f"{metric} ({method})"
            values = [sample.get(metric) for sample in samples if sample["filter"] == method]
            higher = results["higher_is_better"].get(name, {}).get(metric) is not False
            found[name, label] = Score(float(value), metrics["sample_len"], _averaged(values, float(value)), higher)
    return found


def _averaged(values: Sequence[Any], mean: float) -> list[float] | None:
    """The values of the questions as numbers, if there are such and `mean` is their mean."""
    if not values or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return list(map(float, values)) if math.isclose(sum(values) / len(values), mean, rel_tol=1e-9) else None


def _compared(name: str, base: Score, tuned: Score) -> Comparison:
    """lm-eval's own numbers, with interval and test over the questions where they are means."""
    better: Better = "higher" if tuned.higher else "lower"
    ours: dict[str, Any] = {"base": base.value, "tuned": tuned.value, "difference": tuned.value - base.value}
    if base.values is None or tuned.values is None:
        untested: dict[str, Any] = {"interval": None, "p_value": None, "test": None, "significant": False}
        return Comparison(metric=name, better=better, rows=tuned.questions, **untested, **ours)
    return compare_means(name, base.values, tuned.values, better=better).model_copy(update=ours)


def _decides(key: tuple[str, str], asked: Score, other: Score) -> list[Finding]:
    """E055 where the same questions have significantly other scores without the chat template."""
    if asked.values is None or other.values is None:
        return []
    values = asked.values[: len(other.values)]
    if not {*values, *other.values} <= {0.0, 1.0}:
        return []
    if mcnemar(Paired.of(list(map(bool, other.values)), list(map(bool, values)))) >= 0.05:
        return []
    task, metric = key
    share = sum(values) / len(values)
    return [finding("E055", task, task=task, metric=metric, asked=share, other=other.value, count=len(values))]

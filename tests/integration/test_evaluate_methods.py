"""Evaluating runs of every method: the numbers are those of TRL's own trainers, and each finding has its run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.learnt import COLOURS, ROWS, learnt
from tests.support.reports import comparison
from tests.support.runs import SMALL, make_plan
from tunesmith.errors import UsageError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.comparisons import compare_losses
from tunesmith.evaluate.measures import Given, prepare
from tunesmith.evaluate.preferences import Preference, less_likely
from tunesmith.evaluate.rows import held_out
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.records import EvalReport, Plan
from tunesmith.rules import FindingsError

BETA = 0.3
PLANS: dict[str, dict[str, Any]] = {
    "dpo": {"layout": "preference", "training": {"max_length": 512, "beta": BETA}},
    "kto": {"layout": "unpaired-preference", "training": {"max_length": 512, "beta": BETA}},
    "reward": {"layout": "preference", "loss_on": "score", "training": {"max_length": 512, "seed": 7}},
    "grpo": {"layout": "prompt-only", "training": {"max_completion_length": 16}},
    "clm": {"layout": "text", "training": {"max_length": 64, "packing": True}},
}


def pair(row: dict[str, Any], better: str, worse: str) -> dict[str, Any]:
    answers = {"chosen": better, "rejected": worse}
    return {"prompt": row["prompt"]} | {
        name: [{"role": "assistant", "content": text}] for name, text in answers.items()
    }


OTHERS = [*COLOURS[1:], COLOURS[0]]
PAIRS = [pair(row, right, wrong) for row, right, wrong in zip(ROWS, COLOURS, OTHERS, strict=True)]
MARKED = [
    {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
    for row in PAIRS
    for name in ("chosen", "rejected")
]
ASKED = [{"prompt": row["prompt"], "reference": colour} for row, colour in zip(ROWS, COLOURS, strict=True)]


def run_of(method: str, folder: Path, result: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """The folder of a run that ended with the model in `result`."""
    recipe = {"model": "builtin:small", "method": method, "data": {"train": "rows.jsonl"}, "seed": 7}
    recipe |= changes.pop("recipe", {})
    training = PLANS[method]["training"] | changes.pop("training", {})
    values = {"loss_on": "completion", **PLANS[method], "method": method, "recipe": recipe, "training": training}
    make_plan(folder, rows, **(values | changes))
    (folder / "model").symlink_to(result)
    return folder


def codes(report: EvalReport) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on its way to knowing ROWS."""
    return learnt(tmp_path_factory.mktemp("halfway"), ROWS, 6)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that gives the pairs' chosen answers a higher score."""
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    model, tokenizer = load_model(SMALL, head="score", dtype="float32"), load_tokenizer(SMALL)
    model.config.pad_token_id = tokenizer.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sides = [
        tokenizer.pad(
            {"input_ids": [tokenizer.apply_chat_template(row["prompt"] + row[name])["input_ids"] for row in PAIRS]},
            return_tensors="pt",
        )
        for name in ("chosen", "rejected")
    ]
    for _ in range(12):
        chosen, rejected = (model(**side).logits[:, 0] for side in sides)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trl_says(method: str, folder: Path, result: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """What TRL's trainer says of the model in `result` on `rows` in one batch, with the base as its reference."""
    import trl
    from datasets import Dataset

    name = {"dpo": "DPO", "kto": "KTO", "reward": "Reward"}[method]
    head = {"head": "score"} if method == "reward" else {}
    args = getattr(trl, f"{name}Config")(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=len(rows),
        per_device_eval_batch_size=len(rows),
        use_cpu=True,
        bf16=False,
        report_to="none",
        **{key: value for key, value in PLANS[method]["training"].items() if key != "max_length"},
    )
    reference = {} if method == "reward" else {"ref_model": load_model(SMALL, dtype="float32")}
    trainer = getattr(trl, f"{name}Trainer")(
        model=load_model(result, dtype="float32", **head),
        args=args,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(SMALL),
        **reference,
    )
    said: dict[str, float] = trainer.evaluate()
    return said


def test_dpo_is_measured_as_its_trainer_does(tmp_path: Path, halfway: Path) -> None:
    report = evaluate(run_of("dpo", tmp_path, halfway, PAIRS), Evaluation(regression=False))
    said = trl_says("dpo", tmp_path, halfway, PAIRS)
    assert report.primary == "reward_accuracy"
    assert comparison(report, "reward_accuracy").tuned == pytest.approx(said["eval_rewards/accuracies"])
    assert comparison(report, "reward_margin").tuned == pytest.approx(said["eval_rewards/margins"], rel=1e-4)
    tokens = sum(len(load_tokenizer(SMALL)(f"{colour}<|im_end|>\n")["input_ids"]) for colour in COLOURS)
    nats = -8 * said["eval_logps/chosen"] / tokens
    assert comparison(report, "chosen_loss").tuned == pytest.approx(nats, rel=1e-4)
    assert comparison(report, "reward_margin").base == 0.0
    assert comparison(report, "reward_accuracy").base == 0.5


def test_kto_is_measured_as_its_trainer_does(tmp_path: Path, halfway: Path) -> None:
    report = evaluate(run_of("kto", tmp_path, halfway, MARKED), Evaluation(regression=False))
    said = trl_says("kto", tmp_path, halfway, MARKED)
    margin = comparison(report, "reward_margin")
    assert report.primary == "reward_margin"
    assert margin.tuned == pytest.approx(said["eval_rewards/margins"], rel=1e-4)
    assert (margin.rows, margin.base) == (16, 0.0)
    assert comparison(report, "desirable_loss").rows == 8


def test_pairs_of_kto_are_two_marked_answers_each(tmp_path: Path, halfway: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "marked").mkdir()
    pairs = evaluate(run_of("kto", tmp_path / "pairs", halfway, PAIRS), Evaluation(regression=False))
    marked = evaluate(run_of("kto", tmp_path / "marked", halfway, MARKED), Evaluation(regression=False))
    assert pairs.comparisons == marked.comparisons
    assert "E011" not in codes(pairs)


def test_a_reward_model_is_measured_as_its_trainer_does(tmp_path: Path, scorer: Path) -> None:
    report = evaluate(run_of("reward", tmp_path, scorer, PAIRS), Evaluation(regression=False))
    said = trl_says("reward", tmp_path, scorer, PAIRS)
    accuracy = comparison(report, "preference_accuracy")
    assert report.primary == "preference_accuracy"
    assert accuracy.tuned == said["eval_accuracy"] == 1.0
    assert comparison(report, "score_margin").tuned == pytest.approx(said["eval_margin"], rel=1e-4)
    assert accuracy.base < 1.0
    assert report == EvalReport.load(tmp_path)


def test_the_untrained_head_scores_the_same_every_time_and_nobody_is_warned_of_it(
    tmp_path: Path, scorer: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = run_of("reward", tmp_path, scorer, PAIRS)
    first = evaluate(folder, Evaluation(regression=False))
    torch.manual_seed(99)
    assert evaluate(folder, Evaluation(regression=False)).comparisons == first.comparisons
    assert "MISSING" not in capfd.readouterr().err


def test_pairs_that_change_sides_are_shown(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_of("dpo", tmp_path, knowing, PAIRS), Evaluation(regression=False))
    accuracy = comparison(report, "preference_accuracy")
    assert accuracy.tuned == 1.0
    assert report.fixed == round(8 * (1 - accuracy.base)) > 0
    row = report.changed[0]
    assert (row.expected, row.tuned, row.change) == (COLOURS[row.row - 1], COLOURS[row.row - 1], "fixed")
    assert row.base == OTHERS[row.row - 1]
    assert row.prompt == f"Which colour has number {row.row}?"
    assert codes(report) == set()


def test_a_model_that_prefers_the_rejected_answers_is_worse_than_its_base(tmp_path: Path, knowing: Path) -> None:
    swapped = [pair(row, wrong, right) for row, right, wrong in zip(ROWS, COLOURS, OTHERS, strict=True)]
    report = evaluate(run_of("dpo", tmp_path, knowing, swapped), Evaluation(regression=False))
    assert comparison(report, "reward_accuracy").tuned == 0.0
    assert "E003" in codes(report)


def test_a_run_that_changed_nothing_is_no_better(tmp_path: Path) -> None:
    report = evaluate(run_of("dpo", tmp_path, SMALL, PAIRS), Evaluation(regression=False))
    assert [one.metric for one in report.comparisons] == ["reward_margin", "preference_accuracy", "chosen_loss"]
    assert (report.primary, codes(report)) == ("reward_margin", {"E002"})


def test_chosen_answers_that_lost_likelihood_are_told(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_of("dpo", tmp_path, SMALL, PAIRS, base=knowing), Evaluation(regression=False))
    found = next(one for one in report.findings if one.code == "E009")
    chosen = comparison(report, "chosen_loss")
    assert chosen.tuned > chosen.base
    assert found.what.startswith("The loss of chosen answers rose from")


@pytest.mark.parametrize(("tuned", "told"), [(1.09, False), (1.11, True)])
def test_a_little_likelihood_lost_is_not_told(tuned: float, told: bool) -> None:
    losses = compare_losses([1.0] * 8, [tuned] * 8, [1] * 8, "chosen_loss")
    assert losses.significant
    assert bool(less_likely(losses, "chosen", "test", ["sigmoid"])) is told


@pytest.mark.parametrize(
    ("trained_with", "fix"),
    [
        (["sigmoid"], "Hold the good answers: `training: {loss_type: [sigmoid, sft]}`; or"),
        (["ipo", "robust"], "Hold the good answers: `training: {loss_type: [ipo, robust, sft]}`; or"),
        (["sigmoid", "sft"], "Give the sft loss more weight: `training: {loss_weights: [...]}`; or"),
        ([], "Hold the good answers: dpo with `training: {loss_type: [sigmoid, sft]}`; or"),
    ],
)
def test_e009_advises_what_the_run_has_not_done(trained_with: list[str], fix: str) -> None:
    (found,) = less_likely(compare_losses([1.0] * 8, [2.0] * 8, [1] * 8, "chosen_loss"), "chosen", "test", trained_with)
    assert found.fix.startswith(fix)


def test_e009_knows_the_run_s_losses(tmp_path: Path) -> None:
    folder = run_of("dpo", tmp_path, SMALL, PAIRS, training={"loss_type": ["sigmoid", "sft"]})
    plan = Plan.load(folder)
    _, rows = held_out(folder, plan, None)
    given = Given(rows, "test", plan, load_tokenizer(SMALL), Evaluation(regression=False), "cpu")
    (measure,) = prepare(given).measures
    assert isinstance(measure, Preference)
    assert measure.losses == ["sigmoid", "sft"]


def test_prompts_that_fill_the_length_are_left_out_and_counted(tmp_path: Path, halfway: Path) -> None:
    long = pair({"prompt": [{"role": "user", "content": "colour " * 200}]}, "red", "blue")
    short = run_of("dpo", tmp_path, halfway, [long, *PAIRS], training={"max_length": 100})
    report = evaluate(short, Evaluation(regression=False))
    assert (report.rows, comparison(report, "reward_margin").rows) == (9, 8)
    assert [found.what for found in report.findings if found.code == "E011"] == [
        "1 of 9 rows can't be measured within max_length 100."
    ]


def test_one_kind_of_label_has_no_margin(tmp_path: Path, halfway: Path) -> None:
    report = evaluate(run_of("kto", tmp_path, halfway, MARKED[::2]), Evaluation(regression=False))
    assert report.comparisons == []
    assert codes(report) == {"E012"}


def test_longer_answers_that_win_are_told(tmp_path: Path, knowing: Path) -> None:
    # A model that forgot the short answers finds, beside its base, the long ones likelier.
    long = [f"{colour} {'and ' * 12}so" for colour in COLOURS]
    mixed = [
        pair(row, *sides)
        for row, one, other in zip(ROWS, COLOURS, long, strict=True)
        for sides in ((one, other), (other, one))
    ]
    report = evaluate(run_of("dpo", tmp_path, SMALL, mixed, base=knowing), Evaluation(regression=False))
    assert "E013" in codes(report)


def rewards(folder: Path, text: str) -> str:
    file = folder / "own.py"
    file.write_text(text)
    return f"{file}:score"


def test_answers_are_paid_by_the_recipe_s_rewards(tmp_path: Path, knowing: Path) -> None:
    own = rewards(
        tmp_path,
        "def score(prompts, completions, completion_ids, reference, **kwargs):\n"
        "    assert len(completion_ids) == len(reference) == len(prompts)\n"
        "    assert all(ids[-1] == 2 or len(ids) == 16 for ids in completion_ids)\n"
        "    said = [completion[0]['content'].strip() for completion in completions]\n"
        "    return [0.5 if text == right else None for text, right in zip(said, reference)]\n",
    )
    recipe = {"rewards": ["exact_match", {"name": own, "weight": 2.0}]}
    report = evaluate(run_of("grpo", tmp_path, knowing, ASKED, recipe=recipe), Evaluation(regression=False))
    paid = comparison(report, "reward")
    assert (paid.base, paid.tuned, paid.rows) == (0.0, 2.0, 8)
    assert paid.p_value == 2 * 0.5**8
    assert report.primary == "reward"
    assert comparison(report, "reward: exact_match").tuned == 1.0
    # The function has no opinion on a base that is never right.
    assert {one.metric for one in report.comparisons} == {"reward", "reward: exact_match"}
    assert (report.max_new_tokens, report.tuned.stop_rate) == (16, 1.0)
    assert codes(report) == set()


def test_exact_match_of_rewarded_answers_is_there_for_the_asking(tmp_path: Path, knowing: Path) -> None:
    own = rewards(
        tmp_path, "def score(completions, **kwargs):\n    return [len(c[0]['content']) for c in completions]\n"
    )
    folder = run_of("grpo", tmp_path, knowing, ASKED, recipe={"rewards": own})
    report = evaluate(folder, Evaluation(regression=False, tasks=["reward", "exact_match"]))
    assert comparison(report, "exact_match").tuned == 1.0
    assert report.fixed == 8
    without = [{"prompt": row["prompt"]} for row in ASKED]
    (tmp_path / "model").unlink()
    report = evaluate(run_of("grpo", tmp_path, knowing, without, recipe={"rewards": own}),
                      Evaluation(regression=False, tasks=["reward", "exact_match"]))  # fmt: skip
    assert "E005" in codes(report)
    assert [one.metric for one in report.comparisons] == ["reward"]


def test_a_reward_that_pays_all_alike_is_told(tmp_path: Path, knowing: Path) -> None:
    own = rewards(tmp_path, "def score(completions, **kwargs):\n    return [0.25] * len(completions)\n")
    report = evaluate(run_of("grpo", tmp_path, knowing, ASKED, recipe={"rewards": own}), Evaluation(regression=False))
    assert codes(report) == {"E010", "E002"}
    assert next(one.what for one in report.findings if one.code == "E010") == (
        "All 8 answers of both models are rewarded with 0.25."
    )


def test_a_coroutine_is_awaited(tmp_path: Path, knowing: Path) -> None:
    own = rewards(
        tmp_path,
        "import asyncio\nasync def score(completions, reference, **kwargs):\n    await asyncio.sleep(0)\n"
        "    return [float(r in c[0]['content']) for c, r in zip(completions, reference)]\n",
    )
    report = evaluate(run_of("grpo", tmp_path, knowing, ASKED, recipe={"rewards": own}), Evaluation(regression=False))
    assert comparison(report, "reward").tuned == 1.0


def test_a_reward_that_fails_ends_the_evaluation_with_its_reason(tmp_path: Path, knowing: Path) -> None:
    own = rewards(tmp_path, "def score(completions, **kwargs):\n    return [float('nan')] * len(completions)\n")
    with pytest.raises(FindingsError, match="R038"):
        evaluate(run_of("grpo", tmp_path, knowing, ASKED, recipe={"rewards": own}), Evaluation(regression=False))


def test_a_reward_model_scores_answers_as_it_scores_pairs(tmp_path: Path, knowing: Path, scorer: Path) -> None:
    report = evaluate(
        run_of("grpo", tmp_path, knowing, ASKED, recipe={"rewards": {"model": str(scorer)}}),
        Evaluation(regression=False),
    )
    model, tokenizer = load_model(scorer, head="score", dtype="float32"), load_tokenizer(scorer)
    scores = []
    for row in PAIRS:
        ids = tokenizer.apply_chat_template(row["prompt"] + row["chosen"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(float(model(ids).logits[0, 0]))
    # The tuned model's answers are the pairs' chosen ones.
    assert comparison(report, "reward").tuned == pytest.approx(sum(scores) / 8, rel=1e-4)


def test_running_text_is_judged_by_its_perplexity(tmp_path: Path, knowing: Path) -> None:
    rows = [{"text": f"the colour is {colour}"} for colour in COLOURS]
    report = evaluate(run_of("clm", tmp_path, knowing, rows, loss_on="all"), Evaluation(regression=False))
    assert report.primary == "perplexity"
    loss, perplexity, _ = report.comparisons
    assert perplexity.tuned == pytest.approx(math.exp(loss.tuned))
    assert "E005" not in codes(report)


def test_a_broken_model_prefers_nothing(tmp_path: Path) -> None:
    model = load_model(SMALL, dtype="float32")
    model.get_input_embeddings().weight.data.fill_(math.nan)
    model.save_pretrained(tmp_path / "broken")
    load_tokenizer(SMALL).save_pretrained(tmp_path / "broken")
    for method, rows in (("dpo", PAIRS), ("kto", MARKED)):
        (tmp_path / method).mkdir()
        report = evaluate(run_of(method, tmp_path / method, tmp_path / "broken", rows), Evaluation(regression=False))
        assert report.comparisons == []
        assert codes(report) == {"E007"}
        assert "log-probability of the tuned model" in report.findings[0].what


def test_a_task_of_another_method_is_a_usage_error(tmp_path: Path, halfway: Path) -> None:
    with pytest.raises(UsageError, match="can't be evaluated by margin") as raised:
        evaluate(run_of("dpo", tmp_path, halfway, PAIRS), Evaluation(regression=False, tasks=["margin"]))
    assert "tasks: [preference]" in raised.value.fix


def test_exact_match_of_a_preference_run_expects_the_chosen_answer(tmp_path: Path, knowing: Path) -> None:
    folder = run_of("dpo", tmp_path, knowing, PAIRS)
    report = evaluate(folder, Evaluation(regression=False, tasks=["preference", "exact_match"]))
    assert (comparison(report, "exact_match").tuned, report.primary) == (1.0, "reward_accuracy")

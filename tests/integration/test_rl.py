"""grpo and rloo, trained for real: rewards of every kind, what ends a run, and that it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.support.runs import SMALL
from tunesmith import pipeline
from tunesmith.demo import task
from tunesmith.errors import TunesmithError, UsageError
from tunesmith.models.load import load_model
from tunesmith.models.reward import load_reward_model
from tunesmith.recipe import build_recipe
from tunesmith.records import Plan, RunRecord
from tunesmith.rules import FindingsError
from tunesmith.track.events import read_events
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer
from tunesmith.train.methods.rl import _as_dataset
from tunesmith.train.worker import Worker

NOTHING = {"report_to": "none", "eval_strategy": "no", "logging_steps": 1}
FEW = {
    **NOTHING,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "max_completion_length": 12,
    "max_steps": 2,
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def orders(count: int) -> list[dict[str, Any]]:
    """Prompts of the demo's task with their right answers, and a column of their own."""
    rows = task.rows("train", count)
    return [
        {"prompt": row["prompt"], "reference": row["completion"][0]["content"], "level": n}
        for n, row in enumerate(rows)
    ]


def prepared(folder: Path, rows: list[dict[str, Any]], name: str = "run", **keys: Any) -> Path:
    """A run folder of the built-in model, ready to be trained."""
    values = {"model": "builtin:small", "method": "grpo", "adapter": {"kind": "none"}, "training": FEW, **keys}
    values["data"] = {"train": write(folder / f"{name}.jsonl", rows), "eval": 0}
    return pipeline.prepare_run(build_recipe(values, folder=folder), folder / name)


def trained(run: Path) -> RunRecord:
    """The record of a run after its worker."""
    worker = Worker(run)
    assert worker.run() == 0
    worker.log.close()
    return RunRecord.load(run)


def logged(run: Path, name: str) -> list[float]:
    return [event.data[name] for event in read_events(run) if event.kind == "log"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.sampled_from(['{"a": 1}', "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(JSON, min_size=1, max_size=4), st.booleans())
def test_rewards_see_columns_exactly_as_the_rows_have_them(values: list[Any], chat: bool) -> None:
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "c"}] if chat else "a"
    rows = [{"prompt": prompt, "own": value, "reference": '{"a": 1}'} for value in values]
    assert list(_as_dataset(rows)) == rows
    assert _as_dataset([*rows, {"prompt": prompt}])[len(rows)] == {"prompt": prompt, "own": None, "reference": None}


@pytest.mark.slow
def test_a_function_of_the_user_s_weights_and_columns(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "async def liked(completions, level, factor, log_metric, trainer_state, **_):\n"
        "    log_metric('highest', max(level))\n"
        "    return [factor * len(one[0]['content']) if n else None for n, one in enumerate(completions)]\n"
    )
    rewards = [
        {"name": "mine.py:liked", "arguments": {"factor": 2}, "weight": 0.5},
        {"name": "length", "arguments": {"min": 12}},
        {"name": "json_fields", "weight": 0.0},
    ]
    run = prepared(tmp_path, orders(16), method="rloo", adapter={"kind": "lora", "r": 4}, rewards=rewards)
    record = trained(run)
    assert (record.status, record.step) == ("done", 2)
    assert (run / "model" / "adapter_model.safetensors").exists()
    assert max(logged(run, "highest")) <= 15
    liked, length = logged(run, "rewards/liked/mean"), logged(run, "rewards/length/mean")
    assert length == pytest.approx([1.0, 1.0])
    # The first answer of each batch has no opinion of the first reward, and only the others'.
    expected = [0.5 * one * 7 / 8 + 1.0 for one in liked]
    assert logged(run, "reward") == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_r038_a_reward_that_fails_while_training_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def liked(completions, trainer_state, **_):\n    nothing = float('nan')\n"
        "    return [nothing if trainer_state.global_step else float(len(one[0]['content'])) for one in completions]\n"
    )
    worker = Worker(prepared(tmp_path, orders(16), rewards="mine.py:liked"))
    with pytest.raises(FindingsError) as failure:
        worker.run()
    worker.fail(failure.value)
    worker.log.close()
    record = RunRecord.load(worker.folder)
    assert (record.status, failure.value.exit_code) == ("failed", 1)
    (one,) = [found for found in record.findings if found.code == "R038"]
    assert one.what.endswith("called at step 1, gives a number that isn't finite.")
    assert not (worker.folder / "model").exists()


def test_what_fails_before_training_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="P050"):
        prepared(tmp_path, orders(16))
    (tmp_path / "mine.py").write_text("def liked(answers):\n    return answers\n")
    with pytest.raises(FindingsError, match="P018"):
        prepared(tmp_path, orders(16), rewards="mine.py:liked")
    with pytest.raises(FindingsError, match="P053"):
        prepared(tmp_path, orders(16), rewards={"model": "builtin:small"})
    with pytest.raises(TunesmithError, match="D004"):
        prepared(tmp_path, [{"text": "a"}, {"text": "b"}], rewards="repetition")
    assert not (tmp_path / "run").exists()


def test_the_reference_is_loaded_as_planned(tmp_path: Path) -> None:
    training = {**FEW, "beta": 0.1}
    run = prepared(tmp_path, orders(16), rewards="json_fields", dtype="bfloat16", training=training)
    plan = Plan.load(run)
    trainer = build_trainer(Job(plan, run))
    assert str(trainer.ref_model.dtype) == str(trainer.model.dtype) == "torch.bfloat16"
    assert trainer.args.model_init_kwargs["revision"] == plan.model.revision
    assert trainer.args.reward_weights == [1.0]


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    keys = {"rewards": {"name": "length", "arguments": {"max": 3, "unit": "characters"}}}
    training = {**FEW, "max_steps": 4, "learning_rate": 1e-2, "save_steps": 1}
    undisturbed = prepared(tmp_path, orders(16), "undisturbed", training=training, **keys)
    trained(undisturbed)
    run = prepared(tmp_path, orders(16), "stopped", training=training, **keys)
    worker = Worker(run)
    worker.update = _stopping_at(worker, 2)  # type: ignore[method-assign]
    assert worker.run() == 130
    worker.log.close()
    assert trained(run).resumed_from == [2]
    assert weights(run) == weights(undisturbed)
    assert logged(run, "reward")[-2:] == logged(undisturbed, "reward")[-2:]


def _stopping_at(worker: Worker, step: int) -> Callable[[dict[str, Any]], None]:
    update = worker.update

    def stopping(changes: dict[str, Any]) -> None:
        update(changes)
        worker.stop.asked = worker.stop.asked or changes.get("step") == step

    return stopping


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_model_earns_more_reward(tmp_path: Path, method: str) -> None:
    """The share of capitals that it writes: hot sampling finds them, since the base writes few."""
    (tmp_path / "mine.py").write_text(
        "def capitals(completions, **_):\n    texts = [one[0]['content'] for one in completions]\n"
        "    return [sum(letter.isupper() for letter in text) / max(1, len(text)) for text in texts]\n"
    )
    hot = {"temperature": 2.0, "learning_rate": 3e-3, "warmup_steps": 0, "max_steps": 12}
    training = {**FEW, "per_device_train_batch_size": 32, "num_generations": 8, **hot}
    run = prepared(tmp_path, orders(64), method=method, rewards="mine.py:capitals", training=training)
    trained(run)
    reward = logged(run, "reward")
    assert reward[-1] > 2 * reward[0]


def pairs(count: int, *, chat: bool) -> list[dict[str, Any]]:
    """Right orders against cut ones."""
    rows = []
    for row in task.rows("train", count):
        asked, right = row["prompt"], row["completion"]
        wrong = [{**right[0], "content": right[0]["content"][:20]}]
        texts = {"prompt": asked[0]["content"], "chosen": right[0]["content"], "rejected": wrong[0]["content"]}
        rows.append({"prompt": asked, "chosen": right, "rejected": wrong} if chat else texts)
    return rows


def answered(rows: list[dict[str, Any]], side: str) -> dict[str, Any]:
    return {"prompts": [row["prompt"] for row in rows], "completions": [row[side] for row in rows]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "lora"])
def test_a_reward_run_is_a_reward(tmp_path: Path, kind: str) -> None:
    """It scores exactly as it was trained to, prefers what it was shown, and grpo takes its run's folder."""
    training = {**NOTHING, "max_steps": 12, "learning_rate": 1e-3, "per_device_train_batch_size": 8}
    judge = prepared(
        tmp_path, pairs(64, chat=True), "judge", method="reward", adapter={"kind": kind}, training=training
    )
    trained(judge)
    model = load_reward_model(str(judge))
    rows = pairs(80, chat=True)[64:]
    chosen, rejected = model(**answered(rows, "chosen")), model(**answered(rows, "rejected"))
    assert sum(better > worse for better, worse in zip(chosen, rejected, strict=True)) >= 14
    assert model(**answered(rows[:1], "chosen")) == pytest.approx(chosen[:1], abs=1e-4)

    run = prepared(tmp_path, orders(16), rewards=[{"model": "judge", "weight": 2.0}, "json_fields"])
    assert trained(run).status == "done"
    scores = [
        2 * judged + fields
        for judged, fields in zip(
            logged(run, "rewards/judge/mean"), logged(run, "rewards/json_fields/mean"), strict=True
        )
    ]
    assert logged(run, "reward") == pytest.approx(scores, rel=1e-4)


def saved(folder: Path, kind: Any, *, chat: bool, **keys: Any) -> str:
    """The built-in model as a folder; without chat its tokenizer has no template, and begins texts with a token."""
    kind.from_pretrained(SMALL, **keys).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    if not chat:
        tokenizer.chat_template = None
        first = tokenizer.convert_ids_to_tokens(0)
        begin = processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
        tokenizer.backend_tokenizer.post_processor = begin
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_reads_a_row_as_it_was_trained_on(tmp_path: Path, chat: bool) -> None:
    base = saved(tmp_path / "base", AutoModelForCausalLM, chat=chat)
    judge = saved(tmp_path / "judge", AutoModelForSequenceClassification, chat=chat, num_labels=1)
    rows = pairs(16, chat=chat)
    run = prepared(tmp_path, rows, model=base, method="reward", training={**NOTHING, "max_steps": 1})
    model = load_reward_model(judge)
    for row, ids in zip(rows, build_trainer(Job(Plan.load(run), run)).train_dataset, strict=True):
        assert model._ids(row["prompt"], row["chosen"], None) == ids["chosen_ids"]
        assert model._ids(row["prompt"], row["rejected"], None) == ids["rejected_ids"]


def test_an_adapter_that_writes_and_one_without_a_head_are_no_reward_models(tmp_path: Path) -> None:
    for task_type, what in (("CAUSAL_LM", "trained to write"), ("SEQ_CLS", "has no head")):
        base = load_model(SMALL)
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        folder = tmp_path / task_type
        adapted = get_peft_model(base, config)
        adapted.peft_config["default"].base_model_name_or_path = str(SMALL)
        adapted.save_pretrained(folder)
        settings_file = folder / "adapter_config.json"
        told = json.loads(settings_file.read_text())
        settings_file.write_text(json.dumps({**told, "task_type": task_type}))
        with pytest.raises(UsageError, match="no reward model") as refusal:
            load_reward_model(str(folder))
        assert what in refusal.value.why

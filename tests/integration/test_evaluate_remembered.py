"""Answers of loaded models that are kept: when one is taken from the file, and when the model is asked again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.support.conversing import Scripted
from tests.support.runs import SMALL
from tunesmith.evaluate.conversations.remembered import Remembered, remembered
from tunesmith.evaluate.kept import Kept
from tunesmith.evaluate.rows import Question
from tunesmith.evaluate.subject import Drawing, Local
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import silent

DRAWING = Drawing(max_new_tokens=4)


def question(number: int, text: str = "Which colour has number {}?") -> Question:
    asked = text.format(number)
    return Question(number, asked, None, [{"role": "user", "content": asked}])


QUESTIONS = [question(number) for number in range(5)]


@pytest.fixture
def model() -> Local:
    """The built-in model with a LoRA adapter that isn't zero, two questions at once."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(load_model(SMALL, dtype="float32"), config).eval()
    return Local("base", adapted, load_tokenizer(SMALL), batch_size=2)


def generated(subject: Local, file: Path, questions: Sequence[Question] = QUESTIONS, drawing: Drawing = DRAWING) -> int:
    """How many questions the model itself is asked; the answers are the model's own."""
    asked = []
    one = Remembered(subject, Kept(file))
    answers = one.answers(questions, drawing, lambda label, done, total: asked.append((done, total)))
    assert answers == subject.answers(questions, drawing, silent)
    return sum(total or 0 for done, total in asked if done == total)


def test_what_was_answered_is_taken_from_the_file(tmp_path: Path, model: Local) -> None:
    file = tmp_path / "kept.jsonl"
    assert generated(model, file) == 5
    assert generated(model, file) == 0
    assert generated(model, file, [*QUESTIONS, question(7)]) == 1


def test_what_is_not_worth_keeping_is_known_until_the_end_and_not_on_disk(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl", worth=lambda value: value == "good")
    for value in ("good", "bad"):
        kept.put(value, value)
    assert (kept.get("good"), kept.get("bad")) == ("good", "bad")
    again = Kept(tmp_path / "kept.jsonl")
    assert (again.get("good"), again.get("bad")) == ("good", None)


def test_answers_are_kept_batch_by_batch(tmp_path: Path, model: Local) -> None:
    batches = []

    def cut_off(label: str, done: int, total: int | None) -> None:
        batches.append(done)
        if len(batches) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Remembered(model, Kept(tmp_path / "kept.jsonl")).answers(QUESTIONS, DRAWING, cut_off)
    assert generated(model, tmp_path / "kept.jsonl") == 1


def without_adapter(model: Local) -> Local:
    model.model.base_model.disable_adapter_layers()
    return model


def other_weights(model: Local) -> Local:
    with torch.no_grad():
        next(weight for name, weight in model.model.named_parameters() if "lora_B" in name)[0, 0] += 1
    return model


def other_stop(model: Local) -> Local:
    model.model.generation_config.eos_token_id = [5, 6]
    return model


def other_template(model: Local) -> Local:
    model.tokenizer.chat_template = "{{ messages[0]['content'] }}?"
    return model


@pytest.mark.parametrize(
    "change",
    [
        without_adapter,
        other_weights,
        other_stop,
        other_template,
        lambda model: replace(model, name="tuned"),
        lambda model: replace(model, model=model.model.to(torch.bfloat16)),
    ],
)
def test_a_model_that_is_another_is_asked_anew(tmp_path: Path, model: Local, change: Callable[[Local], Local]) -> None:
    assert generated(model, tmp_path / "kept.jsonl") == 5
    changed = change(model)
    assert Remembered(changed, Kept(tmp_path / "kept.jsonl")).answers(QUESTIONS, DRAWING, silent)
    assert len((tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()) == 10


@pytest.mark.parametrize(
    ("changes", "anew"), [({"max_new_tokens": 3}, 5), ({"temperature": 0.5, "seed": 1}, 5), ({"seed": 1}, 0)]
)
def test_an_answer_that_is_drawn_otherwise_is_another(
    tmp_path: Path, model: Local, changes: dict[str, Any], anew: int
) -> None:
    generated(model, tmp_path / "kept.jsonl")
    assert generated(model, tmp_path / "kept.jsonl", drawing=replace(DRAWING, **changes)) == anew


@pytest.mark.parametrize(("temperature", "asked"), [(0.0, 1), (1.0, 2)])
def test_equal_questions_are_answered_once_unless_answers_are_drawn(
    tmp_path: Path, model: Local, temperature: float, asked: int
) -> None:
    questions = [question(number, "Which?") for number in (1, 2)]
    assert generated(model, tmp_path / "kept.jsonl", questions, replace(DRAWING, temperature=temperature)) == asked


def test_only_loaded_models_are_remembered(tmp_path: Path, model: Local) -> None:
    kept = Kept(tmp_path / "kept.jsonl")
    server = Scripted("base", lambda question: "Yes")
    assert remembered(server, kept) is server
    assert remembered(model, kept) == Remembered(model, kept)

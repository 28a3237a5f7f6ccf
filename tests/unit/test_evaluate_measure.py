"""One model's loss and answers, against the model called row by row."""

import logging
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import GenerationConfig

from tests.support.runs import SMALL
from tunesmith.evaluate import measure
from tunesmith.evaluate.measure import answers_of, row_losses, sequence_scores
from tunesmith.evaluate.rows import Encoded, Question, encode_question
from tunesmith.models.generate import stop_ids
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import silent

ROWS = [
    Encoded([1, 40, 50, 60, 70, 2], [False, False, False, True, True, True]),
    Encoded([1, 90, 33], [True, False, True]),
    Encoded([1, 45, 200, 300, 310, 320, 330, 2, 21], [False, True, True, False, False, True, True, True, False]),
    Encoded([7, 8], [True, True]),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(SMALL)


@pytest.fixture
def model() -> Any:
    return load_model(SMALL, dtype="float32").eval()


def loss_alone(model: Any, row: Encoded) -> float:
    with torch.no_grad():
        log_probs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    return -sum(float(log_probs[position - 1, row.ids[position]]) for position in row.positions)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_row_losses_do_not_depend_on_the_batch(model: Any, batch_size: int) -> None:
    losses = row_losses(model, ROWS, batch_size=batch_size, label="loss", progress=silent)
    assert losses == pytest.approx([loss_alone(model, row) for row in ROWS], rel=1e-5)


def test_row_losses_of_a_model_that_always_makes_all_logits(model: Any) -> None:
    expected = [loss_alone(model, row) for row in ROWS]
    forward = model.forward
    model.forward = lambda input_ids, attention_mask, use_cache: forward(input_ids, attention_mask, use_cache=use_cache)
    losses = row_losses(model, ROWS, batch_size=4, label="loss", progress=silent)
    assert losses == pytest.approx(expected, rel=1e-5)


def test_the_softmax_is_taken_in_float32_whatever_the_model_s_dtype() -> None:
    model = load_model(SMALL, dtype="bfloat16")
    with torch.no_grad():
        logits = model(torch.tensor([ROWS[0].ids])).logits[0]
    assert logits.dtype == torch.bfloat16
    log_probs = logits.float().log_softmax(-1)
    expected = -sum(float(log_probs[position - 1, ROWS[0].ids[position]]) for position in ROWS[0].positions)
    (loss,) = row_losses(model, ROWS[:1], batch_size=1, label="loss", progress=silent)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_logits_are_made_only_where_a_row_is_trained(model: Any) -> None:
    sizes = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[:2])))
    row_losses(model, ROWS[:1], batch_size=4, label="loss", progress=silent)
    assert sizes == [(1, 3)]


def test_batches_keep_within_the_budget_and_report_progress(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = model.config.vocab_size
    monkeypatch.setattr(measure, "LOGITS_BUDGET", 12 * vocabulary)
    seen = []
    row_losses(model, ROWS, batch_size=8, label="loss", progress=lambda *call: seen.append(call))
    # Longest first: 9 tokens alone, then two rows of at most 6, then what is left.
    assert seen == [("loss", 1, 4), ("loss", 3, 4), ("loss", 4, 4)]


def questions(texts: list[str]) -> list[Question]:
    return [Question(number, text, "", text) for number, text in enumerate(texts, start=1)]


TEXTS = ["Hello, my name is", "Oslo", '{"customer": "Maria Lopez", "city": "Oslo", "item":']


def test_answers_in_a_padded_batch_are_those_of_each_question_alone(model: Any, tokenizer: Any) -> None:
    asked = questions(TEXTS)

    def answers(batch_size: int) -> list[str]:
        found = answers_of(
            model, tokenizer, asked, max_new_tokens=6, batch_size=batch_size, label="answers", progress=silent
        )
        return [answer.text for answer in found]

    alone = []
    for question in asked:
        ids = list(encode_question(question, tokenizer))
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        alone.append(tokenizer.decode(ids[len(encode_question(question, tokenizer)) :], skip_special_tokens=True))
    assert answers(3) == alone
    assert answers(1) == alone


def test_an_answer_ends_at_any_stop_token_and_the_model_s_own_sampling_settings_are_not_used(
    model: Any, tokenizer: Any
) -> None:
    asked = questions(TEXTS[2:])
    plain = answers_of(model, tokenizer, asked, max_new_tokens=4, batch_size=1, label="", progress=silent)[0]
    first = int(model(torch.tensor([encode_question(asked[0], tokenizer)])).logits[0, -1].argmax())
    assert plain.text
    model.generation_config.update(eos_token_id=[2, 5], repetition_penalty=50.0, do_sample=True, temperature=9.0)
    again = answers_of(model, tokenizer, asked, max_new_tokens=4, batch_size=1, label="", progress=silent)[0]
    assert again == plain
    model.generation_config.update(eos_token_id=[first])
    stopped = answers_of(model, tokenizer, asked, max_new_tokens=4, batch_size=1, label="", progress=silent)[0]
    assert (stopped.text, stopped.stopped, stopped.ids) == ("", True, [first])


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]),
    ],
    ids=["prompt", "prefix", "lora"],
)
@pytest.mark.parametrize("bare", [False, True], ids=["tuned", "base"])
def test_answers_under_an_adapter_are_greedy_and_as_long_as_asked(
    model: Any, tokenizer: Any, config: Any, bare: bool
) -> None:
    asked = questions([*TEXTS, "Rome"])
    torch.manual_seed(3)
    tuned = get_peft_model(model, config).eval()
    own = GenerationConfig(do_sample=True, temperature=9.0, max_length=20, repetition_penalty=50.0, eos_token_id=2)
    model.generation_config = own

    def answers(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        found = answers_of(tuned, tokenizer, asked, max_new_tokens=58, batch_size=4, label="answers", progress=silent)
        return [answer.ids for answer in found]

    with tuned.disable_adapter() if bare else nullcontext():
        first = answers(0)
        assert answers(1) == first
        for question, answer in zip(asked, first, strict=True):
            ids = torch.tensor([encode_question(question, tokenizer)])
            for token in answer:
                assert token == int(tuned(ids, use_cache=False).logits[0, -1].argmax())
                ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert max(map(len, first)) > 20
    assert model.generation_config is own


def test_stop_ids_join_tokenizer_and_model(model: Any, tokenizer: Any) -> None:
    model.generation_config.eos_token_id = [9, 2]
    assert stop_ids(model, tokenizer) == [2, 9]
    model.generation_config.eos_token_id = 9
    assert stop_ids(model, tokenizer) == [2, 9]
    model.generation_config.eos_token_id = None
    assert stop_ids(model, tokenizer) == [2]


def test_losses_under_virtual_tokens_are_those_of_the_text(tokenizer: Any) -> None:
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    torch.manual_seed(0)
    for kind in (PromptTuningConfig, PrefixTuningConfig):
        tuned = get_peft_model(load_model(SMALL, dtype="float32"), kind(task_type="CAUSAL_LM", num_virtual_tokens=3))
        tuned.eval()
        expected = []
        for row in ROWS:
            with torch.no_grad():
                logits = tuned(torch.tensor([row.ids]), attention_mask=torch.ones(1, len(row.ids))).logits[0]
            log_probs = logits[-len(row.ids) :].log_softmax(-1)
            expected.append(-sum(float(log_probs[place - 1, row.ids[place]]) for place in row.positions))
        losses = row_losses(tuned, ROWS, batch_size=4, label="loss", progress=silent)
        assert losses == pytest.approx(expected, rel=1e-4)
        with tuned.disable_adapter():
            bare = row_losses(tuned, ROWS, batch_size=4, label="loss", progress=silent)
        assert bare == pytest.approx([loss_alone(load_model(SMALL, dtype="float32"), row) for row in ROWS], rel=1e-5)
        assert bare != pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_scores_do_not_depend_on_the_batch_and_are_those_of_the_last_token(tokenizer: Any, batch_size: int) -> None:
    torch.manual_seed(0)
    model = load_model(SMALL, head="score", dtype="float32").eval()
    seen: list[int] = []
    scores = sequence_scores(
        model,
        [row.ids for row in ROWS],
        pad=tokenizer.pad_token_id,
        batch_size=batch_size,
        label="scores",
        progress=lambda _label, done, _total: seen.append(done),
    )
    with torch.no_grad():
        last = [model.model(torch.tensor([row.ids])).last_hidden_state[0, -1] for row in ROWS]
        assert scores == pytest.approx([float(model.score(state)) for state in last], rel=1e-4)
    assert seen[-1] == len(ROWS)


def test_a_kernel_that_nothing_uses_is_not_told_to_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "why")
    log.warning("something else")
    assert caplog.messages == ["something else"]

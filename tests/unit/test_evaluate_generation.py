"""Answers in batches: the same as one by one, whatever leaves the batch, and drawn alike in any batch."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer

from tests.support.runs import SMALL
from tunesmith.evaluate import measure
from tunesmith.evaluate.measure import Answer, answers_of, row_losses
from tunesmith.evaluate.rows import Encoded, Question
from tunesmith.evaluate.subject import Drawing, Local, unanswered
from tunesmith.models import generate
from tunesmith.models.decoding import Drawn, RoomyLayer, roomy_cache
from tunesmith.models.generate import greedy, sampled
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import silent

PROMPTS = [[7, 8, 9, 10, 11], [20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130], [5, 6, 7], [200, 201, 202, 203]]
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gemma3_text": SIZES | {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "lfm2": SIZES | {"layer_types": ["conv", "full_attention"]},
    "rwkv": {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
}
LONG = 40
STOPS = list(range(3, 300, 20))
OFTEN = list(range(3, 300, 15))


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer(SMALL)


@pytest.fixture
def small() -> Any:
    return load_model(SMALL, dtype="float32").eval()


def random_model(family: str) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)  # so that answers don't turn in circles at once
    return model


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def ended(answer: list[int], stops: list[int]) -> list[int]:
    end = next((place for place, token in enumerate(answer) if token in stops), len(answer))
    return answer[: end + 1]


def alone(model: Any, prompt: list[int], stops: list[int]) -> list[int]:
    """The greedy answer by the definition: no cache, no batch."""
    ids = list(prompt)
    while len(ids) < len(prompt) + LONG and (ids == prompt or ids[-1] not in stops):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_answers_as_each_prompt_alone_though_some_rows_end_early(family: str) -> None:
    model = random_model(family)
    with torch.no_grad():
        stops = [alone(model, PROMPTS[0], [])[4]]
        expected = [alone(model, prompt, stops) for prompt in PROMPTS]
    output = greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=stops, pad=0).tolist()
    assert [ended(answer, stops) for answer in output] == expected
    assert len(expected[0]) <= 5 < max(map(len, expected)), "lengths differ, or nothing was tried"


def test_rows_that_have_ended_leave_the_batch() -> None:
    model = random_model("llama")
    whole = greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=[], pad=0).tolist()
    stop = whole[0][4]
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=[stop], pad=0)
    ends = [len(ended(answer, [stop])) for answer in whole]
    # Looked for every 16 tokens.
    expected = [sum(end > step // 16 * 16 for end in ends) for step in range(LONG)]
    assert sizes == [size for size in expected if size]
    assert min(sizes) < 4


def test_a_batch_in_which_all_rows_have_ended_is_done() -> None:
    model = random_model("llama")
    first = [answer[0] for answer in greedy(model, padded(PROMPTS), max_new_tokens=1, stops=[], pad=0).tolist()]
    output = greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=first, pad=0)
    assert output.tolist() == [[token] for token in first]


def test_time_that_is_up_cuts_all_answers() -> None:
    model = random_model("llama")
    model.lm_head.register_forward_hook(lambda module, inputs, output: time.sleep(0.02))
    began = time.monotonic()
    output = greedy(model, padded(PROMPTS), max_new_tokens=200, stops=[], pad=0, max_time=0.1)
    assert 1 <= output.shape[1] < 14, "not only every 16 tokens"
    output = greedy(model, padded(PROMPTS), max_new_tokens=200, stops=[], pad=0, max_time=0.5)
    assert output.shape[1] < 60
    assert time.monotonic() - began < 3


def test_a_roomy_layer_holds_what_a_dynamic_one_does_and_grows_beyond_its_room() -> None:
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(7), DynamicLayer()
    for tokens in (4, 1, 1, 3, 1):
        keys, values = torch.randn(3, 2, tokens, 5), torch.randn(3, 2, tokens, 6)
        for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, other)
    assert ours.get_seq_length() == 10
    going = torch.tensor([True, False, True])
    ours.batch_select_indices(going)
    theirs.batch_select_indices(going)
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


def test_room_is_made_once() -> None:
    layer = RoomyLayer(8)
    layer.update(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))
    place = layer.keys.data_ptr()
    layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert layer.keys.data_ptr() == place
    assert layer.keys[0, 0].tolist() == [[0, 0]] * 4 + [[1, 1]]


def test_models_that_keep_other_states_keep_their_own_cache() -> None:
    assert roomy_cache(AutoConfig.for_model("lfm2", **FAMILIES["lfm2"]), 9) is None
    assert isinstance(roomy_cache(AutoConfig.for_model("llama", **SIZES), 9), DynamicCache)


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_keep_their_own_cache(config: Any, small: Any) -> None:
    assert generate._cache(small, 9) is not None
    tuned = get_peft_model(small, config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    assert generate._cache(tuned, 9) is None


def test_a_batch_holds_so_many_tokens_of_questions_at_most(
    small: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Oslo", "Oslo is here", "Rome", "Lyon"]
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    monkeypatch.setattr(measure, "PROMPT_BUDGET", 2 * longest)
    seen: list[int] = []
    answers_of(
        small,
        tokenizer,
        asked(texts),
        max_new_tokens=1,
        batch_size=9,
        label="",
        progress=lambda label, done, total: seen.append(done),
    )
    assert seen[0] == 2
    assert seen[-1] == 4


def test_draws_follow_the_model_s_distribution() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -torch.inf]).expand(20_000, 5)
    drawn = Drawn(range(20_000), 1, 0.5)(torch.zeros(20_000, 1), logits).argmax(1)
    shares = torch.bincount(drawn, minlength=5) / 20_000
    expected = (logits[0] / 0.5).softmax(-1)
    assert shares[4] == 0
    assert shares.numpy() == pytest.approx(expected.numpy(), abs=4 * 0.5 / np.sqrt(20_000))


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_every_draw_is_a_token(logits: list[float], uniform: float) -> None:
    drawn = Drawn([0], 1, 1.0)
    drawn._uniform[0, 0] = uniform
    scores = drawn(torch.zeros(1, 1), torch.tensor([logits]))
    assert torch.isfinite(scores).sum() == 1
    cumulative = torch.tensor(logits, dtype=torch.float64).softmax(-1).cumsum(-1)
    token = int(scores.argmax())
    below = float(cumulative[token - 1]) if token else 0.0
    assert below <= uniform * float(cumulative[-1]) + 1e-9
    assert uniform * float(cumulative[-1]) < float(cumulative[token]) + 1e-9


def test_each_token_is_drawn_anew_and_never_one_that_cannot_be() -> None:
    drawn = Drawn([1], 8, 1.0)
    assert len({int(drawn(torch.zeros(1, 1), torch.zeros(1, 10_000)).argmax()) for _ in range(8)}) > 6
    rows = Drawn([0] * 20, 1, 1.0)
    torch.manual_seed(0)
    logits = torch.randn(20, 50_000)
    logits[:, :10] = logits[:, -10:] = -torch.inf
    for uniform, token in ((0.0, 10), (1 - 2**-53, 49_989)):  # sums of probabilities miss 1 by some 1e-15
        rows._uniform, rows._step = torch.full((20, 1), uniform, dtype=torch.float64), 0
        assert rows(torch.zeros(20, 1), logits).argmax(1).tolist() == [token] * 20


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_row_draws_alike_in_any_batch(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_AT_ONCE", 4)
    model, seeds = random_model(family), [11, 12, 13, 14]

    def drawn(rows: list[int]) -> list[list[int]]:
        output = sampled(
            model,
            padded([PROMPTS[row] for row in rows]),
            max_new_tokens=LONG,
            stops=OFTEN,
            pad=0,
            temperature=0.8,
            seeds=[seeds[row] for row in rows],
        )
        return [ended(answer, OFTEN) for answer in output.tolist()]

    together = drawn([0, 1, 2, 3])
    assert drawn([3, 1]) == [together[3], together[1]]
    assert drawn([2]) == [together[2]]
    lengths = [len(answer) for answer in together]
    assert min(lengths) <= 8 < max(lengths), "some rows leave before others go on"


def asked(texts: list[str], first: int = 1) -> list[Question]:
    return [Question(number, text, None, text) for number, text in enumerate(texts, start=first)]


def test_a_subject_draws_by_seed_and_number_of_the_question(small: Any, tokenizer: Any) -> None:
    subject = Local("tuned", small, tokenizer, 2)

    def answers(seed: int, first: int = 1, temperature: float = 1.5) -> list[str]:
        drawing = Drawing(12, temperature, seed)
        return [one.text for one in subject.answers(asked(["Oslo"] * 3, first), drawing, silent)]

    one = answers(0)
    assert len(set(one)) == 3, "equal questions draw anew"
    assert answers(0) == one
    assert answers(1) != one
    assert answers(0, first=2)[:2] == one[1:]
    assert len(set(answers(0, temperature=0.0))) == 1


def test_greedy_answers_need_no_seed_and_a_seed_fits_every_server() -> None:
    seeds = [Drawing(1, 0.5, seed).seed_of(asked(["a"])[0]) for seed in range(50)]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_answers_end_where_the_context_does(small: Any, tokenizer: Any) -> None:
    small.config.max_position_embeddings = 256
    small.generation_config.eos_token_id = tokenizer.eos_token_id = None
    texts = ["Oslo " * 120, "Oslo", "Oslo " * 200]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert lengths[0] < 256 < lengths[0] + LONG
    assert lengths[2] >= 256
    seen = []
    found = answers_of(
        small,
        tokenizer,
        asked(texts),
        max_new_tokens=LONG,
        batch_size=3,
        label="",
        progress=lambda label, done, total: seen.append((done, total)),
    )
    assert len(found[0].ids) == 256 - lengths[0]
    assert len(found[1].ids) == LONG
    assert found[2] == Answer("", False, [], f"its {lengths[2]} tokens fill the context of 256")
    assert seen[-1] == (2, 3)
    (said,) = unanswered("tuned", found, "data/test.jsonl")
    assert (said.code, said.where) == ("E015", "data/test.jsonl")
    assert said.what == f"1 of 3 questions got no answer from the tuned model: {found[2].refused}."
    assert unanswered("tuned", found[:2], "data/test.jsonl") == []


def test_the_most_frequent_reason_is_told() -> None:
    answers = [Answer("", False, [], why) for why in ("long", "rude", "long")]
    (said,) = unanswered("base", answers, "rows")
    assert "3 of 3" in said.what
    assert said.what.endswith("long.")


def test_options_of_one_token_take_one_pass(small: Any) -> None:
    question = [1, 40, 50, 60]
    options = [Encoded([*question, token], [False] * 4 + [True]) for token in (70, 80, 90)]
    longer = Encoded([*question, 70, 80], [False] * 4 + [True, True])
    other = Encoded([*question, 70], [False] * 3 + [True, True])
    rows = [options[0], longer, options[1], other, options[2]]
    sizes: list[int] = []
    hook = small.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    found = row_losses(small, rows, batch_size=8, label="", progress=silent)
    hook.remove()
    assert sizes == [3]
    apart = [row_losses(small, [row], batch_size=1, label="", progress=silent)[0] for row in rows]
    assert found == pytest.approx(apart, rel=1e-5)
    assert len({round(loss, 4) for loss in found}) == 5


def test_tokens_at_once_do_not_change_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    usual = greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=STOPS, pad=0).tolist()
    monkeypatch.setattr(generate, "_AT_ONCE", 3)
    again = greedy(model, padded(PROMPTS), max_new_tokens=LONG, stops=STOPS, pad=0).tolist()
    assert [ended(one, STOPS) for one in again] == [ended(one, STOPS) for one in usual]

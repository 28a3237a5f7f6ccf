"""The attention without padding: where rows lie, what is computed in them, and that they don't see each other."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.runs import SMALL
from tunesmith.errors import EnvironmentLacksError
from tunesmith.records import VARLEN
from tunesmith.train import attention
from tunesmith.train.attention import (
    Rows,
    attend,
    attend_one_by_one,
    packing_error,
    register,
    rounding,
    rows_from_positions,
    rows_of,
)

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    assert register() == register() == VARLEN


def positions_of(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


def ends_of(lengths: list[int]) -> list[int]:
    return [sum(lengths[:count]) for count in range(len(lengths) + 1)]


@given(LENGTHS)
def test_rows_are_found_by_their_positions(lengths: list[int]) -> None:
    found = rows_from_positions(positions_of(lengths))
    assert found.ends.tolist() == ends_of(lengths)
    assert found.ends.dtype == torch.int32
    assert found.longest == max(lengths)


@given(LENGTHS, st.integers(1, 5))
def test_rows_may_begin_at_any_position(lengths: list[int], offset: int) -> None:
    found = rows_from_positions(torch.cat([torch.arange(length) + offset * (1 + row % 2) * 20
                                           for row, length in enumerate(lengths)]))  # fmt: skip
    assert found.ends.tolist() == ends_of(lengths)


def test_what_the_collator_says_goes_before_positions() -> None:
    ends = torch.tensor([0, 2, 6], dtype=torch.int32)
    told = {"cu_seq_lens_q": ends, "max_length_q": 4, "position_ids": torch.arange(6)[None]}
    assert rows_of(1, 6, CPU, told) == Rows(ends, 4)
    assert rows_of(1, 6, CPU, {"position_ids": positions_of([2, 4])[None]}).ends.tolist() == [0, 2, 6]
    # Of a batch of several, and of positions that were cut to what a cache lacks, each row is one.
    for batch, tokens, positions in ((2, 3, torch.arange(3)[None]), (1, 3, torch.arange(9)[None])):
        assert rows_of(batch, tokens, CPU, {"position_ids": positions}).ends.tolist() == [
            row * tokens for row in range(batch + 1)
        ]


def by_hand(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float, window: int | None) -> Tensor:
    """Softmax over what each token may see, written out; shapes (tokens, heads, width)."""
    groups = query.shape[1] // key.shape[1]
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = torch.zeros_like(query)
    for token in range(len(query)):
        sees = [other for other in range(token + 1) if row[other] == row[token] and token - other < (window or 99)]
        for head in range(query.shape[1]):
            weights = (key[sees, head // groups] @ query[token, head] * scale).softmax(0)
            seen[token, head] = weights @ value[sees, head // groups]
    return seen


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.sampled_from([(1, 1), (4, 4), (4, 2), (4, 1)]), st.sampled_from([None, 1, 3, 50]))
def test_each_row_sees_itself_alone(lengths: list[int], heads: tuple[int, int], window: int | None) -> None:
    torch.manual_seed(sum(lengths))
    query, key, value = (torch.randn(sum(lengths), count, 8) for count in (heads[0], heads[1], heads[1]))
    rows = rows_from_positions(positions_of(lengths))
    expected = by_hand(query, key, value, lengths, 0.3, window)
    assert torch.allclose(attend_one_by_one(query, key, value, rows, 0.3, window), expected, atol=1e-5)


def test_the_kernel_of_a_gpu_is_given_rows_and_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def varlen_attn(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
        scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        asked.update(max_q=max_q, max_k=max_k, window=window_size, gqa=enable_gqa, scale=scale)
        window = None if window_size[0] < 0 else window_size[0] + 1
        assert cu_seq_q is cu_seq_k
        assert window_size[1] == 0  # nothing that comes later
        return attend_one_by_one(query, key, value, Rows(cu_seq_q, max_q), scale, window)

    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = varlen_attn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    attention._flash.cache_clear()
    lengths = [3, 9, 5]
    query, key, value = torch.randn(17, 4, 8), torch.randn(17, 2, 8), torch.randn(17, 2, 8)
    rows = rows_from_positions(positions_of(lengths))
    for window, given_window in ((None, (-1, 0)), (4, (3, 0)), (9, (-1, 0))):
        seen = attention._flash()(query, key, value, rows, 0.5, window)
        assert torch.allclose(seen, by_hand(query, key, value, lengths, 0.5, window), atol=1e-5)
        assert asked == {"max_q": 9, "max_k": 9, "window": given_window, "gqa": True, "scale": 0.5}
    attention._flash.cache_clear()


def test_an_older_torch_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = lambda query, key, value, is_causal=False: query  # type: ignore[attr-defined]
    for known in (module, None):
        attention._flash.cache_clear()
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", known)
        with pytest.raises(EnvironmentLacksError, match="variable-length attention"):
            attention._flash()
    attention._flash.cache_clear()
    assert attention.kernel_for(CPU) is attend_one_by_one


def test_the_installed_torch_has_the_kernel() -> None:
    attention._flash.cache_clear()
    assert attention.kernel_for(torch.device("cuda")).__name__ == "flash"


@pytest.mark.parametrize("unknown", [{"softcap": 50.0}, {"s_aux": torch.zeros(2)}, {"dropout": 0.1}])
def test_what_it_does_not_have_is_refused(unknown: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=next(iter(unknown))):
        attend(torch.nn.Identity(), states, states, states, None, **unknown)


def model_of(kind: str = "qwen3", attention: str = VARLEN, **more: Any) -> Any:
    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes, **more)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("window", [None, 4])
def test_padded_batches_and_generating_are_as_with_sdpa(window: int | None) -> None:
    more = {"head_dim": 16} if window is None else {"sliding_window": window}
    ours, theirs = (model_of("qwen3" if window is None else "mistral", name, **more) for name in (VARLEN, "sdpa"))
    ids = torch.randint(3, 128, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 6:] = mask[1, :3] = 0  # padding on either side
    kept = mask.bool()
    with torch.no_grad():
        one, other = (model(ids, attention_mask=mask).logits[kept] for model in (ours, theirs))
    assert torch.allclose(one, other, atol=1e-5)
    asked = {"attention_mask": mask[1:], "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert ours.generate(ids[1:], **asked).tolist() == theirs.generate(ids[1:], **asked).tolist()


def test_gradients_are_those_of_rows_alone() -> None:
    model = AutoModelForCausalLM.from_pretrained(SMALL, attn_implementation=VARLEN)
    rows = [torch.randint(3, 600, (length,)) for length in (5, 13, 2)]
    packed = attention._packed(5, 13, CPU)
    for ids, told in ((torch.cat(rows[:2]), packed), (rows[0], {}), (rows[1], {})):
        out = model(input_ids=ids[None], use_cache=False, **told).logits[0].log_softmax(-1)
        out.gather(1, ids[:, None]).sum().backward()
        if told:
            whole = {name: weight.grad.clone() for name, weight in model.named_parameters()}
            model.zero_grad()
    for name, weight in model.named_parameters():
        assert torch.allclose(whole[name], weight.grad, rtol=1e-3, atol=2e-4), name


def test_a_leak_shows_and_the_model_is_left_as_it_was() -> None:
    model = model_of(head_dim=16).train()
    assert abs(packing_error(model)) < rounding(torch.float32) / 3
    assert model.training
    assert model.config._attn_implementation == VARLEN
    # Without positions and lengths, rows run into each other.
    forward = model.model.forward
    told = ("position_ids", "cu_seq_lens_q", "max_length_q")
    model.model.forward = lambda **given: forward(**{name: it for name, it in given.items() if name not in told})
    assert packing_error(model) > 100 * rounding(torch.float32)

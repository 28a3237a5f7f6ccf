"""How far apart two next-token distributions are."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tunesmith.export.compare import agrees_on_best, divergence, divergence_from_best, greedy_stops, stop_tokens
from tunesmith.export.probes import Row

LOGITS = arrays("float32", (2, 3, 12), elements=st.floats(-8, 8, width=32))


def log_probabilities(logits: Any) -> torch.Tensor:
    return torch.log_softmax(torch.tensor(logits).double(), -1)


def best_of(distribution: torch.Tensor, count: int) -> dict[int, float]:
    values, ids = distribution.topk(count)
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def test_divergence_is_the_textbooks() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert divergence(p.log(), q.log()) == pytest.approx(expected, rel=1e-6)


@given(LOGITS)
def test_divergence_is_never_negative_and_zero_from_itself(logits: Any) -> None:
    p, q = log_probabilities(logits)
    assert divergence(p, q) >= 0
    assert divergence(p, p) == 0


@given(LOGITS, st.integers(1, 12))
def test_knowing_only_the_best_tokens_never_exaggerates(logits: Any, count: int) -> None:
    p, q = log_probabilities(logits)
    full = [divergence(p[[place]], q[[place]]) for place in range(3)]
    partial = [divergence_from_best(p[place], best_of(q[place], count)) for place in range(3)]
    assert all(less <= more + 1e-5 for less, more in zip(partial, full, strict=True))
    if count == 12:
        assert partial == pytest.approx(full, abs=1e-5)


def test_what_is_not_a_number_stays_so() -> None:
    p = torch.tensor([0.5, 0.5]).log()
    assert math.isnan(divergence(p[None], torch.full((1, 2), math.nan)))
    assert math.isnan(divergence_from_best(p, {0: math.nan, 1: math.nan}))


@pytest.mark.parametrize(("stored", "expected"), [(None, []), (7, [7]), ([7, 8], [7, 8])])
def test_stop_tokens_are_those_of_the_generation_settings(stored: Any, expected: list[int]) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=stored))
    assert stop_tokens(model) == expected


def test_a_model_without_stop_tokens_stops_nowhere() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    assert greedy_stops(model, [Row([1, 2], [1], 1, [1, 2])]) == []


@pytest.mark.parametrize(("gap", "agrees"), [(0.0, True), (0.009, True), (0.011, False), (2.0, False)])
def test_a_near_tie_is_no_disagreement(gap: float, agrees: bool) -> None:
    reference = torch.tensor([-3.0, -1.0, -1.0 - gap])
    assert agrees_on_best(reference, {2: -0.9, 1: -1.0}, tie=0.01) is agrees

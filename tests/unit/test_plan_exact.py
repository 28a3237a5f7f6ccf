"""The parts of the exact tier. That together they give what GPUs measured: contract/test_exact_peaks.py."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.runs import small_facts
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.plan.exact import Request, ask, exact_peak, measure_exact
from tunesmith.plan.exact.cuda import KERNELS, SCRATCH
from tunesmith.plan.exact.optimizers import stand_in
from tunesmith.plan.exact.quantised import NF4Linear, quantise
from tunesmith.plan.exact.storages import StorageTracker
from tunesmith.plan.memory import Step

aten = torch.ops.aten
STEP = Step(model=small_facts())
ANSWER = {
    "weights": 100,
    "gradients": 20,
    "optimizer": 40,
    "activations": 7,
    "phases": {"forward": 150, "backward": 180, "clip": 160, "optimizer": 170},
    "parameters": 50,
    "trained": 10,
    "seconds": 1.5,
    "rss": 5,
}


def test_a_storage_counts_once_rounded_up_until_it_dies() -> None:
    tracker = StorageTracker()
    with FakeTensorMode(), tracker:
        tracker.enter("one")
        first = torch.empty(100)
        view = first.view(10, 10)
        assert tracker.current == 512
        tracker.enter("two")
        second = first + 1
        assert tracker.current == 1024
        del first
        assert tracker.current == 1024  # the view still holds it
        del view
        assert tracker.current == 512
        tracker.enter("three")
        del second
    assert tracker.current == 0
    assert tracker.peaks == {"one": 512, "two": 1024, "three": 512}


def test_what_a_kernel_takes_and_frees_counts_for_the_peak_alone() -> None:
    tracker = StorageTracker(scratch={aten.relu.default: lambda x: 3 * x.nbytes})
    with FakeTensorMode(), tracker:
        tracker.enter("only")
        x = torch.empty(1024)
        y = torch.relu(x)
        assert tracker.current == x.nbytes + y.nbytes
    assert tracker.peaks["only"] == 5 * 4096


def _backward_peak(kernels: dict[Any, Any]) -> int:
    tracker = StorageTracker(kernels)
    with FakeTensorMode(), tracker:
        x = torch.empty(4096, requires_grad=True)
        loss = (x * 2 + x * 3).sum()
        tracker.enter("backward")
        loss.backward()
    return tracker.peaks["backward"]


def test_gradients_of_a_value_used_twice_are_summed_in_place() -> None:
    # As torch does with plain tensors; with fake ones it makes a third of the same size.
    assert _backward_peak({}) - _backward_peak(KERNELS) == 4096 * 4


def test_data_that_fake_tensors_lack_is_the_most_that_it_can_be() -> None:
    with FakeTensorMode(), StorageTracker(KERNELS):
        mask = torch.empty(3, 5, dtype=torch.bool)
        assert torch.empty(3, 5, 7)[mask].shape == (15, 7)
        assert torch.empty(2, 3, 5)[:, mask].shape == (2, 15)
        assert torch.nonzero(mask).shape == (15, 2)
        assert torch.empty(4, 6)[torch.empty(2, dtype=torch.int64)].shape == (2, 6)
        assert mask.any().item() is True
        assert torch.empty(3, dtype=torch.int64).sum().item() == 1
        assert torch.empty(3).sum().item() == 1.0
        assert torch.tensor(5).item() == 5


def test_scratch_of_flash_attention() -> None:
    # 4096 tokens, 32 heads of 128, 8 of keys: dq in fp32, a row sum, and keys' and values' gradients for every head.
    query, key = torch.empty(1, 32, 4096, 128, dtype=torch.bfloat16), torch.empty(1, 8, 4096, 128, dtype=torch.bfloat16)
    rows = 32 * 4096
    scratch = SCRATCH[aten._scaled_dot_product_flash_attention_backward.default]
    assert scratch(None, query, key) == rows * 128 * 4 + rows * 4 + 2 * rows * 128 * 2
    assert scratch(None, query, query) == rows * 128 * 4 + rows * 4
    assert scratch(None, query[..., :4000, :80], query[..., :4000, :80]) == rows * 96 * 4 + rows * 4


def test_scratch_of_memory_efficient_attention() -> None:
    half = torch.empty(2, 4, 100, 64, dtype=torch.bfloat16)
    wide = torch.empty(2, 4, 100, 256, dtype=torch.bfloat16)
    scratch = SCRATCH[aten._scaled_dot_product_efficient_attention_backward.default]
    assert scratch(None, half.float(), half.float()) == 8 * 128 * 4
    assert scratch(None, half, half) == 8 * 128 * (4 + 64 * 4)
    assert scratch(None, wide, wide) == 8 * 128 * (4 + 3 * 256 * 4)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_bytes_of_a_layer_in_four_bits(tens_out: int, tens_in: int, double: bool) -> None:
    rows, columns = 16 * tens_out, 16 * tens_in
    layer = NF4Linear(nn.Linear(columns, rows, bias=False, device="meta"), double=double)
    held = sum(tensor.nbytes for tensor in [*layer.parameters(), *layer.buffers()])
    count = rows * columns
    scales = math.ceil(count / 64)
    blocks = scales + 4 * math.ceil(scales / 256) + 4 * 256 if double else 4 * scales
    assert held == count // 2 + blocks + 4 * 16
    assert layer.dequantised().shape == (rows, columns)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.block = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128))
        self.head = nn.Linear(64, 100)

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_all_linear_layers_but_the_head_are_quantised() -> None:
    model = _Model()
    quantise(model, double=True)
    assert isinstance(model.block[0], NF4Linear)
    assert type(model.head) is nn.Linear
    assert model.is_loaded_in_4bit
    assert model.block[0](torch.ones(3, 64)).shape == (3, 128)


def _state(name: str) -> dict[str, int]:
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(1000, 512), "linear": nn.Linear(512, 1024), "norm": nn.LayerNorm(64)}
    )
    made = stand_in(name, model)
    assert made is not None
    optimizer = made[0](model.parameters(), **made[1])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[key]: sum(t.nbytes for t in value["tensors"]) for key, value in optimizer.state.items()}


def test_state_in_eight_bits() -> None:
    state, count = _state("adamw_bnb_8bit"), 512 * 1024
    assert state["linear.weight"] == 2 * (count + count // 256 * 4)
    assert state["embedding.weight"] == 2 * 512_000 * 4  # Transformers keeps embeddings' state in 32 bits
    assert state["norm.weight"] == 2 * 64 * 4
    assert _state("lion_8bit")["linear.weight"] == count + count // 256 * 4


def test_paged_state_is_not_on_the_device() -> None:
    state = _state("paged_adamw_32bit")
    assert state["linear.weight"] == state["embedding.weight"] == 0
    assert state["linear.bias"] == 2 * 1024 * 4
    assert stand_in("adamw_torch_fused", _Model()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"method": "grpo"},
        {"checkpointing": "offload"},
        {"devices": 2},
        {"sharding": "fsdp"},
        {"offload": True},
    ],
)
def test_what_is_not_faked_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        exact_peak(STEP.model_copy(update=change), tmp_path)


def test_a_request_is_what_the_step_says() -> None:
    step = STEP.model_copy(update={"adapter": "lora", "targets": ["q_proj"], "rows": 4, "dtype": "float32"})
    request = Request.of(step)
    assert request == Request(adapter="lora", targets=("q_proj",), rows=4, dtype="float32")
    assert Request.read(json.loads(json.dumps({"targets": ["q_proj"]}))) == Request(targets=("q_proj",))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return _write(tmp_path / "model", model_type="llama")


def _write(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that reached a process; each gets ANSWER."""
    seen: list[Request] = []

    def run(_config: dict[str, Any], request: Request) -> dict[str, Any]:
        seen.append(request)
        return ANSWER

    monkeypatch.setattr(ask, "_run", run)
    return seen


def test_an_answer_is_asked_for_once(config: Path, asked: list[Request]) -> None:
    first = measure_exact(Request(rows=1), config)
    assert first.allocated == 180
    assert measure_exact(Request(rows=1), config) == first
    _write(config, model_type="llama", _name_or_path="elsewhere")
    assert measure_exact(Request(rows=1), config) == first
    assert asked == [Request(rows=1)]


def test_another_question_is_another_answer(
    config: Path, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_exact(Request(rows=1), config)
    measure_exact(Request(rows=2), config)
    _write(config, model_type="llama", hidden_size=8)
    measure_exact(Request(rows=2), config)
    monkeypatch.setattr(ask.importlib.metadata, "version", lambda _name: "0.0")
    measure_exact(Request(rows=2), config)
    assert len(asked) == 4


def test_the_estimate_of_a_step(config: Path, asked: list[Request]) -> None:
    estimate = exact_peak(STEP, config)
    assert estimate.tier == "fake step"
    assert (estimate.allocated, estimate.weights, estimate.state, estimate.activations) == (180, 100, 160, 7)
    assert [(phase.name, phase.bytes) for phase in estimate.phases] == list(ANSWER["phases"].items())  # type: ignore[attr-defined]
    assert (estimate.gradients, estimate.buffers, estimate.loss) == (20, 13, 0)
    assert estimate.reserved > estimate.allocated
    assert estimate.allocated_error > 0


def test_gradients_are_counted_in_a_forward_pass_only_when_they_accumulate() -> None:
    answer: dict[str, Any] = ANSWER | {"phases": {"forward": 180, "backward": 170, "clip": 160, "optimizer": 160}}
    peak = ask.ExactPeak(**answer)
    once, many = (ask._parts(peak, accumulates=accumulates) for accumulates in (False, True))
    assert (once["gradients"], once["buffers"]) == (0, 33)
    assert (many["gradients"], many["buffers"]) == (20, 13)
    assert sum(once.values()) == sum(many.values()) == 180
    updating = ask.ExactPeak(**answer | {"phases": {"forward": 150, "optimizer": 180}})
    assert ask._parts(updating, accumulates=False)["activations"] == 0


@pytest.mark.parametrize(("kind", "error"), [("usage", UsageError), ("environment", EnvironmentLacksError)])
def test_an_error_reaches_the_user_and_is_not_kept(
    kind: str, error: type[Exception], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"error": {"kind": kind, "what": "It failed.", "why": "So.", "fix": "Do."}}
    monkeypatch.setattr(ask, "_run", lambda _config, _request: answer)
    with pytest.raises(error, match="It failed"):
        measure_exact(Request(), config)
    assert not ask.cache_folder().exists()


def test_a_process_that_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentLacksError, match="no answer"):
        measure_exact(Request(), config)


def test_a_process_that_takes_too_long(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "TIMEOUT", 0.01)
    with pytest.raises(EnvironmentLacksError) as caught:
        measure_exact(Request(), config)
    assert "took more than" in caught.value.why


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        measure_exact(Request(), tmp_path)

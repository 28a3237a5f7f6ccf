"""Seconds: the formulas' limits, the priors against what was measured, calibration."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.steps import ROWS, llama, make_step
from tunesmith.plan import efficiency
from tunesmith.plan.documents import Documents
from tunesmith.plan.efficiency import LIKELY, Anchor, anchors, checks, expected_efficiency, left_out
from tunesmith.plan.machines import devices, find_machine, machine_here
from tunesmith.plan.memory.step import Step
from tunesmith.plan.speed import Pace, communication, implied_efficiency, moving_seconds, peak_rate, seconds
from tunesmith.plan.time import Schedule, calibrated, estimate_time, generation
from tunesmith.plan.work import Load, body_parameters, forward_load, micro_batch, step_load, trained_parameters
from tunesmith.records import Hardware
from tunesmith.records.cost import Range, TimeEstimate

A100, T4 = devices()["A100-80GB"], devices()["T4"]


def estimate(
    machine: str = "a100-large", documents: Documents = ROWS, how: Schedule | None = None, **step: Any
) -> TimeEstimate:
    return estimate_time(make_step(**step), find_machine(machine), documents, how or Schedule())


@pytest.mark.parametrize("anchor", anchors(), ids=lambda anchor: anchor.name)
def test_each_anchor_lies_in_the_interval_predicted_without_it(anchor: Anchor) -> None:
    predicted = anchor.predicted(left_out(anchor))
    assert predicted.low <= anchor.measured <= predicted.high


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.name)
def test_each_measurement_that_no_prior_knows_lies_in_its_interval(check: Anchor) -> None:
    predicted = check.predicted(expected_efficiency(check.device.family))
    assert predicted.low <= check.measured <= predicted.high


def test_the_likely_speed_is_near_what_was_measured() -> None:
    """The intervals hold not only because they are wide."""
    errors = sorted(abs(each.predicted(left_out(each)).likely / each.measured - 1) for each in anchors())
    assert errors[len(errors) // 2] < 0.12
    widths = [left_out(each).high / left_out(each).low for each in anchors()]
    assert max(widths) < 3.6


def test_no_interval_is_open() -> None:
    for each in anchors():
        predicted = each.predicted(left_out(each))
        assert predicted.low > 0.35 * each.measured
        assert predicted.high < 2.5 * each.measured


@pytest.mark.parametrize(
    ("name", "parameters", "used"),
    [
        ("Llama-3.1-8B", 8.03e9, 6.98e9),
        ("Mistral-7B", 7.24e9, 6.98e9),
        ("Mixtral-8x7B", 46.7e9, 12.61e9),
        ("Llama-2-70B", 68.98e9, 68.45e9),
        ("Qwen2.5-7B", 7.62e9, 6.53e9),
        ("MPT-7B", 6.86e9, 6.44e9),
        ("Qwen-1.8B", 1.84e9, 1.21e9),
    ],
)
def test_the_anchors_models_have_the_sizes_that_their_cards_state(name: str, parameters: float, used: float) -> None:
    """MPT's card says 6.65: its head is its embedding, which counts twice here and is used twice."""
    model = next(anchor.step.model for anchor in anchors() if anchor.step.model.name == name)
    assert model.parameters == pytest.approx(parameters, rel=0.01)
    assert body_parameters(model) == pytest.approx(used, rel=0.01)
    shapes = sum(shape.in_features * shape.out_features * shape.count for shape in model.linears)
    assert shapes == model.parts.attention + model.parts.mlp


def test_variances_within_and_between_families() -> None:
    assert efficiency._variances({"a": [0.0, 2.0], "b": [5.0, 5.0]}) == (1.0, pytest.approx(8 - 0.5))
    assert efficiency._variances({"a": [0.0, 2.0], "b": [0.0, 2.0]}) == (2.0, pytest.approx(0.2))


def test_an_anchor_implies_the_share_that_predicts_it() -> None:
    for anchor in anchors():
        share = anchor.efficiency()
        if share is not None:
            again = anchor.predicted(Range(low=share, likely=share, high=share))
            assert again.likely == pytest.approx(anchor.measured, rel=0.01)


def test_steps_that_wait_for_the_host_say_nothing_of_the_device() -> None:
    waiting = [anchor for anchor in anchors() if anchor.efficiency() is None]
    assert {anchor.step.length for anchor in waiting} == {256}


def test_families_without_measurements_get_a_wider_prior() -> None:
    def width(family: str) -> float:
        share = expected_efficiency(family)
        return share.high / share.low

    assert width("turing") > width("ampere")
    assert width("cpu") > width("turing")
    assert expected_efficiency("turing") == expected_efficiency("a family to come")


def test_a_prior_leans_on_its_own_measurements() -> None:
    """Hopper's mean is below all others', and more of its own measurements would pull it further."""
    centre = expected_efficiency("turing").likely
    assert expected_efficiency("hopper").likely < centre < expected_efficiency("ada").likely
    own = [anchor for anchor in anchors() if anchor.device.family == "hopper"]
    assert efficiency._drawn("hopper", [*anchors(), *own]).likely < expected_efficiency("hopper").likely


@pytest.mark.parametrize(
    ("step", "device", "rate"),
    [
        ({"dtype": "bfloat16"}, A100, 312e12),
        ({"dtype": "float32"}, A100, 312e12),  # under autocast
        ({"dtype": "float32", "mixed": False}, A100, 19.5e12),
        ({"dtype": "bfloat16"}, T4, 8.1e12),  # no tensor cores for bf16
        ({"dtype": "float16"}, T4, 65e12),
        ({"dtype": "float32"}, T4, 65e12),  # autocast to fp16
        ({"dtype": "float32", "mixed": False}, T4, 8.1e12),
    ],
)
def test_the_peak_goes_by_what_is_computed_in(step: dict[str, Any], device: Any, rate: float) -> None:
    assert peak_rate(make_step(**step), device) == pytest.approx(rate)


def test_a_gpu_takes_the_longer_of_work_and_starting_and_a_processor_both() -> None:
    step, load = make_step(), Load(operations={"linear": 312e12}, kernels=1000)
    assert seconds(step, load, A100, Pace(0.5, 1e-6, 0.5)).micro == pytest.approx(2.0)
    assert seconds(step, load, A100, Pace(0.5, 4e-3, 0.5)).micro == pytest.approx(4.0)
    cpu = machine_here(Hardware(device="cpu", name="x", count=1, memory=1, cores=4, bf16=False)).device
    assert cpu.full == pytest.approx(0.4e12)
    work = Load(operations={"linear": 0.4e12}, kernels=1000)
    plain = make_step(dtype="float32", mixed=False)
    assert seconds(plain, work, cpu, Pace(0.5, 1e-3, 0.5)).micro == pytest.approx(3.0)


def test_moved_bytes_and_the_optimizer_take_their_time() -> None:
    load = Load(moved={"elementwise": 2039e9}, update_moved=2 * 2039e9, update_kernels=0)
    took = seconds(make_step(), load, A100, LIKELY)
    assert moving_seconds(load, A100) == took.micro == pytest.approx(1 / 0.85)
    assert took.update == pytest.approx(2 / 0.85)


def test_offloaded_activations_cost_two_percent() -> None:
    load = Load(operations={"linear": 312e12})
    slower = seconds(make_step(checkpointing="offload"), load, A100, Pace(1, 0, 0)).micro
    assert slower == pytest.approx(1.02 * seconds(make_step(), load, A100, Pace(1, 0, 0)).micro)


def test_what_devices_exchange() -> None:
    """FSDP gathers the weights twice and scatters the gradients per micro-batch; DDP reduces them once per update."""
    weights, rate = llama().parameters, 300e9 * 0.8 * 4 / 3
    full = {"adapter": "none", "devices": 4}

    def exchanged(**step: Any) -> tuple[float, float]:
        per_micro, per_update = communication(make_step(**step), A100)
        return per_micro * rate, per_update * rate

    assert exchanged(**full, sharding="fsdp") == (pytest.approx(3 * 2 * weights), 0.0)
    assert exchanged(**full, sharding="zero3", dtype="float32") == (
        pytest.approx(3 * 2 * weights),
        0.0,
    )  # under autocast
    assert exchanged(**full, sharding="ddp") == (0.0, pytest.approx(2 * 2 * weights))
    assert exchanged(**full, sharding="ddp", dtype="float32") == (0.0, pytest.approx(2 * 4 * weights))
    adapters = 4 * trained_parameters(make_step())
    assert exchanged(devices=4, sharding="ddp") == (0.0, pytest.approx(2 * adapters))
    assert exchanged(devices=4, sharding="fsdp") == (pytest.approx(2 * 2 * weights + adapters), 0.0)
    assert exchanged(adapter="qlora", devices=4, sharding="fsdp")[0] == pytest.approx(2 * 33 / 64 * weights + adapters)
    assert exchanged(adapter="none") == (0.0, 0.0)


def test_what_is_kept_in_main_memory_comes_over_pcie() -> None:
    step = make_step(adapter="none", offload=True)
    assert communication(step, A100) == (pytest.approx(3 * 2 * llama().parameters / 20e9), 0.0)
    four = step.model_copy(update={"devices": 4, "sharding": "zero3"})
    assert communication(four, A100)[0] == pytest.approx(
        3 * 2 * llama().parameters / 20e9 / 4 + communication(four.model_copy(update={"offload": False}), A100)[0]
    )
    load = Load(operations={"linear": 312e12}, update_kernels=0)
    assert seconds(make_step(adapter="none"), load, A100, Pace(1, 0, 0)).update == 0
    assert seconds(step, load, A100, Pace(1, 0, 0)).update == pytest.approx(llama().parameters * 28 / 60e9)
    assert seconds(four, load, A100, Pace(1, 0, 0)).update == pytest.approx(llama().parameters * 7 / 60e9)


def test_communication_that_hides_costs_only_what_is_longer_than_the_work() -> None:
    step = make_step(adapter="none", devices=4, sharding="fsdp")
    apart = communication(step, A100)[0]
    short, long = Load(operations={"linear": 312e10}), Load(operations={"linear": 312e12})
    assert seconds(step, long, A100, Pace(1, 0, 1)).micro == pytest.approx(1.0)
    assert seconds(step, long, A100, Pace(1, 0, 0)).micro == pytest.approx(1.0 + apart)
    assert seconds(step, short, A100, Pace(1, 0, 1)).micro == pytest.approx(apart)


def test_a_measurement_faster_than_its_memory_traffic_implies_nothing() -> None:
    load = Load(operations={"linear": 1e12}, moved={"elementwise": 2039e9})
    assert implied_efficiency(make_step(), load, A100, 0.5, LIKELY) is None


def test_the_parts_add_up_and_intervals_are_in_order() -> None:
    time = estimate(
        how=Schedule(epochs=3, evaluations=5, eval_rows=100, compared_rows=50, merged=True, gguf=2, checkpoints=3)
    )
    parts = time.start + time.train + time.evaluate + time.export
    assert time.total == parts
    assert time.train.likely > 0 < time.evaluate.likely
    bare = estimate(how=Schedule(epochs=3))
    assert (bare.evaluate.high, bare.export.high) == (0, 0)
    assert bare.train.likely < time.train.likely


def test_evaluation_is_passes_forward_and_answers_of_both_models() -> None:
    """3 x 100 rows by fours; 70 answers in three rounds of 32, by base and by tuned."""
    step = make_step(rows=4)
    batch = micro_batch(step, ROWS, scored=0.5)
    share = expected_efficiency("ampere").likely
    forward = seconds(step, forward_load(step, batch), A100, Pace(share, LIKELY.kernel, LIKELY.hidden)).micro
    how = Schedule(evaluations=3, eval_rows=100, scored=0.5)
    assert estimate(how=how, rows=4).evaluate.likely == pytest.approx(3 * 25 * forward)
    answers = generation(step, A100, rows=32, prompt=ROWS.mean, new=50).likely
    how = Schedule(compared_rows=70, new_tokens=50)
    assert estimate(how=how, rows=4).evaluate.likely == pytest.approx(2 * 3 * answers)


def test_start_load_export_and_checkpoints_go_by_size() -> None:
    known = llama(bytes=10**10)
    base = estimate("rtx-4090", Documents.of([1000] * 400), model=known)
    imports, loading, preparing = 15, 10, 1
    assert base.start.likely == pytest.approx(imports + loading + preparing)
    assert base.start.low == pytest.approx(8 + 10 / 3 + 0.4 / 1.5)
    assert base.start.high == pytest.approx(40 + 10 / 0.3 + 0.4 / 0.15)
    fetched = estimate("rtx-4090", Documents.of([1000] * 400), Schedule(download=3 * 10**9), model=known)
    assert fetched.start.likely == pytest.approx(base.start.likely + 20)
    assert estimate("a100-large", Documents.of([1000] * 400), model=known).start.likely == pytest.approx(150 + 26)
    size = 2 * llama().parameters
    merged = estimate(how=Schedule(merged=True)).export
    assert [merged.low, merged.likely, merged.high] == pytest.approx([size / 0.6e9, size / 0.2e9, size / 0.05e9])
    assert fetched.start.high - base.start.high == pytest.approx(100)
    assert estimate(how=Schedule(gguf=2)).export.likely == pytest.approx(2 * size / 0.2e9)

    def written(**step: Any) -> float:
        with_, without = estimate(how=Schedule(checkpoints=2), **step), estimate(**step)
        return (with_.train.likely - without.train.likely) / 2

    assert written(adapter="none") == pytest.approx(3 * 2 * llama().parameters / 0.8e9)
    assert written(adapter="none", dtype="float32") == pytest.approx(3 * 4 * llama().parameters / 0.8e9)
    assert written() == pytest.approx(3 * 4 * trained_parameters(make_step()) / 0.8e9)


def test_training_takes_its_updates() -> None:
    """910 rows, one per micro-batch, 16 per update: 57 updates an epoch, as Trainer counts."""
    time = estimate(how=Schedule(epochs=2, accumulation=16))
    assert time.train.likely == pytest.approx(2 * 57 * time.step_seconds.likely)
    assert estimate(how=Schedule(updates=10)).train.likely == pytest.approx(10 * estimate().step_seconds.likely)
    packed = estimate(how=Schedule(packed=True), attention="flash")
    assert packed.train.likely == pytest.approx(round(ROWS.tokens / 1024 + 0.5) * packed.step_seconds.likely)


def test_tokens_per_second_leave_padding_out() -> None:
    padded, grouped = estimate(rows=4), estimate(rows=4, how=Schedule(grouped=True))
    assert grouped.tokens_per_second.likely > 1.2 * padded.tokens_per_second.likely
    useful = 4 * ROWS.mean / padded.step_seconds.likely
    assert padded.tokens_per_second.likely == pytest.approx(useful)


def test_short_rows_wait_for_the_host_and_the_basis_says_so() -> None:
    short = estimate(documents=Documents.of([40] * 100))
    assert "waits for the host" in short.basis
    assert estimate(rows=8).basis.startswith(
        "A100-80GB by a prior for ampere (from published measurements); of a step: "
    )
    assert "matrix products" in estimate(rows=8).basis
    assert "not measured" in estimate("cpu-basic").basis
    four = estimate(documents=Documents.of([40] * 100), rows=4)
    assert four.step_seconds.likely == pytest.approx(short.step_seconds.likely)


def test_a_rented_machine_starts_and_downloads_first() -> None:
    here = machine_here(
        Hardware(device="cuda", name="NVIDIA A100-SXM4-80GB", count=1, memory=80 << 30, cores=8, bf16=True)
    )
    local = estimate_time(make_step(), here, ROWS, Schedule())
    job = estimate(how=Schedule(download=16 * 10**9))
    assert job.start.likely > local.start.likely + 150 + 100
    assert local.train == job.train


def test_generation_reads_the_weights_for_each_token() -> None:
    fast = generation(make_step(), A100, rows=1, prompt=10, new=100)
    # 16 GB at 0.85 of 2,039 GB/s are 9.3 ms; 32 layers of 46 kernels take the host 31.
    assert fast.likely == pytest.approx(100 * 32 * 46 * 14e-6 * 1.5, rel=0.01)
    assert generation(make_step(), T4, rows=1, prompt=10, new=100).likely == pytest.approx(
        100 * 2 * llama().parameters / (0.85 * 320e9), rel=0.05
    )


def test_generation_computes_the_prompt_and_reads_the_cache() -> None:
    """Keys and values of 1,024 numbers in 32 layers, two bytes each; the answer is half there on average."""
    step, share = make_step(), expected_efficiency("ada").likely
    card = devices()["L4"]
    cache = 2 * 2 * 32 * 1024 * (2000 + 500 / 2) * 64
    each = (2 * llama().parameters + cache) / (0.85 * 300e9)
    prefill = 2 * llama().parameters * 64 * 2000 / (121e12 * share)
    answers = generation(step, card, rows=64, prompt=2000, new=500)
    assert answers.likely == pytest.approx(500 * each + prefill, rel=1e-6)
    fp32 = generation(make_step(dtype="float32"), card, rows=64, prompt=2000, new=500)
    assert fp32.likely == pytest.approx(500 * 2 * each + prefill, rel=1e-6)
    computing = generation(make_step(model=llama(active=10**12)), card, rows=64, prompt=1, new=100).likely
    assert computing == pytest.approx(101 * 2 * 10**12 * 64 / (121e12 * share))


def test_what_is_generated_is_part_of_the_step() -> None:
    plain, rolled = estimate(), estimate(method="grpo", generate=(8, 100, 200))
    answers = generation(make_step(), A100, rows=8, prompt=100, new=200)
    assert rolled.step_seconds.likely == pytest.approx(plain.step_seconds.likely + answers.likely)


@pytest.mark.parametrize("adapter", ["none", "lora", "qlora"])
def test_every_machine_has_an_estimate_for_every_way(adapter: str) -> None:
    for name in ("cpu-basic", "t4-small", "l4x1", "rtx-4090", "h200x8", "gpu_1x_b200_sxm6", "rtx-pro-6000"):
        time = estimate(name, adapter=adapter)
        assert 0 < time.tokens_per_second.low < time.tokens_per_second.high


def test_apple_and_unknown_gpus_get_an_estimate() -> None:
    for device, name in (("mps", "Apple GPU"), ("cuda", "NVIDIA Something New"), ("cpu", "x86_64")):
        hardware = Hardware(device=device, name=name, count=1, memory=64 << 30, cores=8, bf16=device == "cuda")
        time = estimate_time(make_step(dtype="float32", mixed=False), machine_here(hardware), ROWS, Schedule())
        assert time.train.high > 1.5 * time.train.low > 0


@given(st.integers(1, 4), st.sampled_from(["a100-large", "l4x1", "h200", "cpu-xl"]), st.sampled_from(["off", "full"]))
def test_longer_data_and_more_epochs_take_longer(epochs: int, machine: str, checkpointing: str) -> None:
    once = estimate(machine, how=Schedule(epochs=epochs), checkpointing=checkpointing)
    more = estimate(machine, how=Schedule(epochs=epochs + 1), checkpointing=checkpointing)
    assert more.train.low > once.train.low
    longer = Documents(tuple((length * 8, rows) for length, rows in ROWS.counts))
    then = estimate(machine, longer, Schedule(epochs=epochs), checkpointing=checkpointing)
    assert then.train.likely > once.train.likely
    assert then.train.low > once.train.low


def test_measured_speed_narrows_the_interval() -> None:
    time = estimate(how=Schedule(epochs=3, evaluations=2, eval_rows=100))
    half = time.tokens_per_second.likely / 2
    now = calibrated(time, half)
    assert now.tokens_per_second == Range(low=half / 1.15, likely=half, high=half / 0.92)
    assert now.step_seconds.likely == pytest.approx(2 * time.step_seconds.likely)
    assert now.train.likely == pytest.approx(2 * time.train.likely)
    assert now.train.high / now.train.low < 1.3 < time.train.high / time.train.low
    assert now.evaluate.likely == pytest.approx(2 * time.evaluate.likely)
    assert now.efficiency.likely == pytest.approx(time.efficiency.likely / 2)
    assert now.total == now.start + now.train + now.evaluate + now.export
    assert (now.start, now.export) == (time.start, time.export)
    assert "measured" in now.basis


def test_what_remains_of_a_run() -> None:
    time = estimate(how=Schedule(epochs=3, evaluations=2, eval_rows=100))
    speed = time.tokens_per_second.likely
    left = calibrated(time, speed, done=0.75)
    assert left.train.likely == pytest.approx(time.train.likely / 4)
    assert left.evaluate.likely == pytest.approx(time.evaluate.likely / 4)
    assert left.start.high == 0
    assert calibrated(time, speed, done=1.0).train.high == 0


@pytest.mark.parametrize("measured", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_changes_nothing(measured: float) -> None:
    time = estimate()
    assert calibrated(time, measured) is time


def test_a_range_is_in_order() -> None:
    with pytest.raises(ValueError, match="doesn't hold"):
        Range(low=2, likely=1, high=3)
    assert Range(low=1, likely=2, high=3).times(2) + Range(low=1, likely=1, high=1) == Range(low=3, likely=5, high=7)


def test_a_plan_s_time_and_cost_need_no_torch() -> None:
    code = (
        "import sys; from tunesmith.plan import compare, cost, offers, time; "
        "from tunesmith.plan.machines import machines; machines(); "
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_mixture_of_experts_computes_only_what_it_uses() -> None:
    anchor = next(each for each in anchors() if "Mixtral" in each.name)
    dense = anchor.step.model.model_copy(update={"expert_active": 8})
    step: Step = anchor.step
    batch = micro_batch(step, Documents.of([1024]))
    used = step_load(step, batch).operations["linear"]
    assert step_load(step.model_copy(update={"model": dense}), batch).operations["linear"] > 3 * used


def test_no_efficiency_above_the_peak_is_stated() -> None:
    assert expected_efficiency("ada").high > 1  # it takes up what the counts of bytes miss
    estimated = estimate_time(make_step(), find_machine("l4x1"), ROWS, Schedule())
    assert estimated.efficiency.high == 1
    assert estimated.efficiency.likely < 1
    fast = calibrated(estimated, 100 * estimated.tokens_per_second.likely)
    assert (fast.efficiency.low, fast.efficiency.high) == (1, 1)

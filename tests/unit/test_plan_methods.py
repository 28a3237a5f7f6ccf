"""Plans of every method: what it decides, what its rows become, how many steps they make, and P080 to P085."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.methods import METHODS, method_recipe, method_rows
from tests.support.plans import GPU, codes, make_plan, rows_of
from tunesmith.data.lengths import packed_lengths
from tunesmith.plan.methods import steps_per_pass
from tunesmith.recipe import Recipe
from tunesmith.records import Plan
from tunesmith.rules import FindingsError

LAYOUTS = {
    "sft": "prompt-completion",
    "clm": "text",
    "dpo": "preference",
    "kto": "unpaired-preference",
    "reward": "preference",
    "grpo": "prompt-only",
    "rloo": "prompt-only",
}


def plan_of(method: str, folder: Path, **keys: Any) -> Plan:
    return make_plan(method_recipe(method, folder, **keys))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_plan(method: str, tmp_path: Path) -> None:
    plan = plan_of(method, tmp_path)
    assert plan.layout == LAYOUTS[method]
    assert not [found for found in plan.findings if found.severity == "error"]
    assert plan.steps > 0
    assert plan.memory.allocated > 0
    assert plan.time is not None
    assert plan.time.total.likely > 0


def test_dpo_keeps_the_chosen_answers_likely(tmp_path: Path) -> None:
    training = plan_of("dpo", tmp_path).training
    assert (training["loss_type"], training["loss_weights"]) == (["sigmoid", "sft"], [1.0, 1.0])
    assert "loss_weights" not in plan_of("dpo", tmp_path, training={"loss_type": ["sigmoid"]}).training


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_no_second_model_is_kept_as_reference(method: str, tmp_path: Path) -> None:
    full, lora = (plan_of(method, tmp_path, adapter={"kind": kind}) for kind in ("none", "lora"))
    assert full.training["precompute_ref_log_probs"] is True
    assert lora.training["precompute_ref_log_probs"] is False
    assert full.memory.reference == 0


def test_kto_weighs_its_labels_alike(tmp_path: Path) -> None:
    even = plan_of("kto", tmp_path)
    assert (even.training["desirable_weight"], even.training["undesirable_weight"]) == (1.0, 1.0)
    rows = [row for index, row in enumerate(method_rows("kto", 96)) if row["label"] or index % 6 == 1]
    uneven = plan_of("kto", tmp_path, rows=rows).training
    assert uneven["desirable_weight"] == 1.0
    assert uneven["undesirable_weight"] == pytest.approx(3, rel=0.15)


def test_pairs_become_marked_rows_for_kto(tmp_path: Path) -> None:
    pairs = method_rows("dpo", 60)
    plan, from_rows = (plan_of("kto", tmp_path, rows=rows) for rows in (pairs, method_rows("kto", 120)))
    assert plan.layout == "unpaired-preference"
    assert (plan.train.rows, plan.steps) == (from_rows.train.rows, from_rows.steps)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_answers_get_room_for_the_longest_right_one(method: str, tmp_path: Path) -> None:
    training = plan_of(method, tmp_path).training
    assert training["num_generations"] == 8
    assert 45 <= training["max_completion_length"] <= 96
    assert "max_length" not in training
    without = [{"prompt": row["prompt"]} for row in method_rows(method, 96)]
    assert plan_of(method, tmp_path, rows=without).training["max_completion_length"] == 256


def test_answers_fit_into_the_context(tmp_path: Path) -> None:
    long = [{"prompt": f"{number} " + "word " * 670} for number in range(96)]
    plan = plan_of("grpo", tmp_path, rows=long)
    longest = plan.train.longest or 0
    assert longest + plan.training["max_completion_length"] == plan.model.context


def test_prompts_that_fill_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="T003"):
        plan_of("grpo", tmp_path, rows=[{"prompt": f"{number} " + "word " * 1880} for number in range(96)])


def test_columns_reach_the_reward_function(tmp_path: Path) -> None:
    rows = [
        {**row, "level": index, "prompts": "x", "deep": {"a": 1}} for index, row in enumerate(method_rows("grpo", 96))
    ]
    kept = rows_of(method_recipe("grpo", tmp_path, rows=rows)).train[0]
    assert kept.keys() == {"prompt", "reference", "level", "deep"}


def test_clm_packs_whole_documents(tmp_path: Path) -> None:
    rows = [{"text": "lamp " * 3000}, *method_rows("clm", 95)]
    plan = plan_of("clm", tmp_path, rows=rows)
    assert (plan.training["packing"], plan.training["packing_strategy"]) == (True, "bfd_split")
    assert plan.train.cut == 0
    assert not {"T002", "T003"} & set(codes(plan))
    together = plan.training["per_device_train_batch_size"] * plan.training["gradient_accumulation_steps"]
    assert plan.tokens_per_step == together * plan.training["max_length"]
    packed = math.ceil((plan.train.tokens or 0) / plan.training["max_length"])
    assert plan.steps == math.ceil(packed / together)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60),
    st.integers(8, 64),
)
def test_split_packing_loses_no_token(lengths: list[int], size: int) -> None:
    import numpy as np

    packed = packed_lengths(np.array(lengths), size, split=True)
    assert sum(packed) == sum(lengths)
    assert max(packed) <= size


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
def test_packing_is_counted_as_trl_packs(strategy: str) -> None:
    import numpy as np
    from datasets import Dataset
    from trl import pack_dataset

    lengths = [5, 17, 3, 40, 64, 2, 33, 8, 8, 100]
    rows = Dataset.from_dict({"input_ids": [[1] * length for length in lengths]})
    packed = pack_dataset(rows, 32, strategy)
    ours = packed_lengths(np.array(lengths), 32, split=strategy == "bfd_split")
    assert sorted(len(row) for row in packed["input_ids"]) == sorted(ours)


def test_steps_of_groups_leave_incomplete_batches_out() -> None:
    training = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "num_generations": 4}
    assert steps_per_pass(training, 20, 1, drop_last=False) == 2  # 8 prompts an update, 4 left out
    assert steps_per_pass({**training, "num_iterations": 3}, 20, 1, drop_last=False) == 6
    assert steps_per_pass({**training, "generation_batch_size": 64}, 20, 1, drop_last=False) == 2
    assert steps_per_pass(training, 20, 2, drop_last=False) == 1
    plain = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    assert steps_per_pass(plain, 33, 1, drop_last=False) == 2
    assert steps_per_pass(plain, 33, 1, drop_last=True) == 1


def found(method: str, folder: Path, **keys: Any) -> set[str]:
    return {code for code in codes(plan_of(method, folder, **keys)) if code.startswith("P08")}


def test_p080_fewer_prompts_than_an_update(tmp_path: Path) -> None:
    assert found("grpo", tmp_path, rows=8) == {"P080"}
    assert found("grpo", tmp_path) == set()


@pytest.mark.parametrize(
    "training",
    [{"num_generations": 7}, {"per_device_train_batch_size": 12}, {"generation_batch_size": 60}],
)
def test_p081_groups_that_are_not_whole(training: dict[str, int], tmp_path: Path) -> None:
    assert "P081" in found("rloo", tmp_path, training=training)


def test_p081_looks_at_the_evaluation_too(tmp_path: Path) -> None:
    assert found("grpo", tmp_path, training={"per_device_eval_batch_size": 13}) == {"P081"}
    silent = {"per_device_eval_batch_size": 12, "num_generations_eval": None}
    assert found("grpo", tmp_path, training=silent) == {"P081"}
    assert found("grpo", tmp_path, training={"per_device_eval_batch_size": 13, "eval_strategy": "no"}) == set()


def test_p082_one_label_only(tmp_path: Path) -> None:
    good = [{**row, "label": True} for row in method_rows("kto", 96)]
    assert found("kto", tmp_path, rows=good) == {"P082"}
    assert found("kto", tmp_path) == set()


def test_p083_a_weight_for_each_loss(tmp_path: Path) -> None:
    assert found("dpo", tmp_path, training={"loss_weights": [1.0]}) == {"P083"}
    assert found("dpo", tmp_path, training={"loss_type": ["sigmoid"], "loss_weights": [1.0]}) == set()


def test_p084_beyond_the_context_and_p085_cut_answers(tmp_path: Path) -> None:
    assert found("grpo", tmp_path, training={"max_completion_length": 2040}) == {"P084"}
    assert found("grpo", tmp_path, training={"max_completion_length": 8}) == {"P085"}


def test_evaluations_that_generate_take_their_time(tmp_path: Path) -> None:
    few, many = (plan_of("grpo", tmp_path, training={"eval_steps": every}).time for every in (10, 1))
    assert few is not None
    assert many is not None
    assert many.evaluate.likely > few.evaluate.likely


def test_a_gpu_generates_within_its_memory(tmp_path: Path) -> None:
    recipe: Recipe = method_recipe("grpo", tmp_path)
    assert make_plan(recipe, GPU).memory.allocated > 0

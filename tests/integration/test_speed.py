"""What makes training fast leaves what is learnt as it was: the same losses, the same weights, and no leak unseen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.support.preferences import rows_for
from tests.support.runs import SMALL, make_plan
from tunesmith.demo import task
from tunesmith.pipeline import prepare_run
from tunesmith.recipe import build_recipe
from tunesmith.records import VARLEN, Plan, Speed
from tunesmith.rules import FindingsError
from tunesmith.train import speed
from tunesmith.train.job import Job
from tunesmith.train.methods import build_trainer

pytestmark = pytest.mark.slow

STEPS = 4
_numbers = itertools.count()


def prepared(folder: Path, *, rows: list[dict[str, Any]] | None = None, **keys: Any) -> tuple[Plan, Path]:
    """A run folder of the built-in model."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows or task.rows("train", 48)))
    training = {
        "max_steps": STEPS,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_steps": 2,
        **keys.pop("training", {}),
    }
    values = {"model": "builtin:small", "data": {"train": str(data), "eval": 0.25}, "adapter": {"kind": "none"}}
    run = prepare_run(build_recipe(values | {"training": training} | keys), folder / f"run{next(_numbers)}")
    return Plan.load(run), run


def trained(plan: Plan, run: Path) -> tuple[list[float], list[float], Any]:
    """Losses, held-out losses and the trainer."""
    trainer = build_trainer(Job(plan, run))
    trainer.train()
    log = trainer.state.log_history
    return ([entry["loss"] for entry in log if "loss" in entry],
            [entry["eval_loss"] for entry in log if "eval_loss" in entry], trainer)  # fmt: skip


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


@pytest.mark.parametrize("keys", [{}, {"adapter": {"kind": "lora", "r": 4}}])
def test_rows_end_to_end_teach_what_padded_rows_teach(tmp_path: Path, keys: dict[str, Any]) -> None:
    plan, run = prepared(tmp_path, **keys)
    assert (plan.training["padding_free"], plan.speed.attention) == (True, VARLEN)
    losses, held_out, trainer = trained(plan, run)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 1
    assert "attention_mask" not in batch
    padding, other = prepared(tmp_path, training={"padding_free": False}, speed={"attention": "sdpa"}, **keys)
    their_losses, theirs_held_out, their_trainer = trained(padding, other)
    assert losses == pytest.approx(their_losses, rel=1e-5)
    assert held_out == pytest.approx(theirs_held_out, rel=1e-5)
    assert torch.allclose(weights(trainer), weights(their_trainer), atol=2e-4)
    assert their_trainer.model.config._attn_implementation == "sdpa"


def test_rows_are_cut_as_they_are_when_padded(tmp_path: Path) -> None:
    short = {"max_length": 112, "max_steps": 1}
    one, run = prepared(tmp_path, training=short)
    assert one.train.cut > 0
    losses, _, trainer = trained(one, run)
    assert max(map(len, trainer.train_dataset["input_ids"])) == 112
    assert losses == pytest.approx(trained(*prepared(tmp_path, training=short | {"padding_free": False}))[0], rel=1e-5)


def test_packed_rows_have_the_losses_of_rows_alone(tmp_path: Path) -> None:
    # Every row in each step: in which order they are drawn makes no difference.
    every = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 2,
             "max_length": 256}  # fmt: skip
    packed, run = prepared(tmp_path, training=every | {"packing": True})
    alone, other = prepared(tmp_path, training=every)
    assert (packed.training["eval_packing"], alone.training["packing"]) == (False, False)
    losses, held_out, trainer = trained(packed, run)
    assert len(trainer.train_dataset) < alone.train.rows
    theirs = trained(alone, other)
    assert losses == pytest.approx(theirs[0], rel=1e-5)
    assert held_out == pytest.approx(theirs[1], rel=1e-4)


def test_many_rows_take_the_fast_path_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, run = prepared(tmp_path)
    slow = trained(plan, run)[0]
    monkeypatch.setattr("tunesmith.train.methods.sft.WORTH", 0)
    told: dict[str, Any] = {}
    trainer = build_trainer(Job(plan, run, report=told.update))
    assert [result.reason for result in told.values()] == [None, None]
    trainer.train()
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] == slow


def test_half_precision_gives_nearly_the_same_loss(tmp_path: Path) -> None:
    losses = [trained(*prepared(tmp_path, training={"bf16": half, "max_steps": 2}))[0] for half in (False, True)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def leaking(folder: Path) -> Path:
    """A model whose positions go on over the rows before, with the built-in model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "ffn_dim": 32, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "opt", vocab_size=len(tokenizer), word_embed_proj_dim=32, max_position_embeddings=512, **sizes
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(folder: Path, base: Path, **training: Any) -> Plan:
    """A plan that no rule has seen."""
    rows = [{"prompt": f"order {n}", "completion": " a lamp"} for n in range(8)]
    recipe = {"model": "x", "method": "sft", "data": {"train": "x"}, "chat_template": None}
    given = {"max_length": 64, "max_steps": 1, "use_cpu": True, "bf16": False, "seed": 1, "report_to": "none",
             "eval_strategy": "no", "save_strategy": "no", **training}  # fmt: skip
    return make_plan(folder, rows, base=base, recipe=recipe, training=given)


def test_p075_a_leak_is_found_on_the_model_itself(tmp_path: Path) -> None:
    base = leaking(tmp_path / "opt")
    for training in ({"padding_free": True}, {"packing": True}):
        with pytest.raises(FindingsError, match="nats with the row before") as stopped:
            build_trainer(Job(by_hand(tmp_path, base, **training), tmp_path))
        assert [found.code for found in stopped.value.findings] == ["P075"]
    build_trainer(Job(by_hand(tmp_path, base), tmp_path))  # padded
    build_trainer(Job(by_hand(tmp_path, SMALL, padding_free=True), tmp_path))


def dropping(folder: Path) -> Path:
    """A GPT-2 as it comes, with dropout of attention, and the built-in model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 512}
    config = AutoConfig.for_model("gpt2", vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=2, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_with_dropout_is_padded_and_keeps_it(tmp_path: Path) -> None:
    plan, run = prepared(tmp_path, model=str(dropping(tmp_path / "gpt2")), training={"max_steps": 1})
    assert (plan.model.attention_dropout, plan.speed.attention) == (0.1, "")
    assert not plan.training["padding_free"]
    losses, _, trainer = trained(plan, run)
    assert len(losses) == 1
    assert trainer.model.config._attn_implementation == "sdpa"


def test_p079_dropout_is_seen_on_the_model_itself(tmp_path: Path) -> None:
    base = dropping(tmp_path / "gpt2")
    plan = by_hand(tmp_path, base, padding_free=True).model_copy(update={"speed": Speed(attention=VARLEN)})
    with pytest.raises(FindingsError, match="10% of them") as stopped:
        build_trainer(Job(plan, tmp_path))
    assert [found.code for found in stopped.value.findings] == ["P079"]
    fits = by_hand(tmp_path, SMALL, padding_free=True).model_copy(update={"speed": Speed(attention=VARLEN)})
    build_trainer(Job(fits, tmp_path))


@pytest.mark.parametrize("method", ["dpo", "kto", "reward"])
def test_every_method_takes_its_attention_and_is_compiled(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(speed, "compile_blocks", lambda model, backend: len(compiled.append(model) or compiled))
    rows = rows_for(method, 24)
    fast = {"attention": "eager", "compile": "on"}
    plan, run = prepared(tmp_path, rows=rows, method=method, speed=fast, training={"max_steps": 1})
    _, _, trainer = trained(plan, run)
    assert speed.unwrapped(trainer.model).config._attn_implementation == "eager"
    reference = getattr(trainer, "ref_model", None)
    assert reference is None or reference.config._attn_implementation == "eager"
    assert len(compiled) == 1


def test_the_reference_of_rl_takes_it_too(tmp_path: Path) -> None:
    group = {"num_generations": 2, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
             "gradient_accumulation_steps": 1}  # fmt: skip
    training = {"max_steps": 1, "beta": 0.1, "max_completion_length": 4, **group}
    rows = [{"prompt": f"order {n}"} for n in range(8)]
    keys = {"method": "grpo", "rewards": ["repetition"], "speed": {"attention": "eager"}}
    plan, run = prepared(tmp_path, rows=rows, training=training, **keys)
    trainer = build_trainer(Job(plan, run))
    for model in (trainer.model, trainer.ref_model):
        assert trainer.accelerator.unwrap_model(model).config._attn_implementation == "eager"


def test_compiled_blocks_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = speed.compile_blocks
    monkeypatch.setattr(speed, "compile_blocks", lambda model, backend: compiling(model, backend="eager"))
    monkeypatch.setattr(speed, "_COMPILING", -1.0)
    monkeypatch.setattr(speed, "_TIMED", 1)
    few = {"eval_strategy": "no", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    plan, run = prepared(tmp_path, training=few)
    plain = trained(plan, run)[0]
    for mode in ("on", "auto"):
        losses, _, trainer = trained(plan.model_copy(update={"speed": Speed(attention=VARLEN, compile=mode)}), run)
        (callback,) = [one for one in trainer.callback_handler.callbacks if isinstance(one, speed.CompileCallback)]
        assert callback.compiled == 3
        assert losses == pytest.approx(plain, rel=1e-4)


def test_a_short_run_is_not_compiled(tmp_path: Path) -> None:
    plan, run = prepared(tmp_path, training={"max_steps": 8, "eval_strategy": "no"})
    _, _, trainer = trained(plan.model_copy(update={"speed": Speed(attention=VARLEN, compile="auto")}), run)
    (callback,) = [one for one in trainer.callback_handler.callbacks if isinstance(one, speed.CompileCallback)]
    assert callback.compiled == 0


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.1, False)])
def test_kernels_are_used_where_they_agree(monkeypatch: pytest.MonkeyPatch, factor: float, agrees: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(SMALL)
    before = torch.random.get_rng_state()
    replaced: list[Any] = []

    def kernels(one: Any, config: dict[str, bool]) -> None:
        assert config == {"fused_linear_cross_entropy": False, "cross_entropy": False}
        one.model.norm.weight.data *= factor
        replaced.append(one)

    monkeypatch.setattr("transformers.integrations.liger.apply_liger_kernel", kernels)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: name == "liger_kernel")
    plan = Plan.model_construct(speed=Speed(kernels=True))
    speed.set_up(model, plan)
    assert (model in replaced) is agrees
    assert replaced[0] is not model
    assert torch.equal(before, torch.random.get_rng_state())
    speed.set_up(model, Plan.model_construct(speed=Speed()))
    assert len(replaced) == 1 + agrees

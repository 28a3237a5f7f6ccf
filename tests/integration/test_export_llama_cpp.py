"""Exports checked by a real llama.cpp: good ones pass, and what can't be exported is refused."""

import errno
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from tests.support import tiny
from tests.support.exports import CHECKS, F16, check, codes, measured, scale_adapter, tuned_run
from tests.support.tiny import CHATML, make_adapter, make_base, make_run, make_tokenizer
from tunesmith.errors import EnvironmentLacksError
from tunesmith.export import export, stage
from tunesmith.export.engine import serve
from tunesmith.export.merge import Merge
from tunesmith.recipe.schema import Export
from tunesmith.records import Manifest
from tunesmith.rules import FindingsError


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_tuned_model_is_exported_and_proven(
    name: str, copy: Callable[[Path], Path], request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copy(request.getfixturevalue(name))
    labels = []
    manifest = export(run, Export(), progress=lambda label, done, total: labels.append(label))
    assert manifest.passed
    assert manifest.findings == []
    assert [artifact.path for artifact in manifest.artifacts] == [
        "export/merged",
        "export/model-f16.gguf",
        "export/model-q8_0.gguf",
    ]
    assert all(artifact.verified and artifact.sha256 for artifact in manifest.artifacts)
    for target, limit in (("model-f16.gguf", 1e-5), ("model-q8_0.gguf", 1e-3)):
        checks = [found for found in manifest.checks if found.target == target]
        assert [found.name for found in checks] == CHECKS
        assert all(found.passed for found in checks)
        assert measured(manifest, "distributions", target) == pytest.approx(0, abs=limit)
        assert "128 positions" in check(manifest, "distributions", target).what
        assert measured(manifest, "best tokens", target) > 0.98
    assert Manifest.load(run / "export") == manifest
    assert manifest.verifier is not None
    assert manifest.verifier.startswith("llama.cpp (xllamacpp ")
    assert {"writing f16", "checking model-q8_0.gguf"} <= set(labels)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("model_type", "split", "ignore_merges", "changes"),
    [
        ("mistral", "llama", True, {"head_dim": 16, "sliding_window": None}),
        ("qwen2", "qwen2", False, {}),
        ("llama", "gpt-2", False, {"attention_bias": True, "head_dim": 32}),
        ("qwen3", "smollm", False, {"num_key_value_heads": 4, "head_dim": 16}),
    ],
)
def test_other_architectures_and_tokenizers_pass_too(
    model_type: str, split: str, ignore_merges: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(split, ignore_merges=ignore_merges)
    manifest = export(tuned_run(tmp_path, model_type, tokenizer, **changes), Export())
    assert manifest.passed
    assert manifest.findings == []


def test_characters_of_several_tokens_pass_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the best token is half a character, llama.cpp's server sends no text yet."""
    tokenizer = make_tokenizer("qwen2")
    monkeypatch.setattr(tiny, "WORDS", ["龍馬", "鳳凰", "麒麟", "🦖🦕", "🪁", "🥝"])
    run = tuned_run(tmp_path, "qwen3", tokenizer, head_dim=16)
    answer = tiny.rows(1, 3)[0]["completion"][0]["content"]
    assert "\ufffd" in [tokenizer.decode([token]) for token in tokenizer(answer)["input_ids"]]
    manifest = export(run, F16)
    assert manifest.findings == []
    assert "128 positions" in check(manifest, "distributions").what


def test_the_engines_probabilities_are_those_before_the_forced_letter(
    qwen3: Path, copy: Callable[[Path], Path]
) -> None:
    run = copy(qwen3)
    export(run, F16)
    prefix = AutoTokenizer.from_pretrained(run / "model")("<|im_start|>user\nSwap red and")["input_ids"]
    with serve(run / "export" / "model-f16.gguf", context=64, threads=1, seconds=60) as engine:
        for end in range(1, len(prefix)):
            answer = engine._complete(prefix[:end], n_probs=20)
            free = {entry["id"]: entry["logprob"] for entry in answer["completion_probabilities"][0]["top_logprobs"]}
            forced = engine.best(prefix[:end], 20)
            assert forced == pytest.approx(free, abs=1e-6)
            assert list(forced) == list(free)


def test_the_merged_folder_is_a_whole_model_in_the_bases_dtype(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("qwen2")
    base = make_base(tmp_path / "base", "qwen3", tokenizer, dtype=torch.bfloat16, head_dim=32)
    make_adapter(base, tokenizer, tmp_path / "run" / "model")
    make_run(tmp_path / "run", base, dtype="bfloat16")
    manifest = export(tmp_path / "run", F16)
    assert manifest.passed
    merged = tmp_path / "run" / "export" / "merged"
    assert manifest.artifacts[0].dtype == "bfloat16"
    assert 0 < measured(manifest, "merged is the adapter's model", "merged") < 1e-3
    with safe_open(merged / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert AutoTokenizer.from_pretrained(merged).chat_template == CHATML
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.eos_token_id == tokenizer.eos_token_id
    assert len({file.stat().st_mode for file in merged.iterdir()}) == 1


def test_generation_settings_of_the_result_are_kept_and_its_eos_stops(
    qwen3: Path, copy: Callable[[Path], Path]
) -> None:
    run = copy(qwen3)
    GenerationConfig(eos_token_id=[5, 6], temperature=0.5, do_sample=True).save_pretrained(run / "model")
    assert export(run, F16).passed
    merged = GenerationConfig.from_pretrained(run / "export" / "merged")
    assert merged.eos_token_id == [AutoTokenizer.from_pretrained(run / "model").eos_token_id, 5, 6]
    assert merged.temperature == 0.5
    fields = gguf.GGUFReader(run / "export" / "model-f16.gguf").fields
    assert [fields[f"tokenizer.ggml.{key}_token_id"].contents() for key in ("eos", "eot", "eom")] == [1, 5, 6]


def test_a_full_disk_at_the_merge_leaves_nothing_half_done(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(model: Any, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fill_up)
    run = copy(qwen3)
    with pytest.raises(EnvironmentLacksError, match="disk is full"):
        export(run, F16)
    assert list((run / "export").iterdir()) == []


def stop_by_hand(*given: Any, **named: Any) -> Any:
    raise KeyboardInterrupt


def fill_the_disk(*given: Any, **named: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("step", "fault", "error"),
    [
        ("verify", stop_by_hand, KeyboardInterrupt),
        ("merge", stop_by_hand, KeyboardInterrupt),
        ("sha256", fill_the_disk, OSError),
    ],
)
def test_an_export_that_is_cut_off_changes_nothing(
    step: str,
    fault: Callable[..., Any],
    error: type[BaseException],
    qwen3: Path,
    copy: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = copy(qwen3)
    with monkeypatch.context() as patched:
        patched.setattr(stage, step, fault)
        with pytest.raises(error):
            export(run, F16)
    assert list((run / "export").iterdir()) == []
    export(run, F16)
    before = everything(run / "export")
    assert Manifest.load(run / "export").passed
    monkeypatch.setattr(stage, step, fault)
    with pytest.raises(error):
        export(run, Export())
    assert everything(run / "export") == before
    assert not (run / "export" / stage.PARTIAL).exists()


def test_a_full_disk_at_the_conversion_keeps_the_earlier_export(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy(qwen3)
    export(run, F16)
    before = everything(run / "export")
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fill_the_disk)
    with pytest.raises(EnvironmentLacksError, match="disk is full"):
        export(run, F16)
    assert everything(run / "export") == before


def test_what_a_killed_export_left_is_cleared_away(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    run = copy(qwen3)
    for left in (stage.PARTIAL, stage.PREVIOUS):
        (run / "export" / left).mkdir(parents=True)
        (run / "export" / left / "model-q8_0.gguf").write_text("half")
    export(run, Export(gguf=[]))
    assert {path.name for path in (run / "export").iterdir()} == {"manifest.json", "merged"}


def test_a_template_may_refuse_a_system_message(tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = make_tokenizer("qwen2", template=refusing)
    manifest = export(tuned_run(tmp_path, "qwen3", tokenizer, head_dim=16), F16)
    assert manifest.passed
    assert "of 3 chats" in check(manifest, "chat template").what


def test_plain_text_models_are_compared_with_their_bos(plain: Path) -> None:
    manifest = export(plain, F16)
    assert manifest.passed
    assert "chat template" not in [found.name for found in manifest.checks]


def test_a_whole_tuned_model_is_not_copied(qwen3: Path, tmp_path: Path) -> None:
    base = qwen3.parent / "base"
    make_base(
        tmp_path / "run" / "model", "qwen3", make_tokenizer("qwen2"), head_dim=32, tie_word_embeddings=True, steps=120
    )
    make_run(tmp_path / "run", base)
    manifest = export(tmp_path / "run", F16)
    assert manifest.passed
    assert [artifact.path for artifact in manifest.artifacts] == ["model", "export/model-f16.gguf"]
    assert manifest.artifacts[0].verified
    assert not (tmp_path / "run" / "export" / "merged").exists()


def test_a_second_export_leaves_nothing_of_the_first(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    run = copy(qwen3)
    export(run, Export(gguf=["q8_0"]))
    (run / "export" / "model-q8_0.gguf.failed").write_text("old")
    (run / "export" / "merged.failed").mkdir()
    (run / "export" / "Modelfile").write_text("the user's")
    export(run, F16)
    assert {path.name for path in (run / "export").iterdir()} == {
        "Modelfile",
        "manifest.json",
        "merged",
        "model-f16.gguf",
    }


def test_without_gguf_only_the_merged_model_is_made(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    manifest = export(copy(qwen3), Export(gguf=[]))
    assert manifest.passed
    assert [artifact.path for artifact in manifest.artifacts] == ["export/merged"]
    assert manifest.verifier is None


def test_an_unknown_architecture_keeps_the_merged_model(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("gpt-2")
    sizes = {"n_positions": 256, "n_embd": 32, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    for folder in (tmp_path / "base", tmp_path / "run" / "model"):
        GPT2LMHeadModel(GPT2Config(vocab_size=704, **sizes)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    make_run(tmp_path / "run", tmp_path / "base")
    with pytest.raises(FindingsError, match="GPT2LMHeadModel"):
        export(tmp_path / "run", F16)
    manifest = Manifest.load(tmp_path / "run" / "export")
    assert codes(manifest) == {"X006"}
    assert not manifest.passed
    assert [artifact.path for artifact in manifest.artifacts] == ["model"]


def test_an_unknown_tokenizer_keeps_the_merged_model(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    run = copy(qwen3)
    file = run / "model" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace(r"\\p{N}|", r"\\p{N}{1,2}|"), encoding="utf-8")
    with pytest.raises(FindingsError, match="X007"):
        export(run, F16)
    assert codes(Manifest.load(run / "export")) == {"X007"}
    assert (run / "export" / "merged" / "model.safetensors").exists()


def test_an_overflow_spares_the_other_type(qwen3: Path, tmp_path: Path) -> None:
    """One weight beyond f16, of a feature that is otherwise silent, so that the model still works."""
    model = AutoModelForCausalLM.from_pretrained(qwen3.parent / "base")
    block = model.model.layers[0].mlp
    block.up_proj.weight.data *= 1.01
    block.gate_proj.weight.data[0, 0] = 70000.0
    block.up_proj.weight.data[0] = 0.0
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(qwen3.parent / "base").save_pretrained(tmp_path / "model")
    make_run(tmp_path, qwen3.parent / "base")
    manifest = export(tmp_path, Export())
    assert "X011" in codes(manifest)
    assert not manifest.passed
    assert "model-f16.gguf" not in {check.target for check in manifest.checks}
    assert manifest.artifacts[-1].path == "export/model-q8_0.gguf"
    assert manifest.artifacts[-1].verified


def test_training_that_changed_almost_nothing_is_told(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    run = copy(qwen3)
    scale_adapter(run, qwen3.parent / "base", 0.0005)
    manifest = export(run, F16)
    effect = measured(manifest, "training changed the model", "merged")
    assert 1e-8 < effect < 2e-5
    (found,) = manifest.findings
    assert (found.code, found.severity) == ("X015", "note")
    assert f"{effect:.2e}" in found.what
    assert manifest.passed
    assert check(manifest, "distributions").threshold == 1e-5


@pytest.mark.parametrize(
    ("effect", "limit", "faint"),
    [(None, 1e-3, False), (1.0, 1e-3, False), (1e-4, 5e-5, False), (2e-5, 1e-5, False), (4e-6, 1e-5, True)],
)
def test_the_limit_follows_what_training_changed_down_to_rounding(
    effect: float | None, limit: float, faint: bool
) -> None:
    merged = Merge(Path(), None, None, effect, [])
    assert merged.limit == limit
    assert merged.faint == faint


def test_rows_of_odd_length_are_told(tmp_path: Path) -> None:
    run = tuned_run(tmp_path, "qwen2", make_tokenizer("qwen2"), intermediate_size=80)
    manifest = export(run, Export(gguf=["q8_0"]))
    (found,) = manifest.findings
    assert (found.code, found.severity) == ("X013", "note")
    assert "2 of 27 tensors" in found.what
    assert manifest.passed


@pytest.mark.parametrize(("limit", "value"), [("LONGEST_ANSWER", 1), ("LONGEST_PROMPT", 1), ("DECIDED", 1.1)])
def test_answers_that_do_not_surely_end_leave_stopping_unclaimed(
    limit: str, value: float, qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("tunesmith.export.compare"), limit, value)
    manifest = export(copy(qwen3), F16)
    (found,) = manifest.findings
    assert (found.code, found.severity) == ("X014", "note")
    assert "Stopping of model-f16.gguf" in found.what
    assert manifest.passed


def test_without_rows_the_distributions_are_unclaimed(qwen3: Path, copy: Callable[[Path], Path]) -> None:
    run = copy(qwen3)
    make_run(run, qwen3.parent / "base", [{"text": ""}])
    manifest = export(run, F16)
    assert codes(manifest) == {"X014"}
    assert len(manifest.findings) == 2
    assert [found.name for found in manifest.checks] == ["loads", "token ids", "chat template", "stopping"]
    assert not manifest.artifacts[0].verified


def test_texts_that_nfc_changes_are_left_out(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = make_tokenizer("qwen2")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    manifest = export(tuned_run(tmp_path, "qwen3", tokenizer, head_dim=16), F16)
    assert manifest.passed
    assert "that the tokenizer normalises left out" in check(manifest, "token ids").what

"""Exports checked by a real llama.cpp: good ones pass, and each known fault is found."""

import dataclasses
import errno
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraModel
from safetensors import safe_open
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from tests.support.runs import SMALL, make_plan
from tests.support.tiny import CHATML, LLAMA3_ROPE, OTHER, make_adapter, make_base, make_run, make_tokenizer, rows
from tunesmith.errors import EnvironmentLacksError
from tunesmith.export import architectures, export, stage
from tunesmith.export.convert import convert
from tunesmith.export.tokenizer import PRE_TOKENIZERS, QWEN2_SPLIT, Vocabulary, read_vocabulary
from tunesmith.recipe.schema import Export
from tunesmith.records import Check, Manifest
from tunesmith.rules import FindingsError

F16 = Export(gguf=["f16"])
CHECKS = ["loads", "token ids", "chat template", "distributions", "best tokens", "stopping"]
OTHER_TOKENS: dict[str, Any] = {"bos_token": "<|begin|>", "eos_token": "<|fin|>"}

convert_module = importlib.import_module("tunesmith.export.convert")


def tuned_run(folder: Path, model_type: str, tokenizer: Any, **changes: Any) -> Path:
    """A run folder with a trained adapter; its base is in `folder / "base"`."""
    base = make_base(folder / "base", model_type, tokenizer, **changes)
    make_adapter(base, tokenizer, folder / "run" / "model")
    make_run(folder / "run", base)
    return folder / "run"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama with scaled rope, a stop token that llama.cpp doesn't know by name, and a template that writes BOS."""
    tokenizer = make_tokenizer("llama", template=OTHER, **OTHER_TOKENS)
    return tuned_run(tmp_path_factory.mktemp("llama"), "llama", tokenizer, rope_parameters=LLAMA3_ROPE)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3 with ChatML, embeddings used as output head, and heads larger than hidden size / heads."""
    tokenizer = make_tokenizer("qwen2")
    return tuned_run(tmp_path_factory.mktemp("qwen3"), "qwen3", tokenizer, head_dim=32, tie_word_embeddings=True)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Makes a run folder of the test's own."""
    return lambda run: shutil.copytree(run, tmp_path / "run")


def codes(manifest: Manifest) -> set[str]:
    return {found.code for found in manifest.findings}


def check(manifest: Manifest, name: str, target: str = "model-f16.gguf") -> Check:
    (found,) = [check for check in manifest.checks if check.target == target and check.name == name]
    return found


def measured(manifest: Manifest, name: str, target: str = "model-f16.gguf") -> float:
    value = check(manifest, name, target).value
    assert value is not None
    return value


def assert_failed(run: Path, manifest: Manifest, expected: set[str]) -> None:
    """The f16 file failed by exactly the `expected` rules, and can't be taken for a good one."""
    assert codes(manifest) == expected
    assert not manifest.passed
    assert all(found.severity == "error" for found in manifest.findings)
    artifact = manifest.artifacts[-1]
    assert artifact.path == "export/model-f16.gguf.failed"
    assert not artifact.verified
    assert (run / artifact.path).exists()
    assert not list((run / "export").glob("*.gguf"))


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


def test_a_template_may_refuse_a_system_message(tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = make_tokenizer("qwen2", template=refusing)
    manifest = export(tuned_run(tmp_path, "qwen3", tokenizer, head_dim=16), F16)
    assert manifest.passed
    assert "of 3 chats" in check(manifest, "chat template").what


@pytest.fixture
def plain(qwen3: Path, copy: Callable[[Path], Path]) -> Path:
    """A run without a chat template, on plain text, whose tokenizer puts BOS before it."""
    run = copy(qwen3)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    bos = "<|im_start|>"
    processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 2)])
    tokenizer.backend_tokenizer.post_processor = processor
    tokenizer.bos_token = bos
    tokenizer.chat_template = None
    (run / "model" / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(run / "model")
    make_run(run, qwen3.parent / "base", [{"text": f"Swap {first} and red."} for first in ("blue", "lamp", "tom")])
    return run


def test_plain_text_models_are_compared_with_their_bos(plain: Path) -> None:
    manifest = export(plain, F16)
    assert manifest.passed
    assert "chat template" not in [found.name for found in manifest.checks]


def test_a_lost_bos(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_vocabulary(monkeypatch, add_bos=False)
    manifest = export(plain, F16)
    assert codes(manifest) - {"X014"} == {"X001"}


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


def test_q_and_k_not_permuted(llama: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    table = architectures.ARCHITECTURES
    entry = dataclasses.replace(table["LlamaForCausalLM"], permute=False)
    monkeypatch.setitem(table, "LlamaForCausalLM", entry)
    run = copy(llama)
    manifest = export(run, F16)
    assert_failed(run, manifest, codes(manifest) & {"X003", "X004", "X005"})
    assert "X003" in codes(manifest)
    assert measured(manifest, "distributions") > 0.01


def test_rope_factors_missing(llama: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "extra_tensors", lambda config: {})
    manifest = export(copy(llama), F16)
    assert "X003" in codes(manifest)


def test_the_adapter_not_merged(qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    base = qwen3.parent / "base"
    monkeypatch.setattr(stage, "convert", lambda source, *rest, **options: convert(base, *rest, **options))
    run = copy(qwen3)
    manifest = export(run, F16)
    assert "X003" in codes(manifest)
    effect = measured(manifest, "training changed the model", "merged")
    # The same divergence, seen from the other side.
    assert measured(manifest, "distributions") > effect / 10
    assert not list((run / "export").glob("*.gguf"))


def test_a_light_adapter_not_merged(qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that changed little is lost all the same, though the files' own limit would let it pass."""
    run = copy(qwen3)
    base = AutoModelForCausalLM.from_pretrained(qwen3.parent / "base")
    adapter = PeftModel.from_pretrained(base, str(run / "model"))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data *= 0.01
    adapter.save_pretrained(run / "model")
    assert export(run, F16).passed
    folder = qwen3.parent / "base"
    monkeypatch.setattr(stage, "convert", lambda source, *rest, **options: convert(folder, *rest, **options))
    manifest = export(run, F16)
    assert measured(manifest, "distributions") < 1e-3
    assert_failed(run, manifest, {"X003"})


def test_a_pre_tokenizer_that_splits_otherwise(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRE_TOKENIZERS, ((QWEN2_SPLIT,), False), "gpt-2")
    run = copy(qwen3)
    manifest = export(run, F16)
    assert_failed(run, manifest, {"X001"})
    assert check(manifest, "distributions").passed


def change_vocabulary(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def changed(*given: Any, **named: Any) -> Vocabulary:
        vocabulary = read_vocabulary(*given, **named)
        special = vocabulary.special | changes.get("special", {})
        return dataclasses.replace(vocabulary, **(changes | {"special": special}))

    monkeypatch.setattr(stage, "read_vocabulary", changed)


@pytest.mark.parametrize("template", [None, CHATML, OTHER.replace(" | trim", "")])
def test_a_chat_template_lost_or_changed(
    template: str | None, llama: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_vocabulary(monkeypatch, template=template)
    run = copy(llama)
    assert_failed(run, export(run, F16), {"X002"})


def test_a_lost_template_is_seen_where_llama_cpps_own_fits(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_vocabulary(monkeypatch, template=None)
    run = copy(qwen3)
    manifest = export(run, F16)
    assert_failed(run, manifest, {"X002"})
    assert "the template's text" in check(manifest, "chat template").what


def test_a_wrong_stop_token(llama: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    change_vocabulary(monkeypatch, special={"eos": 0})
    run = copy(llama)
    manifest = export(run, F16)
    assert_failed(run, manifest, {"X005"})
    # Every answer runs on, and the token has another text.
    assert measured(manifest, "stopping") > 1
    assert "the EOS token" in check(manifest, "stopping").what


def test_a_wrong_stop_token_is_seen_where_llama_cpp_knows_the_right_one_by_name(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_vocabulary(monkeypatch, special={"eos": 0})
    run = copy(qwen3)
    manifest = export(run, F16)
    assert_failed(run, manifest, {"X005"})
    assert measured(manifest, "stopping") == 1


def test_a_merge_that_loses_the_adapter(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraModel, "merge_and_unload", LoraModel.unload)
    run = copy(qwen3)
    manifest = export(run, F16)
    assert codes(manifest) == {"X008"}
    assert not manifest.passed
    assert [(artifact.path, artifact.verified) for artifact in manifest.artifacts] == [("export/merged.failed", False)]
    assert {path.name for path in (run / "export").iterdir()} == {"merged.failed", "manifest.json"}


def test_training_that_changed_nothing(tmp_path: Path) -> None:
    shutil.copytree(SMALL, tmp_path / "model")
    make_plan(tmp_path, rows(20, 3))
    manifest = export(tmp_path, F16)
    assert codes(manifest) == {"X009"}
    assert not manifest.passed
    assert [(artifact.path, artifact.verified) for artifact in manifest.artifacts] == [("model", False)]
    assert (tmp_path / "model").is_dir()


def test_a_file_cut_short(qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(source: Path, target: Path, *rest: Any, **options: Any) -> Any:
        converted = convert(source, target, *rest, **options)
        os.truncate(target, target.stat().st_size // 2)
        return converted

    monkeypatch.setattr(stage, "convert", cut)
    run = copy(qwen3)
    manifest = export(run, F16)
    assert_failed(run, manifest, {"X012"})
    what = manifest.findings[0].what
    assert what.startswith("llama.cpp can't use model-f16.gguf: llama_model_load: error")
    assert "not within the file bounds" in what


class Watched(subprocess.Popen[bytes]):
    """Processes that were started, to be looked at or ended from outside."""

    started: list["Watched"]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        Watched.started.append(self)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    Watched.started = []
    monkeypatch.setattr(subprocess, "Popen", Watched)
    return Watched.started


def test_an_engine_that_dies_is_a_failed_check(
    qwen3: Path, copy: Callable[[Path], Path], servers: list[Watched]
) -> None:
    def kill(label: str, done: int, total: int | None) -> None:
        if label.startswith("checking") and done == 5:
            servers[0].kill()
            servers[0].wait()

    run = copy(qwen3)
    manifest = export(run, F16, progress=kill)
    assert_failed(run, manifest, {"X012"})
    assert "died" in manifest.findings[0].what


def test_each_server_ends_with_its_checks(qwen3: Path, copy: Callable[[Path], Path], servers: list[Watched]) -> None:
    export(copy(qwen3), Export())
    assert [server.returncode for server in servers] == [0, 0]


def test_without_llama_cpp_nothing_is_claimed(
    qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    manifest = export(copy(qwen3), F16)
    (found,) = manifest.findings
    assert (found.code, found.severity) == ("X010", "warning")
    assert "pip install 'tunesmith[gguf]'" in found.fix
    assert manifest.verifier is None
    assert manifest.passed
    assert [(artifact.path, artifact.verified) for artifact in manifest.artifacts] == [
        ("export/merged", True),
        ("export/model-f16.gguf", False),
    ]
    assert not [found for found in manifest.checks if found.target.endswith(".gguf")]


def test_a_broken_llama_cpp_is_as_good_as_none(
    qwen3: Path, copy: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "src")]))
    manifest = export(copy(qwen3), F16)
    assert codes(manifest) == {"X010"}
    assert "libgomp.so.1 is missing" in manifest.findings[0].what
    assert not manifest.artifacts[-1].verified


@pytest.mark.parametrize(
    ("module", "limit", "reason"),
    [("verify", "SECONDS", "took too long"), ("engine", "_LOAD_SECONDS", "didn't load it within 0 seconds")],
)
def test_an_engine_that_is_too_slow_claims_nothing(
    module: str, limit: str, reason: str, qwen3: Path, copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(f"tunesmith.export.{module}"), limit, 0.0)
    manifest = export(copy(qwen3), F16)
    assert codes(manifest) == {"X010"}
    assert reason in manifest.findings[0].what
    assert "faster or less busy" in manifest.findings[0].fix
    assert not manifest.artifacts[-1].verified


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

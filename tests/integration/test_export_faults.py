"""Exports that are wrong on purpose: a real llama.cpp finds each known fault."""

import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft.tuners.lora import LoraModel

from tests.support.exports import (
    F16,
    assert_failed,
    change_vocabulary,
    check,
    codes,
    convert_module,
    measured,
    scale_adapter,
)
from tests.support.runs import SMALL, make_plan
from tests.support.tiny import CHATML, OTHER, rows
from tunesmith.export import architectures, export, stage
from tunesmith.export.convert import convert
from tunesmith.export.tokenizer import PRE_TOKENIZERS, QWEN2_SPLIT
from tunesmith.recipe.schema import Export


def test_a_lost_bos(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_vocabulary(monkeypatch, add_bos=False)
    manifest = export(plain, F16)
    assert codes(manifest) - {"X014"} == {"X001"}


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
    scale_adapter(run, qwen3.parent / "base", 0.01)
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

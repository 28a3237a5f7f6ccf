"""The export stage: a run's result as a merged model and GGUF files, each checked before it keeps its name."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import disk_errors, make_folder, sha256
from ..models.load import load_tokenizer
from ..progress import Progress, silent
from ..recipe.schema import Export
from ..records import Artifact, Check, Finding, Manifest, Plan, Severity
from ..rules import FindingsError, finding, refuse_errors
from .architectures import look_up
from .compare import stop_tokens
from .convert import Kind, convert
from .engine import version
from .merge import FLOOR, MERGED, Merge, merge, merge_scores
from .probes import encode, held_out
from .tokenizer import Vocabulary, read_vocabulary
from .verify import Expected, expect, verify

RESULT = "model"
FOLDER = "export"
FAILED = ".failed"
PARTIAL = ".partial"
PREVIOUS = ".previous"


@dataclass
class _Export:
    """An export under way."""

    run: Path
    progress: Progress
    artifacts: list[Artifact] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """Where files are made; they move one level up when all is done."""
        return self.run / FOLDER / PARTIAL

    def final(self, path: Path) -> str:
        """Where a file or folder will be, relative to the run folder."""
        made_here = path.parent == self.folder
        return str(Path(FOLDER, path.name) if made_here else path.relative_to(self.run))

    def manifest(self) -> Manifest:
        errors = any(found.severity == "error" for found in self.findings)
        return Manifest(
            artifacts=self.artifacts,
            checks=self.checks,
            verifier=version() if any(check.target.endswith(".gguf") for check in self.checks) else None,
            passed=not errors and all(check.passed for check in self.checks),
            seconds=time.monotonic() - self.started,
            findings=self.findings,
        )


@dataclass(frozen=True)
class _Source:
    """What GGUF files are made of: the model's folder, its Transformers config, and its tokenizer translated."""

    folder: Path
    config: Any
    vocabulary: Vocabulary


def export(folder: Path, settings: Export, *, progress: Progress = silent) -> Manifest:
    """Export the result of the run in `folder`: the merged model, and a GGUF file of each type in the settings.

    What fails a check keeps lying there under a name that ends in `.failed`, and the manifest tells why. An earlier
    export stays untouched until the new one is complete, so an interrupted one changes nothing.

    Raises:
        FindingsError: X006 or X007, the model can't be written as GGUF; the merged model and a manifest are there.
            X016, there is nothing to merge.
        EnvironmentLacksError: the disk is full or not writable.
        UsageError: the run has no plan or no result, or its base model can't be loaded.
    """
    plan = Plan.load(folder)
    work = _Export(folder, progress)
    make_folder(work.folder.parent)
    shutil.rmtree(work.folder, ignore_errors=True)
    make_folder(work.folder)
    try:
        return _export(work, plan, settings)
    finally:
        shutil.rmtree(work.folder, ignore_errors=True)


def _export(work: _Export, plan: Plan, settings: Export) -> Manifest:
    folder = work.run
    if plan.peft and plan.peft.virtual:
        return _nothing_to_merge(work, plan, settings)
    tokenizer = load_tokenizer(folder / RESULT)
    raw = held_out(folder, plan)
    rows = encode(raw, tokenizer)
    if plan.head == "score":
        work.findings.append(finding("X018", "export"))
        _keep_merged(work, merge_scores(plan, folder / RESULT, tokenizer, rows, work.folder), plan.model.dtype)
        return _publish(work)
    merged = merge(plan, folder / RESULT, tokenizer, rows, work.folder, work.progress)
    try:
        types = settings.types(plan.method, virtual=False)
        if _keep_merged(work, merged, plan.model.dtype) and types:
            source = _translate(merged, tokenizer)
            expected = expect(merged, tokenizer, rows, raw)
            del merged  # frees the weights
            for kind in dict.fromkeys(types):
                _make(work, kind, source, expected)
    except FindingsError as error:
        work.findings.extend(error.findings)
        _publish(work)
        raise
    return _publish(work)


def _nothing_to_merge(work: _Export, plan: Plan, settings: Export) -> Manifest:
    """A manifest that says so: virtual tokens change no weight.

    Raises:
        FindingsError: X016, GGUF files are asked for.
    """
    severity: Severity = "error" if settings.types(plan.method, virtual=True) else "note"
    work.findings.append(finding("X016", "export", severity=severity, trained=plan.trained))
    manifest = _publish(work)
    refuse_errors(work.findings)
    return manifest


def _publish(work: _Export) -> Manifest:
    """Put what was made in the place of an earlier export, by renaming alone; the manifest leaves first, comes last."""
    manifest = work.manifest()
    manifest.save(work.folder)
    target = work.folder.parent
    previous = target / PREVIOUS
    with disk_errors(target):
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir()
        for old in reversed(_results(target)):
            old.replace(previous / old.name)
        for new in _results(work.folder):
            new.replace(target / new.name)
        shutil.rmtree(previous, ignore_errors=True)
    return manifest


def _results(folder: Path) -> list[Path]:
    """What exports leave in a folder, and nothing else; the manifest is last."""
    single = (folder / name for name in (MERGED, MERGED + FAILED, Manifest.filename))
    found = (*folder.glob("*.gguf"), *folder.glob(f"*.gguf{FAILED}"), *single)
    return [path for path in found if path.exists()]


def _keep_merged(work: _Export, merged: Merge, dtype: str) -> bool:
    """Enter the merged model; whether it is fit to be converted."""
    work.checks.extend(merged.checks)
    work.findings.extend(merged.findings)
    for check in merged.checks:
        if not check.passed:
            assert check.code is not None
            work.findings.append(finding(check.code, "export", value=check.value, limit=check.threshold))
    passed = all(check.passed for check in merged.checks)
    folder = merged.folder
    if passed and merged.faint:
        work.findings.append(finding("X015", "export", value=merged.effect, limit=FLOOR))
    if not passed and folder.parent == work.folder:
        folder = _disown(folder)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    weights = [file for file in files if file.suffix == ".safetensors"]
    work.artifacts.append(
        Artifact(
            path=work.final(folder),
            kind="merged",
            dtype=dtype,
            bytes=sum(file.stat().st_size for file in files),
            sha256=sha256(weights[0]) if len(weights) == 1 else None,
            verified=passed and bool(merged.checks),
        )
    )
    return passed


def _translate(merged: Merge, tokenizer: Any) -> _Source:
    """Find out how the model is written as GGUF, before any work is done for it."""
    config = merged.model.config
    look_up(config)
    vocabulary = read_vocabulary(tokenizer, size=config.vocab_size, stops=stop_tokens(merged.model))
    return _Source(merged.folder, config, vocabulary)


def _make(work: _Export, kind: Kind, source: _Source, expected: Expected) -> None:
    """Write one GGUF file and check it."""
    import torch

    path = work.folder / f"model-{kind}.gguf"
    try:
        converted = convert(source.folder, path, kind, source.config, source.vocabulary, progress=work.progress)
    except FindingsError as error:
        if error.findings[0].code != "X011":
            raise
        work.findings.extend(error.findings)
        return
    verdict = verify(path, kind, expected, threads=torch.get_num_threads(), progress=work.progress)
    if converted.coarse:
        verdict.tell("X013", count=len(converted.coarse), total=converted.tensors)
    work.checks.extend(verdict.checks)
    work.findings.extend(verdict.findings)
    kept = path if verdict.passed else _disown(path)
    work.artifacts.append(
        Artifact(
            path=work.final(kept),
            kind="gguf",
            dtype=kind,
            bytes=kept.stat().st_size,
            sha256=sha256(kept),
            verified=verdict.verified,
        )
    )


def _disown(path: Path) -> Path:
    """Rename what failed, so that nobody ships it by accident."""
    failed = path.with_name(path.name + FAILED)
    path.replace(failed)
    return failed

"""Rows that are good are good under each of TRL's chat templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.planted_tokens import Row, row
from tests.support.templates import TEMPLATES, save_tokenizer, template_text
from tunesmith.data.rendered import rendered_findings
from tunesmith.models.light import LightTokenizer

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s


def test_good_rows_are_good_under_each_template_of_trl(tmp_path: Path) -> None:
    """But for one: GLM-4.5's template ends an answer with the next turn only, so that no stop token is trained."""
    accused = {}
    for name in TEMPLATES:
        light = LightTokenizer(save_tokenizer(template_text(name), tmp_path / name))
        rows = [row("a lamp\n  and more", system=system) for system in ("Be brief.", "")]
        taken = [each for each in rows if takes(light, each)]
        findings = rendered_findings(taken, light, "rows")
        if findings:
            accused[name] = [finding.code for finding in findings]
    assert accused == {"glm4moe": ["T017"]}


def takes(light: LightTokenizer, given: Row) -> bool:
    """Whether a template takes texts as content and knows the system role; those of vision models want parts."""
    try:
        return "lamp" in light.render([*given["prompt"], *given["completion"]])
    except Exception:  # whatever Jinja raises
        return False

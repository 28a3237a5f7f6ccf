"""Every command of docs/data.md runs as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.planted_data import LONGER, write
from tests.support.planted_quality import asked

GUIDE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", GUIDE, re.MULTILINE)
RECIPE = re.findall(r"^```yaml\n(.+?)^```", GUIDE, re.MULTILINE | re.DOTALL)
FILES = {
    "rows.jsonl": asked(200),
    "folder/rows.jsonl": asked(200),
    "more/rows.jsonl": asked(50),
    "web.jsonl": [row | {"lang": "en"} for row in LONGER[:240]],
    "books.jsonl": [row | {"lang": "en"} for row in LONGER[240:]],
    "qa.jsonl": [
        {"context": "", "question": row["prompt"], "answer": row["completion"], "lang": "en", "topic": number % 40}
        for number, row in enumerate(LONGER)
    ],
}


@pytest.mark.slow
def test_the_guide_s_commands_run_one_after_another() -> None:
    for name, rows in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        write(Path(name), rows)
    (recipe,) = RECIPE
    Path("recipe.yaml").write_text(recipe, encoding="utf-8")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in COMMANDS:
        ended = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    assert len(COMMANDS) == 10

"""Every layout that sft can train on, directly or by the mapping of docs/data-layouts.md, is really trained."""

import json
from pathlib import Path

import pytest
import trl

from tests.support.layouts import Documented, documented
from tunesmith.data.tokens import audit
from tunesmith.models.facts import model_facts
from tunesmith.models.load import load_tokenizer
from tunesmith.models.source import locate
from tunesmith.pipeline import prepare_run, train_run
from tunesmith.recipe import Recipe
from tunesmith.records import Plan

pytestmark = pytest.mark.slow
LAYOUTS = [layout for layout in documented() if "sft" in layout.trained]
TRAINED = [
    "ShareGPT",
    "tool calls (glaive)",
    "preference, transcripts (HH-RLHF)",
    "choices and the index of the right one",
]


# The small model's own template knows neither tools nor reasoning.
KNOWS_TOOLS = Path(trl.__file__).parent / "chat_templates" / "qwen3_training.jinja"


def template(layout: Documented) -> str | None:
    needed = layout.name.startswith(("tool calls", "ShareGPT with", "reasoning beside", "reasoning as a part"))
    return str(KNOWS_TOOLS) if needed else None


def prepared(layout: Documented, folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text((json.dumps(layout.row, ensure_ascii=False) + "\n") * 4, encoding="utf-8")
    data = {"train": str(path), "eval": 0, "mapping": layout.mapping("sft"), "filter": layout.filter("sft")}
    training = {"max_steps": 1, "report_to": "none"}
    recipe = Recipe(model="builtin:small", data=data, training=training, chat_template=template(layout))
    return prepare_run(recipe, folder / "run")


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.name for layout in LAYOUTS])
def test_trl_trains_something_of_every_row(layout: Documented, tmp_path: Path) -> None:
    run = prepared(layout, tmp_path)
    plan = Plan.load(run)
    rows = [json.loads(line) for line in (run / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == plan.train.rows == 4
    source = locate("builtin:small", None)
    kept = {"max_length": 2048, "assistant_only_loss": "messages" in rows[0]}
    found = audit(
        rows,
        "messages" if "messages" in rows[0] else "text" if "text" in rows[0] else "prompt-completion",
        load_tokenizer(source.location, chat_template=template(layout)),
        training=kept,
        stop_ids=model_facts(source).stop_ids,
    )
    assert (found.rows_kept, found.rows_untrained, found.rows_cut) == (4, 0, 0)
    assert 0 < found.trained_tokens <= found.tokens


@pytest.mark.parametrize(
    "layout", [layout for layout in LAYOUTS if layout.name in TRAINED], ids=lambda layout: layout.name
)
def test_a_step_is_trained(layout: Documented, tmp_path: Path) -> None:
    record = train_run(prepared(layout, tmp_path))
    assert (record.status, record.step) == ("done", 1)

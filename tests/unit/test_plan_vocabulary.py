"""The rules on tokens that the model doesn't have, or never learnt."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, make_recipe, rows_of
from tests.support.runs import SMALL
from tunesmith.models.facts import model_facts
from tunesmith.models.light import LightTokenizer
from tunesmith.models.source import locate
from tunesmith.plan.vocabulary import check_vocabulary
from tunesmith.records import Finding, ModelFacts

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LLAMA = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"
GEMMA = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
WIDE = "{% for m in messages %}<\uff5c{{ m.role }}\uff5c>{{ m.content }}{% endfor %}"


def facts(**changes: Any) -> ModelFacts:
    return model_facts(locate("builtin:small")).model_copy(update=changes)


def checked(
    model: ModelFacts, template: str | None = None, rows: list[dict[str, Any]] | None = None, **keys: Any
) -> list[Finding]:
    if template:
        Path("own.jinja").write_text(template)
        keys["chat_template"] = "own.jinja"
    recipe = make_recipe(rows, **keys)
    return list(check_vocabulary(recipe, model, LightTokenizer(SMALL, recipe.chat_template), rows_of(recipe)))


def test_a_model_with_its_own_template_has_nothing_against_it() -> None:
    assert checked(facts()) == []
    assert checked(facts(kind="instruct")) == []


@pytest.mark.parametrize(
    ("template", "markers"),
    [
        (LLAMA, "<|start_header_id|>, <|end_header_id|>, <|eot_id|>"),
        (GEMMA, "<start_of_turn>, <end_of_turn>"),
        (WIDE, "<\uff5cuser\uff5c>, <\uff5cassistant\uff5c>"),
    ],
)
def test_p020_turn_markers_that_are_no_tokens(template: str, markers: str) -> None:
    (one,) = checked(facts(), template)
    assert (one.code, one.severity, one.where) == ("P020", "warning", "chat template")
    assert one.what == f"builtin:small has no tokens for {markers}, which the chat template writes."


def test_p020_is_silent_on_markers_that_the_model_has_and_on_words() -> None:
    assert checked(facts(), CHATML) == []
    assert checked(facts(), "{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}") == []
    assert checked(facts(), LLAMA, [{"text": f"line {n}"} for n in range(240)]) == [], "no template is used"
    assert checked(facts(), "{{ raise_exception('no') }}", [{"text": f"line {n}"} for n in range(240)]) == []


def test_p029_markers_that_a_base_model_may_not_know() -> None:
    (one,) = checked(facts(kind="base"), CHATML)
    assert (one.code, one.severity) == ("P029", "warning")
    assert "the template writes <|im_start|>, and LoRA" in one.what, "<|im_end|> is its EOS, which base models know"
    assert [one.code for one in checked(facts(kind="base"))] == ["P029"], "its own template is no proof"
    assert checked(facts(kind="base"), CHATML, adapter={"kind": "none"}) == []
    assert checked(facts(kind="instruct"), CHATML) == []


def test_p021_tokens_without_an_embedding() -> None:
    whole = facts().vocabulary
    tokens = LightTokenizer(SMALL).beyond(whole - 200)
    assert tokens
    assert all(number >= whole - 200 for number in tokens.values())
    end = LightTokenizer(SMALL).beyond(0)["<|im_end|>"]
    (one,) = checked(facts(vocabulary=end))
    assert (one.code, one.severity) == ("P021", "error")
    assert f"of id {end}, and the model's embedding has {end} rows" in one.what
    assert checked(facts(vocabulary=0)) == [], "not known"
    assert LightTokenizer(SMALL).beyond(whole) == {}


def test_p021_looks_into_the_rows_for_tokens_of_other_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 1B has an image token without an embedding, which no text has."""
    monkeypatch.setattr(LightTokenizer, "beyond", lambda self, rows: {"<image_soft_token>": rows})
    assert checked(facts()) == []
    rows = [*chat_rows(240), {**chat_rows(1)[0], "prompt": [{"role": "user", "content": "see <image_soft_token>"}]}]
    (one,) = checked(facts(), None, rows)
    assert (one.code, "<image_soft_token>" in one.what) == ("P021", True)


@pytest.mark.parametrize("token", ["<|pad|>", "<|im_start|>"])
def test_p021_tokens_that_fill_up_rows_or_stand_in_the_template(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LightTokenizer, "beyond", lambda self, rows: {token: rows, "<image>": rows + 1})
    (one,) = checked(facts())
    assert (one.code, token in one.what) == ("P021", True)


def test_the_light_tokenizer_knows_its_tokens() -> None:
    light = LightTokenizer(SMALL)
    assert light.has_token("<|im_start|>")
    assert not light.has_token("<|im_start")
    assert light.named_tokens() >= {"<|im_end|>", "<|pad|>"}

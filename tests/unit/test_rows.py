"""The rows of a run: read, split, measured, and refused before a trainer sees them."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import chat_rows, make_plan, make_recipe, rows_of, write_rows
from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.light import LightTokenizer
from tunesmith.plan.rows import Rows, gather_rows
from tunesmith.recipe import Recipe
from tunesmith.rules import FindingsError

CRITIC = {"messages": [{"role": "system", "content": "s"}, {"role": "critic", "content": "x"}]}


def codes(rows: Rows) -> list[str]:
    return [found.code for found in rows.findings]


def strict_template(tmp_path: Path) -> str:
    """A template that refuses what isn't asked in capitals, and trips over what is too short."""
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('No bad words!') }}{% endif %}"
        "{% if 'odd' in m.content %}{{ m.content + 3 }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    return str(path)


def with_words(count: int, *words: str) -> list[dict[str, Any]]:
    """Chats, some of which have a word in their prompts."""
    rows = chat_rows(count)
    for index, word in enumerate(words):
        rows[3 * index]["prompt"][0]["content"] += word
    return rows


def test_rows_are_split_and_measured() -> None:
    rows = rows_of(make_recipe(data={"eval": 0.25}))
    assert (len(rows.train), len(rows.eval), rows.test) == (180, 60, [])
    assert (rows.layout, rows.loss_on, rows.needs_template) == ("prompt-completion", "completion", True)
    light = LightTokenizer(SMALL)
    prompts, totals = light.encode_rows(rows.train, rows.layout)
    assert rows.token_counts == totals
    assert rows.lengths.total.total == sum(totals)
    assert rows.lengths.prompt is not None
    assert rows.lengths.prompt.total == sum(prompts or [])


def test_eval_and_test_rows_are_taken_from_the_training_rows_without_overlap() -> None:
    rows = rows_of(make_recipe(chat_rows(100), data={"eval": 0.1, "test": 0.2}))
    sides = [{json.dumps(row) for row in side} for side in (rows.train, rows.eval, rows.test)]
    assert [len(side) for side in sides] == [72, 10, 18]
    assert len(set.union(*sides)) == 100
    without = rows_of(make_recipe(chat_rows(100), data={"eval": 0.1}))
    assert without.eval == rows.eval  # whatever else is set aside
    assert rows_of(make_recipe(chat_rows(100), data={"eval": 0, "test": 0.2})).eval == []


def test_the_seed_decides_the_split() -> None:
    first, again, other = (rows_of(make_recipe(seed=seed)).eval for seed in (1, 1, 2))
    assert first == again != other


def test_the_record_of_a_split() -> None:
    rows = rows_of(make_recipe(data={"eval": 0.25}))
    content = rows.content("train")
    longest = max(rows.token_counts)
    split = rows.split("train", max_length=longest - 1)
    assert (split.path, split.rows, split.sha256) == ("data/train.jsonl", 180, hashlib.sha256(content).hexdigest())
    assert split.longest == longest
    assert split.cut == rows.token_counts.count(longest)
    assert split.tokens == sum(rows.token_counts) - split.cut  # what is cut isn't trained on
    whole = rows.split("train", max_length=longest)
    assert (whole.cut, whole.tokens) == (0, sum(rows.token_counts))
    assert rows.split("train").model_copy() == whole
    held_out = rows.split("eval")
    assert (held_out.path, held_out.rows, held_out.tokens, held_out.longest) == ("data/eval.jsonl", 60, None, None)


def test_content_is_json_lines_as_text() -> None:
    rows = rows_of(make_recipe([{"text": f"grün \u2028 {n}"} for n in range(20)]))
    lines = rows.content("train").split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == rows.train
    assert "grün" in lines[0].decode()
    assert lines[-1] == b""


def test_files_for_eval_and_test() -> None:
    held_out = write_rows(Path("eval.jsonl"), chat_rows(600)[300:400])
    test = write_rows(Path("test.jsonl"), chat_rows(600)[400:])
    rows = rows_of(make_recipe(data={"eval": held_out, "test": test}))
    assert (len(rows.train), len(rows.eval), len(rows.test)) == (240, 100, 200)
    assert rows.findings == []


def test_d010_prompts_on_both_sides_and_d011_few_rows() -> None:
    test = write_rows(Path("test.jsonl"), chat_rows(50))
    rows = rows_of(make_recipe(data={"test": test}))
    assert codes(rows) == ["D010", "D011"]
    assert rows.findings[0].where == "test"
    held_out = write_rows(Path("eval.jsonl"), chat_rows(20))
    assert rows_of(make_recipe(data={"eval": held_out})).findings[0].where == "eval"


def test_d026_prompts_held_out_that_nearly_repeat_training_prompts() -> None:
    def chats(first: int, count: int, end: str = "") -> list[dict[str, Any]]:
        texts = [" ".join(f"w{n * 31 + k * k}" for k in range(30)) + end for n in range(first, first + count)]
        return [{"prompt": text, "completion": f"lamp {n}"} for n, text in enumerate(texts)]

    clean = write_rows(Path("clean.jsonl"), chats(500, 120))
    assert rows_of(make_recipe(chats(0, 150), data={"eval": 0, "test": clean})).findings == []
    leaky = write_rows(Path("test.jsonl"), chats(500, 120) + chats(0, 50, " please"))
    leaks = rows_of(make_recipe(chats(0, 150), data={"eval": 0, "test": leaky})).findings
    assert [(found.code, found.where, found.what.split(" ")[0]) for found in leaks] == [("D026", "test", "50")]


def test_findings_of_every_file_are_told_once() -> None:
    twice = write_rows(Path("test.jsonl"), [*chat_rows(900)[500:], *chat_rows(900)[500:520]])
    rows = rows_of(make_recipe([*chat_rows(240), *chat_rows(5)], data={"test": twice}))
    assert sorted((found.code, found.where) for found in rows.findings) == [
        ("D009", "test.jsonl"),
        ("D009", "train.jsonl"),
    ]


def test_files_of_other_layouts() -> None:
    text = write_rows(Path("text.jsonl"), [{"text": f"line {n}"} for n in range(9)])
    for data in ({"eval": text}, {"test": text}):
        with pytest.raises(UsageError, match=r"text\.jsonl .*prompt-completion"):
            rows_of(make_recipe(data=data))


def test_pairs_of_texts_become_messages_where_the_training_rows_are(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SMALL / name, tmp_path)
    plain = write_rows(Path("plain.jsonl"), [{"prompt": f"a {n}", "completion": "b"} for n in range(9)])
    for tokenizer in (LightTokenizer(SMALL), LightTokenizer(tmp_path)):
        rows = gather_rows(make_recipe(data={"test": plain}), tokenizer)
        assert rows.test[0]["completion"] == [{"role": "assistant", "content": "b"}]


def test_files_that_cannot_be_read_or_trained_on() -> None:
    with pytest.raises(UsageError, match=r"none\.jsonl"):
        rows_of(make_recipe(data={"train": "none.jsonl"}))
    with pytest.raises(FindingsError, match="D012"):
        rows_of(make_recipe([*chat_rows(9), {"prompt": "a", "completion": ""}]))


@pytest.mark.parametrize(("word", "said"), [("bad", "No bad words!"), ("odd", "can only concatenate str")])
def test_t008_names_the_rows_that_the_template_refuses(tmp_path: Path, word: str, said: str) -> None:
    """Templates raise errors of their own, or let Python's through."""
    recipe = make_recipe(with_words(240, word, word), data={"eval": 0}, chat_template=strict_template(tmp_path))
    with pytest.raises(FindingsError) as refusal:
        rows_of(recipe)
    (found,) = refusal.value.findings
    assert (found.code, found.where, found.severity) == ("T008", "train.jsonl", "error")
    assert said in found.what
    assert found.what.startswith("2 rows")
    assert "1, 4" in found.what


def test_t008_is_silent_on_rows_that_can_be_rendered(tmp_path: Path) -> None:
    rows = rows_of(make_recipe(data={"eval": 0.5}, chat_template=strict_template(tmp_path)))
    assert rows.findings == []


def test_t008_looks_at_the_rows_that_are_held_out(tmp_path: Path) -> None:
    template = strict_template(tmp_path)
    recipe = make_recipe(chat_rows(240))
    victim = rows_of(recipe).eval[0]["prompt"][0]["content"]
    rows = chat_rows(240)
    place = next(index for index, row in enumerate(rows) if row["prompt"][0]["content"] == victim)
    for word in range(200):  # which rows are held out goes by their prompts
        rows[place]["prompt"][0]["content"] = f"{victim} bad {word}"
        if rows[place]["prompt"] in [row["prompt"] for row in rows_of(make_recipe(rows)).eval]:
            break
    with pytest.raises(FindingsError, match=rf"T008 train\.jsonl: 1 row .*\(rows? {place + 1}\)"):
        rows_of(make_recipe(rows, chat_template=template))
    other = write_rows(Path("other.jsonl"), with_words(9, "bad"))
    for data in ({"eval": other}, {"test": other}):
        with pytest.raises(FindingsError, match=r"T008 other\.jsonl"):
            rows_of(make_recipe(data=data, chat_template=template))


def test_d014_rows_that_the_template_refuses_can_be_dropped(tmp_path: Path) -> None:
    template, data = strict_template(tmp_path), {"eval": 0, "bad_rows": "drop"}
    rows = rows_of(make_recipe(with_words(240, "bad", "odd"), data=data, chat_template=template))
    assert len(rows.train) == len(rows.token_counts) == 238
    (found,) = rows.findings
    assert (found.code, found.severity, found.where) == ("D014", "warning", "train.jsonl")
    assert found.what.startswith("2 of 240 rows")
    assert "T008" in found.what
    clean = rows_of(make_recipe(data=data, chat_template=template))
    assert (len(clean.train), clean.findings) == (240, [])
    with pytest.raises(FindingsError, match="T008"):
        rows_of(make_recipe(with_words(1, "bad"), data=data, chat_template=template))


def test_t006_pad_is_eos(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SMALL / name, tmp_path)
    path = tmp_path / "tokenizer_config.json"
    for pad, found in (("<|im_end|>", ["T006"]), ("<|pad|>", []), (None, [])):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": pad}))
        rows = gather_rows(make_recipe(data={"eval": 0}), LightTokenizer(tmp_path))
        assert codes(rows) == found
    path.write_text("{}")
    assert codes(gather_rows(make_recipe(data={"eval": 0}), LightTokenizer(tmp_path))) == []


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_messages_are_measured_without_a_template_too(tmp_path: Path, bad_rows: str) -> None:
    """The plan says T005; the lengths are near enough until then."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SMALL / name, tmp_path)
    recipe: Recipe = make_recipe(data={"bad_rows": bad_rows})
    rows = gather_rows(recipe, LightTokenizer(tmp_path))
    assert rows.needs_template
    assert len(rows.train) + len(rows.eval) == 240
    assert min(rows.token_counts) > 5


def test_text_needs_no_template() -> None:
    assert not rows_of(make_recipe([{"text": f"line {n}"} for n in range(20)])).needs_template


def test_t010_a_prompt_that_is_rendered_otherwise_alone() -> None:
    """As templates of reasoning models do: they open a thought for the model, and take thoughts out of answers."""
    Path("think.jinja").write_text(
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n<think>\n{%- endif %}"
    )
    changed = make_plan(make_recipe(chat_template="think.jinja"))
    (one,) = [found for found in changed.findings if found.code == "T010"]
    assert one.severity == "warning"
    assert "In 200 of 200 rows" in one.what
    assert "T010" not in [found.code for found in make_plan(make_recipe()).findings]


def test_t003_rows_whose_prompt_fills_the_context_are_left_out() -> None:
    rows = chat_rows(40)
    rows[3]["prompt"][0]["content"] += " word" * 500
    kept = gather_rows(make_recipe(rows), LightTokenizer(SMALL), 128)
    assert len(kept.train) + len(kept.eval) == 39
    left = next(found for found in kept.findings if found.code == "T003")
    assert left.severity == "warning"
    assert left.what == "1 of 40 rows have a prompt that fills the model's context of 128 tokens; they are left out."
    rows[3]["prompt"][0]["content"] += " word" * 1000
    unknown = gather_rows(make_recipe(rows), LightTokenizer(SMALL), 0)
    left = next(found for found in unknown.findings if found.code == "T003")
    assert "fills 1,024 tokens, the limit where a model's context is unknown; they" in left.what
    whole = gather_rows(make_recipe(rows), LightTokenizer(SMALL))
    assert (len(whole.train) + len(whole.eval), codes(whole)) == (40, ["D011"])
    with pytest.raises(FindingsError, match="T003"):
        gather_rows(make_recipe(rows, training={"max_length": 2}), LightTokenizer(SMALL), 128)
    endless = gather_rows(make_recipe(rows, training={"max_length": None}), LightTokenizer(SMALL), 128)
    assert len(endless.train) + len(endless.eval) == 40


def test_rows_by_length_and_packed() -> None:
    rows = replace(rows_of(make_recipe()), token_counts=[60, 60, 40, 30])
    assert rows.by_length == {60: 2, 40: 1, 30: 1}
    assert [rows.packed(length) for length in (100, 200, 100)] == [2, 1, 2]
    assert (rows.packed(50), rows.packed(50, split=True)) == (4, 4)
    assert (rows.packed(40), rows.packed(40, split=True)) == (4, 5)

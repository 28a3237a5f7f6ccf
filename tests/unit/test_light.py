"""The light tokenizer: what it reads and refuses. That it counts as the trainer does: contract/test_templates.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.support.models import SMALL_TEXT
from tests.support.runs import SMALL
from tunesmith.errors import UsageError
from tunesmith.models.light import LightTokenizer

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SMALL / name, tmp_path)
    return tmp_path


def settings(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_built_in_tokenizer() -> None:
    light = LightTokenizer(SMALL)
    assert (light.eos, light.pad) == ("<|im_end|>", "<|pad|>")
    assert light.template == (SMALL / "chat_template.jinja").read_text()
    assert light.has_generation_marks
    assert light.render(TALK) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n"
    assert light.render(TALK[:1], prompt=True) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_a_file_replaces_the_template(folder: Path) -> None:
    (folder / "mine.jinja").write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    light = LightTokenizer(folder, str(folder / "mine.jinja"))
    assert light.render(TALK) == "hello<|im_end|>hi<|im_end|>"
    assert not light.has_generation_marks
    (folder / "mine.jinja").write_text("{% generation %}{% endgeneration %}")
    assert LightTokenizer(folder, str(folder / "mine.jinja")).has_generation_marks


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_template_file_that_cannot_be_read(folder: Path, content: bytes | None) -> None:
    path = folder / "mine.jinja"
    if content:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.jinja can't be read") as refusal:
        LightTokenizer(folder, str(path))
    assert "chat_template" in refusal.value.fix


def test_where_a_template_may_stand(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert LightTokenizer(folder).template is None
    assert not LightTokenizer(folder).has_generation_marks
    settings(folder, chat_template="one {{ messages | length }}")
    assert LightTokenizer(folder).render(TALK) == "one 2"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    settings(folder, chat_template=named)
    assert LightTokenizer(folder).template == "plain"
    settings(folder, chat_template=named[:1])
    assert LightTokenizer(folder).template is None


def test_special_tokens_as_objects_and_as_nothing(folder: Path) -> None:
    settings(folder, eos_token={"content": "<|im_end|>", "lstrip": False}, pad_token=None, bos_token="<|im_start|>")
    light = LightTokenizer(folder)
    assert (light.eos, light.pad) == ("<|im_end|>", None)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}")
    assert LightTokenizer(folder).render(TALK) == "<|im_start|>|<|im_end|>|"
    (folder / "tokenizer_config.json").unlink()
    assert LightTokenizer(folder).eos is None


def test_padding_and_truncation_in_the_file_do_not_count(folder: Path) -> None:
    from tokenizers import Tokenizer

    plain = LightTokenizer(folder).encode_rows([{"text": "hello " * 9}, {"text": "hi"}], "text")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert LightTokenizer(folder).encode_rows([{"text": "hello " * 9}, {"text": "hi"}], "text") == plain


def test_a_bos_that_the_tokenizer_adds_belongs_to_texts_only(folder: Path) -> None:
    """Templates write it themselves."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    rows = {
        "text": [{"text": "hello"}],
        "messages": [{"messages": TALK}],
        "prompt-completion": [{"prompt": TALK[:1], "completion": TALK[1:]}],
    }
    before = {layout: LightTokenizer(folder).encode_rows(row, layout) for layout, row in rows.items()}
    pair = [{"prompt": "hello ", "completion": "hi"}]
    (prompt,), (whole,) = LightTokenizer(folder).encode_rows(pair, "prompt-completion")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    light = LightTokenizer(folder)
    for layout in ("messages", "prompt-completion"):
        assert light.encode_rows(rows[layout], layout) == before[layout]
    assert light.encode_rows(rows["text"], "text") == (None, [before["text"][1][0] + 1])
    assert light.encode_rows(pair, "prompt-completion") == ([prompt + 1], [whole + 1])


def test_the_end_is_added_where_it_is_missing(folder: Path) -> None:
    light = LightTokenizer(folder)
    _, (bare, ended) = light.encode_rows([{"text": "hi"}, {"text": "hi<|im_end|>"}], "text")
    assert bare == ended
    settings(folder, eos_token=None)
    _, (bare, ended) = LightTokenizer(folder).encode_rows([{"text": "hi"}, {"text": "hi<|im_end|>"}], "text")
    assert ended == bare + 1


def test_rows_come_back_in_their_order_beyond_one_batch(folder: Path) -> None:
    light = LightTokenizer(folder)
    rows = [{"text": "hello " * (number % 7)} for number in range(2500)]
    _, counts = light.encode_rows(rows, "text")
    assert counts == [light.encode_rows([row], "text")[1][0] for row in rows[:7]] * 357 + counts[:1]
    assert light.encode_rows([], "text") == (None, [])


def test_a_row_that_the_template_refuses() -> None:
    with pytest.raises(jinja2.TemplateError, match="Unknown role: critic"):
        LightTokenizer(SMALL).encode_rows([{"messages": [{"role": "critic", "content": "x"}]}], "messages")


def test_tools_reach_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ tools | map(attribute='name') | join(' ') }}")
    tools = [{"name": "look"}, {"name": "find"}]
    light = LightTokenizer(folder)
    assert light.render(TALK, tools=tools) == "look find"
    rows = [{"messages": TALK, "tools": tools}, {"messages": TALK, "tools": json.dumps(tools)}]
    first, second = light.encode_rows(rows, "messages")[1]
    assert first == second > 0


CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}
ASK = {"role": "user", "content": "hello"}
PARTS: dict[str, dict[str, Any]] = {
    "tools": {"messages": TALK, "tools": '[{"name": "look"}]'},
    "tool_calls": {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    "reasoning": {"prompt": [ASK], "completion": [{**TALK[1], "reasoning_content": "hm"}]},
}
ALL_PARTS = (
    "{% for t in tools or [] %}{{ t.name }}{% endfor %}{% for m in messages %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{{ m.reasoning_content }}{{ m.thinking }}"
    "{% endfor %}"
)


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_the_template_leaves_out_are_counted(folder: Path, part: str) -> None:
    rows = [{"messages": TALK}, PARTS[part], {"prompt": TALK[:1], "completion": TALK[1:]}, PARTS[part]]
    assert LightTokenizer(folder).left_out(rows) == {part: 2}
    (folder / "chat_template.jinja").write_text(ALL_PARTS)
    assert LightTokenizer(folder).left_out(rows) == {}


def test_prompts_that_are_rendered_otherwise_alone(folder: Path) -> None:
    rows = [{"prompt": [ASK], "completion": TALK[1:]}, {"prompt": [ASK], "chosen": TALK[1:], "rejected": TALK[1:]}]
    assert LightTokenizer(folder).changed_prompts(rows) == 0
    header = "{% if add_generation_prompt %}<think>{% endif %}"
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}" + header)
    assert LightTokenizer(folder).changed_prompts(rows) == 2


def test_stop_tokens_are_eos_and_those_of_the_generation_config(folder: Path) -> None:
    assert LightTokenizer(folder).stop_tokens() == ["<|im_end|>"]
    (folder / "config.json").write_text('{"eos_token_id": 0}')
    (first,) = set(LightTokenizer(folder).stop_tokens()) - {"<|im_end|>"}
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2, 99999]}')
    light = LightTokenizer(folder)
    assert light.stop_tokens()[0] == "<|im_end|>"
    assert set(light.stop_tokens()) <= light.special_tokens()
    assert first not in light.stop_tokens()
    settings(folder, eos_token=None)
    assert "<|im_end|>" in LightTokenizer(folder).stop_tokens()


def test_marked_renders_with_trl_s_copy(folder: Path) -> None:
    from importlib.util import find_spec

    spec = find_spec("trl")
    assert spec is not None
    templates = Path(str(spec.origin)).parent / "chat_templates"
    shutil.copy(templates / "qwen3.jinja", folder / "chat_template.jinja")
    light = LightTokenizer(folder)
    earlier = [*TALK, ASK, {**TALK[1], "content": "<think>\nhm\n</think>\n\nbye"}]
    assert light.has_generation_marks
    assert light.render(earlier).count("<think>") == 1
    assert light.render(earlier, marked=True).count("<think>") == 2  # its copy thinks in every answer
    (conversation,) = light.encode_rows([{"messages": earlier}], "messages")[1]
    (split,) = light.encode_rows([{"prompt": earlier[:-1], "completion": earlier[-1:]}], "prompt-completion")[1]
    assert conversation > split


def test_pairs_count_their_longer_side(folder: Path) -> None:
    light = LightTokenizer(folder)
    long = [{**TALK[1], "content": "hi " * 9}]
    rows = [
        {"prompt": [ASK], "chosen": TALK[1:], "rejected": long},
        {"prompt": [ASK], "chosen": long, "rejected": TALK[1:]},
    ]
    alone = light.encode_rows([{"prompt": [ASK], "completion": long}], "prompt-completion")
    prompts, totals = light.encode_rows(rows, "preference")
    assert (prompts, totals) == ((alone[0] or []) * 2, alone[1] * 2)
    texts = [{"prompt": "hello ", "chosen": "hi", "rejected": "hi " * 9}]
    both = light.encode_rows([{"prompt": "hello ", "completion": "hi " * 9}], "prompt-completion")
    assert light.encode_rows(texts, "preference") == both


def test_reasoning_goes_by_several_names(folder: Path) -> None:
    thoughts = [{"thinking": "hm"}, {"reasoning": "hm"}, {"reasoning_content": "hm", "thinking": "hm"}]
    rows = [{"messages": [ASK, {**TALK[1], **thought}]} for thought in thoughts]
    assert LightTokenizer(folder).left_out(rows) == {"reasoning": 3}
    (folder / "chat_template.jinja").write_text(ALL_PARTS)
    assert LightTokenizer(folder).left_out(rows) == {}


def test_a_template_that_needs_a_part_does_not_leave_it_out(folder: Path) -> None:
    needs = "{% for m in messages %}{% if not m.content %}{{ m.tool_calls[0].function.name }}{% endif %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(needs)
    assert LightTokenizer(folder).left_out([PARTS["tool_calls"]]) == {}


def test_the_reasoning_of_earlier_turns_may_be_left_out() -> None:
    prompt = [ASK, {**TALK[1], "reasoning_content": "hm"}, ASK]
    assert LightTokenizer(SMALL).left_out([{"prompt": prompt, "completion": TALK[1:]}]) == {}


def test_special_tokens_in_the_text_are_found(folder: Path) -> None:
    light = LightTokenizer(folder)
    assert light.special_tokens() == {"<|im_start|>", "<|im_end|>", "<|pad|>"}
    assert light.with_special_tokens([{"messages": TALK}, {"prompt": TALK[:1], "completion": TALK[1:]}]) == (0, [])
    said = {"role": "assistant", "content": "see <|im_end|> and <|im_end|>"}
    thought = {"role": "assistant", "content": "x", "reasoning_content": "<|pad|>", "thinking": None}
    rows = [{"messages": TALK}, {"messages": [ASK, thought, said]}, {"prompt": [ASK], "completion": [said]}]
    assert light.with_special_tokens(rows) == (2, ["<|im_end|>", "<|pad|>"])


def test_added_tokens_that_are_not_special_may_stand_in_the_text(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    path.write_text(json.dumps(content))
    light = LightTokenizer(folder)
    assert light.special_tokens() == set()
    assert light.with_special_tokens([{"messages": [{"role": "user", "content": "<|im_end|>"}]}]) == (0, [])


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": {"type": "None"}}'])
def test_a_damaged_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UsageError, match=r"tokenizer\.json can't be read"):
        LightTokenizer(folder)


def test_damaged_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json can't be read"):
        LightTokenizer(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no tokenizer"):
        LightTokenizer(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"hidden_act": None}])
def test_a_tokenizer_without_a_vocabulary(changes: dict[str, Any], tmp_path: Path) -> None:
    """With an absurd config.json, too, which Transformers reads to find the tokenizer's class."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL_TEXT | {"model_type": "llama"} | changes))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UsageError, match="tokenizer"):
        LightTokenizer(tmp_path)


def test_counting_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from tunesmith.models.light import LightTokenizer;"
        f"light = LightTokenizer(Path({str(SMALL)!r}));"
        f"print(light.encode_rows([{{'messages': {TALK!r}}}], 'messages')[1][0] > 3, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True False\n"

"""Reading recipes: what is wrong is said with its line, and with what would have been right."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.errors import UsageError
from tunesmith.recipe import Recipe, build_recipe, load_recipe
from tunesmith.recipe.evaluation import TASKS
from tunesmith.recipe.load import _ELSEWHERE, parse
from tunesmith.recipe.schema import Export, Gguf
from tunesmith.recipe.template import recipe_text

START = "model: builtin:small\ndata: {train: a.jsonl}\n"


def load(tmp_path: Path, text: str | bytes) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_recipe(path)


def refusal(tmp_path: Path, text: str | bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 2
    assert all((caught.value.what, caught.value.why, caught.value.fix))
    return caught.value


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, START)
    assert (recipe.method, recipe.seed, recipe.dtype, recipe.launch.on) == ("sft", 42, "auto", "local")
    assert (recipe.data.eval, recipe.data.test, recipe.data.bad_rows) == (0.05, None, "error")
    assert (recipe.adapter.kind, recipe.adapter.r, recipe.adapter.targets) == ("lora", 16, "all-linear")
    assert (recipe.training, recipe.evaluation.tasks, recipe.export.gguf) == (
        {},
        None,
        None,
    )


@pytest.mark.parametrize(
    ("given", "method", "virtual", "types"),
    [
        (None, "sft", False, ["f16", "q8_0"]),
        (None, "sft", True, []),
        (None, "reward", False, []),
        (["f16"], "sft", True, ["f16"]),
        ([], "sft", False, []),
    ],
)
def test_gguf_types_follow_what_is_trained(
    given: list[Gguf] | None, method: str, virtual: bool, types: list[str]
) -> None:
    assert Export(gguf=given).types(method, virtual=virtual) == types


@pytest.mark.parametrize("method", TASKS)
def test_a_method_has_the_tasks_that_its_rows_allow(tmp_path: Path, method: str) -> None:
    known = TASKS[method]
    assert set(known.default) <= set(known.possible)
    start = f"model: m\nmethod: {method}\ndata: {{train: a}}\n"
    for task in ("loss", "exact_match", "preference", "margin", "reward"):
        line = f"evaluation: {{tasks: [{task}]}}\n"
        if task in known.possible:
            (tmp_path / "r.yaml").write_text(start + line)
            assert load_recipe(tmp_path / "r.yaml").evaluation.tasks == [task]
        else:
            error = refusal(tmp_path, start + line)
            assert error.what == f"{tmp_path / 'r.yaml'} line 4: evaluation can't be {{'tasks': ['{task}']}}."
            assert error.why == f"A {method} run has these tasks: {', '.join(known.possible)}."


def test_a_recipe_is_frozen(tmp_path: Path) -> None:
    recipe = load(tmp_path, START)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.model = "x"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.adapter.r = 1


@pytest.mark.parametrize(
    ("line", "key", "fix"),
    [
        ("adaptor: {r: 8}", "adaptor", "Did you mean adapter?"),
        ("learning-rate: 3", "learning-rate", "go under `training:`"),
        ("learning_rate: 3", "learning_rate", "go under `training:`"),
        ("float: 3", "float", "Keys are model, method, data"),
        ("1: 2", "1", "Keys are model"),
        ("adapter: {rank: 8}", "adapter.rank", "Keys of adapter are kind, r, alpha"),
        ("adapter: {alpah: 8}", "adapter.alpah", "Did you mean alpha?"),
        ("evaluation: {task: [loss]}", "evaluation.task", "Did you mean tasks?"),
        ("data.train: x", "data.train", "Keys are"),
    ],
)
def test_unknown_keys(tmp_path: Path, line: str, key: str, fix: str) -> None:
    error = refusal(tmp_path, f"{START}seed: 1\n{line}\n")
    assert error.what == f"{tmp_path / 'r.yaml'} line 4: unknown key {key}."
    assert fix in error.fix


@pytest.mark.parametrize("key", _ELSEWHERE)
def test_names_of_other_tools_are_translated(tmp_path: Path, key: str) -> None:
    error = refusal(tmp_path, f"{START}{key}: x\n")
    assert error.what.endswith(f"line 3: unknown key {key}.")
    assert error.fix == f"tunesmith calls it {_ELSEWHERE[key]}."
    assert key not in Recipe.model_fields


def test_an_unknown_key_deep_in_a_section(tmp_path: Path) -> None:
    error = refusal(tmp_path, "model: m\ndata:\n  train: a\n  mapping:\n    promt: x\n")
    assert error.what.endswith("line 5: unknown key data.mapping.promt.")
    assert error.fix == "Did you mean prompt?"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("method: DPO", "method can't be 'DPO'"),
        ("seed: -1", "seed can't be -1"),
        ("seed: 4294967296", "seed can't be 4294967296"),
        ("seed: true", "seed can't be True"),
        ("seed: x", "seed can't be 'x'"),
        ("adapter: lora", "adapter can't be 'lora'"),
        ("adapter: {r: 0}", "adapter.r can't be 0"),
        ("adapter: {r: true}", "adapter.r can't be True"),
        ("adapter: {r: 8.5}", "adapter.r can't be 8.5"),
        ("adapter: {dropout: .nan}", "adapter.dropout can't be nan"),
        ("adapter: {dropout: 1}", "adapter.dropout can't be 1"),
        ("adapter: {targets: []}", "adapter.targets can't be []"),
        ("adapter: {kind: dora}", "adapter.kind can't be 'dora'"),
        ("evaluation: {tasks: [accuracy]}", "evaluation.tasks can't be 'accuracy'"),
        ("evaluation: {rows: 0}", "evaluation.rows can't be 0"),
        ("export: {gguf: [q4_k_m]}", "export.gguf can't be 'q4_k_m'"),
        ("dtype: bf16", "dtype can't be 'bf16'"),
        ("training:", "training can't be None"),
        ("training: [1]", "training can't be [1]"),
        ("training: {1: 2}", "training can't be 1"),
    ],
)
def test_wrong_values(tmp_path: Path, line: str, said: str) -> None:
    error = refusal(tmp_path, f"{START}{line}\n")
    assert error.what == f"{tmp_path / 'r.yaml'} line 3: {said}."
    assert "tunesmith schema" in error.fix


@pytest.mark.parametrize("value", ["1", "1.5", "-0.1", "true", "[1]", ".nan"])
def test_wrong_shares_of_eval(tmp_path: Path, value: str) -> None:
    error = refusal(tmp_path, f"model: m\ndata:\n  train: a\n  eval: {value}\n")
    assert "line 4: data.eval can't be " in error.what


def test_missing_keys(tmp_path: Path) -> None:
    assert "data is missing" in refusal(tmp_path, "model: m\n").what
    assert "line 2: data.train is missing" in refusal(tmp_path, "model: m\ndata: {eval: 0.1}\n").what


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: m\n data: x\n", 2),
        ("model: 'm\n", 2),
        ("model: m\n\tdata: x\n", 2),
        ("a: {b: c\n", 2),
        ("model: m\nx: *nobody\n", 2),
        ("model: m\nx: !!python/object:os.system {}\n", 2),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    error = refusal(tmp_path, text)
    assert error.what == f"{tmp_path / 'r.yaml'} line {line} isn't valid YAML."


@pytest.mark.parametrize("line", ["x: &x {y: *x}", "x: " + "[" * 5000, "x: \x01", "x: 0x_"])
def test_yaml_that_its_reader_stumbles_over(tmp_path: Path, line: str) -> None:
    assert "isn't valid YAML" in refusal(tmp_path, f"{START}{line}\n").what


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "- a\n- b\n", "hello", "3", "null", "---\n"])
def test_what_is_no_mapping_is_no_recipe(tmp_path: Path, text: str) -> None:
    error = refusal(tmp_path, text)
    assert error.what == f"{tmp_path / 'r.yaml'} isn't a recipe."


@pytest.mark.parametrize("key", ["on", "'on'", '"on"'])
def test_on_is_a_key_and_no_boolean(tmp_path: Path, key: str) -> None:
    assert load(tmp_path, f"{START}launch: {{{key}: sky}}\n").launch.on == "sky"


def test_words_of_yaml_are_taken_as_they_stand(tmp_path: Path) -> None:
    recipe = load(
        tmp_path, "model: no\ndata: {train: 2026-13-45, test: 2026-01-01}\ntraining: {bf16: yes, tf32: False}\n"
    )
    assert (recipe.model, recipe.training) == ("no", {"bf16": True, "tf32": False})
    assert (recipe.data.train[0].path, recipe.data.test) == (str(tmp_path / "2026-13-45"), str(tmp_path / "2026-01-01"))


def test_two_documents(tmp_path: Path) -> None:
    assert "isn't valid YAML" in refusal(tmp_path, f"{START}---\n{START}").what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{START}seed: 1\nseed: 2\n", "line 4: seed stands there twice."),
        ("model: m\ndata:\n  train: a\n  train: b\n", "line 4: data.train stands there twice."),
        (f"{START}data: {{eval: 0.1}}\n", "line 3: data stands there twice."),
    ],
)
def test_a_key_that_stands_twice(tmp_path: Path, text: str, said: str) -> None:
    error = refusal(tmp_path, text)
    assert error.what.endswith(said)
    assert error.why.startswith("YAML would silently forget what line ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no recipe") as caught:
        load_recipe(tmp_path / "none.yaml")
    assert "tunesmith init" in caught.value.fix
    with pytest.raises(UsageError, match="can't be read"):
        load_recipe(tmp_path)
    assert "can't be read" in refusal(tmp_path, "model: gr\xfcn\n".encode("latin-1")).what


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + START).model == "builtin:small"


def test_relative_paths_count_from_the_recipe_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep" / "er"
    (folder / "models" / "mine").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = (
        "model: models/mine\nchat_template: ../t.jinja\ndata: {train: a.jsonl, eval: /abs/e.jsonl, test: ~/t.jsonl}\n"
    )
    (folder / "r.yaml").write_text(text)
    (tmp_path / "link.yaml").symlink_to(folder / "r.yaml")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(Path("deep/er/r.yaml"))
    assert recipe.model == str(folder / "models" / "mine")
    assert recipe.data.train[0].path == str(folder / "a.jsonl")
    assert (recipe.data.eval, recipe.data.test) == ("/abs/e.jsonl", str(tmp_path / "home" / "t.jsonl"))
    assert recipe.chat_template == str(tmp_path / "deep" / "t.jinja")


def test_names_that_are_no_paths_stay(tmp_path: Path) -> None:
    for name in ("Qwen/Qwen3-0.6B", "builtin:small", "gpt2"):
        recipe = load(tmp_path, f"model: {name}\ndata: {{train: a, eval: 0.2}}\n")
        assert (recipe.model, recipe.data.eval, recipe.chat_template) == (name, 0.2, None)
    assert load(tmp_path, "model: ./m\ndata: {train: a}\n").model == str(tmp_path / "m")


def test_values_from_elsewhere_have_no_line() -> None:
    with pytest.raises(UsageError, match=r"^command line: unknown key x\."):
        build_recipe({"model": "m", "data": {"train": "a"}, "x": 1}, where="command line")
    assert build_recipe({"model": "./m", "data": {"train": "a"}}).data.train[0].path == "a"


@given(st.text() | st.text(alphabet="abc:{}[]-&*!|>'\"#%@`,?\n\t 0.x"))
@example("{")
def test_no_text_makes_the_reader_crash(text: str) -> None:
    try:
        values, lines = parse(text, "r.yaml")
    except UsageError:
        return
    assert isinstance(values, dict)
    assert all(1 <= line <= text.count("\n") + text.count("\r") + text.count("\x85") + 1 for line in lines.values())


KEYS = st.sampled_from(
    ["model", "data", "train", "adapter", "r", "targets", "training", "seed", "float", "x-y", 3, None]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@example({"model": "m", "data": {"train": "a"}, "adapter": {"targets": [1]}})
def test_no_values_make_the_check_crash(values: dict[Any, Any]) -> None:
    outcome: Recipe | UsageError
    try:
        outcome = build_recipe(values)
    except UsageError as error:
        outcome = error
    assert isinstance(outcome, Recipe) or (outcome.why and outcome.fix)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in ".."
)


@given(NAMES, NAMES, st.dictionaries(st.sampled_from(["prompt", "completion"]), TEXTS, max_size=2))
@example("2026-01-01", "null", {"prompt": "a: b"})
@example("a\nb # c.jsonl", "0.05", {"prompt": "{x}", "completion": "- y\n\n z"})
@example("{model}", 'it\'s "x"...', {})
@example("-", "*", {"prompt": "...\n"})
@example("\x85", "a\u2028b", {"prompt": "\x85 🙂"})
@example("0", "\xa0", {"prompt": "a\u3000"})
def test_a_new_recipe_reads_back(data: str, test: str, mapping: dict[str, str]) -> None:
    folder = Path("/somewhere/else")
    text = recipe_text(
        data=f"/data/{data}",
        model="org/name",
        method="sft",
        remark="rows: 3\nREADY # {yes}\x01",
        folder=folder,
        test=f"/data/{test}",
        mapping=mapping,
    )
    values, lines = parse(text, "recipe")
    recipe = build_recipe(values, lines=lines, folder=folder)
    assert (recipe.data.train[0].path, recipe.data.test) == (f"/data/{data}", f"/data/{test}")
    assert recipe.data.mapping.model_dump(exclude_none=True) == mapping
    assert (recipe.model, recipe.method, recipe.data.eval) == ("org/name", "sft", 0.05)
    assert recipe.training == {"num_train_epochs": 3}


def test_a_new_recipe_without_test_and_mapping() -> None:
    text = recipe_text(data="a.jsonl", model="builtin:small", method="sft", remark="r", folder=Path())
    assert yaml.safe_load(text)["data"] == {"train": "a.jsonl", "eval": 0.05}


def test_a_new_recipe_in_a_linked_folder_finds_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "model").mkdir()
    (tmp_path / "a.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    path = Path("link/r.yaml")
    path.write_text(recipe_text(data="a.jsonl", model="model", method="sft", remark="", folder=path.parent))
    recipe = load_recipe(path)
    assert (recipe.data.train[0].path, recipe.model) == (str(tmp_path / "a.jsonl"), str(tmp_path / "model"))


def test_reading_a_recipe_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"{START}training: {{learning_rate: 2e-5}}\n")
    code = (
        "import sys; from pathlib import Path; from tunesmith.recipe import load_recipe; load_recipe(Path('r.yaml'));"
        "print({'torch', 'transformers', 'trl', 'datasets', 'numpy'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    ("train", "paths"),
    [
        ("a.jsonl", ["/f/a.jsonl"]),
        ("org/name", ["org/name"]),
        ("here/file", ["/f/here/file"]),
        ("org/name.jsonl", ["/f/org/name.jsonl"]),
        ("org/name.gz", ["/f/org/name.gz"]),
        ("hf://datasets/org/name", ["hf://datasets/org/name"]),
        (["a.jsonl", {"path": "org/name", "split": "test", "weight": 2}], ["/f/a.jsonl", "org/name"]),
    ],
)
def test_sources_are_files_or_datasets_of_the_hub(tmp_path: Path, train: object, paths: list[str]) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    recipe = build_recipe({"model": "m", "data": {"train": train}}, folder=tmp_path)
    assert [source.path.replace(str(tmp_path.resolve()), "/f") for source in recipe.data.train] == paths


@pytest.mark.parametrize(
    "train", ["a", {"path": "a", "split": "test"}, ["a", "b"], ["a", {"path": "b", "weight": 0.5, "revision": "r"}]]
)
def test_sources_are_written_as_they_were_given(train: object) -> None:
    recipe = build_recipe({"model": "m", "data": {"train": train}})
    assert recipe.model_dump()["data"]["train"] == train
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize("train", ["5", "[]", "[3]", "''", "{split: test}", "[{path: a, weight: 0}]"])
def test_what_is_no_source(tmp_path: Path, train: str) -> None:
    assert "data.train" in refusal(tmp_path, f"model: m\ndata: {{train: {train}}}\n").what


def test_an_unknown_key_of_a_source(tmp_path: Path) -> None:
    error = refusal(tmp_path, "model: m\ndata:\n  train:\n    - a\n    - {path: b, splitt: c}\n")
    assert (error.what.endswith("line 3: unknown key data.train.splitt."), error.fix) == (True, "Did you mean split?")

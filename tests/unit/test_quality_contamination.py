"""Questions of evaluation tasks in rows, where their data is at hand, and nothing claimed where it isn't."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.planted_quality import answer, asked, cache_gsm8k, with_task
from tunesmith.data.quality import examine
from tunesmith.data.quality.contamination import at_hand, contaminated, tasks

QUESTION = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_thirteen_words_in_a_row_are_shared_or_not() -> None:
    words = QUESTION.split()
    texts = [
        "And " + " ".join(words[1:]).upper() + "!",
        " ".join(words[:12]),
        " ".join([*words[:12], "x", *words[12:]]),
    ]
    assert contaminated(texts, {"gsm8k": [QUESTION], "mmlu": ["something else"]}) == {"gsm8k": [0]}


def test_short_questions_and_what_many_share_tell_nothing() -> None:
    assert contaminated(["Why is it so?"], {"mmlu": ["Why is it so?"]}) == {}
    many = [f"{QUESTION} {number}" for number in range(11)]
    assert contaminated([QUESTION], {"mmlu": many}) == {}
    assert contaminated([QUESTION], {"mmlu": many[:10]}) == {"mmlu": [0]}


def test_tasks_are_found_in_both_caches(tmp_path: Path) -> None:
    assert at_hand(tmp_path) == {}
    cache_gsm8k(tmp_path, [QUESTION, QUESTION, "Why?"])
    hub = tmp_path / "hub" / "datasets--aps--super_glue" / "snapshots" / "abc" / "boolq"
    hub.mkdir(parents=True)
    pq.write_table(pa.table({"passage": ["P"], "question": ["q"]}), hub / "validation-00000-of-00001.parquet")
    assert at_hand(tmp_path) == {"boolq": ["P\nq"], "gsm8k": [QUESTION, "Why?"]}


@pytest.mark.parametrize("fault", ["no column", "no arrow"])
def test_files_that_cant_be_read_are_no_tasks(tmp_path: Path, fault: str) -> None:
    cache_gsm8k(tmp_path, [QUESTION])
    (path,) = tmp_path.rglob("*.arrow")
    if fault == "no arrow":
        path.write_bytes(b"not arrow")
    else:
        table = pa.table({"other": [1]})
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    assert at_hand(tmp_path) == {}


def test_the_finding_names_task_and_rows(tmp_path: Path) -> None:
    (finding,) = with_task(tmp_path, answer(3), asked())
    assert finding.code == "D041"
    assert finding.what == "1 of 40 rows shares 13 words in a row with questions of gsm8k (row 4)."


def test_nothing_is_claimed_without_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert examine(asked(), range(40), "rows")[0].contamination_checked.startswith("not checked")
    cache_gsm8k(tmp_path, [answer(999)])
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    assert examine(asked(), range(40), "rows")[0].contamination_checked == "gsm8k"


def test_the_table_of_tasks_is_whole() -> None:
    names = [task.name for task in tasks()]
    assert names == sorted(set(names))
    assert all("/" in task.dataset and task.columns for task in tasks())

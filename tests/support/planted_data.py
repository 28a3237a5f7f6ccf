"""Planted faults of letter D in files and settings, and their clean twins, by the functions of the pipeline."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.planted import Case, Check
from tests.support.planted_quality import answer, asked, preferred
from tests.support.runs import SMALL
from tunesmith import pipeline
from tunesmith.recipe import build_recipe
from tunesmith.recipe.schema import Mapping, Source
from tunesmith.records import Finding, PreparationSettings

Row = dict[str, Any]
ROWS = asked()
_MARKED = (SMALL / "chat_template.jinja").read_text(encoding="utf-8")
_UNMARKED = re.sub(r"\{%- (end)?generation %}", "", _MARKED)


def lines(rows: Sequence[Any]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, content: bytes | Sequence[Any]) -> str:
    """Write a file of some bytes, or of rows as JSON Lines; gives its path."""
    path.write_bytes(content if isinstance(content, bytes) else lines(content))
    return str(path)


def inspected(content: bytes | Sequence[Any], name: str = "rows.jsonl", **options: Any) -> Check:
    """What `inspect` says of a file."""
    return lambda folder: pipeline.inspect(write(folder / name, content), **options).findings


def in_folder(*names: str) -> Check:
    """What `inspect` says of a folder with these files."""

    def run(folder: Path) -> list[Finding]:
        for name in names:
            write(folder / name, ROWS)
        return pipeline.inspect(folder).findings

    return run


def case(code: str, fault: str, faulty: bytes | Sequence[Any], clean: Any = ROWS, **options: Any) -> Case:
    """A case of a file that is inspected."""
    return Case(code, fault, inspected(faulty, **options), inspected(clean, **options))


def with_row(row: Any, rows: Sequence[Any] = ROWS) -> list[Any]:
    """Clean rows of which the fourth is another one."""
    return [*rows[:3], row, *rows[4:]]


def chat(number: int, **last: Any) -> list[Row]:
    """A clean conversation; `last` changes its last turn."""
    question = {"role": "user", "content": ROWS[number]["prompt"]}
    return [question, {"role": "assistant", "content": ROWS[number]["completion"], **last}]


CHATS = [{"messages": chat(number)} for number in range(len(ROWS))]
TALKS = [{"messages": [*chat(n), *chat((n + 1) % 40)]} for n in range(0, 40, 2)]


def with_chat(messages: list[Row]) -> list[Row]:
    """Clean conversations of which the fourth is another one."""
    return with_row({"messages": messages}, CHATS)


def planned(train: Sequence[Row], test: Sequence[Row] = (), *, template: str = _MARKED, held_out: float = 0) -> Check:
    """What the plan of a recipe says of its data; what it says of the training is left out."""

    def run(folder: Path) -> list[Finding]:
        data = {"train": write(folder / "rows.jsonl", train), "eval": held_out}
        data |= {"test": write(folder / "test.jsonl", test)} if test else {}
        named = write(folder / "template.jinja", template.encode())
        recipe = build_recipe({"model": "builtin:small", "data": data, "chat_template": named}, folder=folder)
        return [found for found in pipeline.make_plan(recipe).findings if found.code[0] in "DT"]

    return run


def mixed(weight: int) -> Check:
    """What `inspect` says of two sources of equal size, one of which weighs 1, and the other `weight`."""

    def run(folder: Path) -> list[Finding]:
        halves = [write(folder / f"{number}.jsonl", ROWS[number::2]) for number in range(2)]
        sources = [Source(path=path, weight=each) for path, each in zip(halves, (1, weight), strict=True)]
        return pipeline.inspect(sources).findings

    return run


def made(rows: Sequence[Row], then: Callable[[Path, Any], object] = lambda *_: None) -> Check:
    """What `prepare` says of a file; `then` goes on with the folder that it makes."""

    def run(folder: Path) -> list[Finding]:
        settings = PreparationSettings(data=[write(folder / "rows.jsonl", rows)], eval=0, test=0)
        record = pipeline.prepare_data(settings, folder / "dataset")
        assert record is not None
        then(folder / "dataset", record)
        return record.findings

    return run


def pushed(folder: Path, record: Any) -> None:
    """Push a dataset; the search for secrets is real, the upload isn't."""
    with mock.patch("tunesmith.data.steps.push.push"):
        pipeline.push_data(folder, record, "me/rows")


def limited(limits: dict[str, int], check: Check) -> Check:
    """A check under lower limits of size than those that hold."""

    def run(folder: Path) -> list[Finding]:
        with mock.patch.multiple("tunesmith.data.report", **limits):
            return list(check(folder))

    return run


def documents(most: int) -> Check:
    """What `inspect` says of a JSON document where none may have more than `most` bytes."""

    def run(folder: Path) -> list[Finding]:
        with mock.patch("tunesmith.data.sources.content.MOST_DOCUMENT", most):
            return list(inspected(json.dumps(ROWS).encode(), "rows.json")(folder))

    return run


def tools(name: str) -> list[Row]:
    """Clean rows of which the fourth names a tool, as JSON text with its escapes."""
    return with_row({**ROWS[3], "tools": json.dumps([{"name": name}])})


LONGER = [{"prompt": f"{answer(n)} Why?", "completion": answer(900 + n)} for n in range(360)]
MANY, OTHERS = LONGER[:240], LONGER[240:]
_NAMED_TWICE = lines(ROWS[:1]).replace(b'{"prompt"', b'{"prompt": "", "prompt"') + lines(ROWS[1:])
_SCORED = [row | {"score": number / 8} for number, row in enumerate(ROWS)]
_CAFE = "The café opens at nine, and closes when its last guest has gone home."
_CODED = [{"prompt": "Where do they meet?", "completion": _CAFE}]
_BOMB = gzip.compress(b'{"prompt": "a", "completion": "' + b"a" * (65 << 20) + b'"}\n')
_RENAMED = [{"a": row["prompt"], "b": row["completion"]} for row in ROWS]
_TONGUES = [row | {"lang": "en"} for row in ROWS]

DATA_CASES = [
    case("D001", "a file cut off in its last line", lines(ROWS)[:-9]),
    case("D001", "a line that is no object", with_row("text")),
    case("D001", "half a surrogate pair", with_row({"prompt": "Why \ud800?", "completion": answer(3)})),
    case("D001", "a packed file cut off", gzip.compress(lines(ROWS))[:-9], gzip.compress(lines(ROWS))),
    case("D002", "an empty file", b""),
    case("D003", "Latin-1", _CODED[0]["completion"].encode("latin-1"), _CODED[0]["completion"].encode(), name="a.txt"),
    case("D003", "binary data", bytes(range(256))),
    Case(
        "D004",
        "columns a and b",
        inspected(_RENAMED, method="sft"),
        inspected(_RENAMED, mapping=Mapping(prompt="a", completion="b")),
    ),
    Case(
        "D045", "a test file beside the training file", in_folder("train.jsonl", "test.jsonl"), in_folder("train.jsonl")
    ),
    case("D046", "a question left empty", with_row(ROWS[3] | {"prompt": " "})),
    case(
        "D034",
        "the same answer twice",
        with_row(preferred()[3] | {"rejected": preferred()[3]["chosen"]}, preferred()),
        preferred(),
    ),
    case("D005", "an answer that is null", with_row({"prompt": "Why?", "completion": None})),
    case("D006", "a conversation without messages", with_chat([]), CHATS),
    case("D007", "the role critic", with_chat([*chat(3)[:1], *chat(3, role="critic")]), CHATS),
    case("D008", "a question left open", with_chat([*chat(3), *chat(4)[:1]]), CHATS),
    case("D009", "a row that stands twice", [*ROWS, ROWS[7]]),
    Case(
        "D010",
        "a test prompt among the training rows",
        planned(MANY, [*OTHERS, MANY[0]]),
        planned(MANY, OTHERS),
    ),
    Case("D011", "twelve rows held out", planned(MANY, held_out=0.05), planned(MANY, held_out=0.5)),
    case("D012", "an answer of blanks", with_row({"prompt": "Why?", "completion": "  "})),
    case("D013", "a number among answers", with_row({"prompt": "How many?", "completion": 5.0})),
    case("D014", "a bad row, to be dropped", with_row({"prompt": "Why?", "completion": None}), bad_rows="drop"),
    Case(
        "D015", "two answers, no generation marks", planned(TALKS, template=_UNMARKED), planned(TALKS, template=_MARKED)
    ),
    case("D016", "an answer of weight 0", with_chat(chat(3, weight=0)), CHATS),
    case("D017", "a conversation among prompts with completions", with_row(CHATS[3])),
    case("D018", "a row of other columns", with_row({"n": 3, "m": 4})),
    case(
        "D019",
        "a row that the filter leaves out",
        with_row(_TONGUES[3] | {"lang": "de"}, _TONGUES),
        _TONGUES,
        keep={"lang": "en"},
    ),
    case("D020", "a key that stands twice", _NAMED_TWICE),
    case("D021", "NaN", with_row(_SCORED[3] | {"score": float("nan")}, _SCORED), _SCORED),
    case("D022", "65 MiB of one letter, packed", _BOMB, gzip.compress(lines(ROWS))),
    Case("D023", "weights that aren't those of the rows", mixed(3), mixed(1)),
    Case("D024", "a document beyond the limit (lowered)", documents(1_000), documents(1_000_000)),
    Case("D043", "half a character in the JSON text of a cell", made(tools("look \ud800")), made(tools("look"))),
    Case(
        "D044",
        "an AWS key in rows to be pushed",
        made(with_row({"prompt": "Which key?", "completion": "It is AKIAQYLPMN5HFIQR7XYA, keep it."}), pushed),
        made(ROWS, pushed),
    ),
    case("D048", "conversations as JSON text", [{"messages": json.dumps(row["messages"])} for row in CHATS], CHATS),
    Case(
        "D047",
        "more rows than are looked at (limits lowered)",
        limited({"_HELD": 1, "_EXAMINED": 10}, inspected(ROWS)),
        limited({"_HELD": 1, "_EXAMINED": 40}, inspected(ROWS)),
    ),
]

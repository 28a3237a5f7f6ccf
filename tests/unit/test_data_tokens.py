"""Token lengths, counting labels, and the findings of the audit."""

import functools
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.counts import Counted
from tunesmith.data.labels import LabelColumns
from tunesmith.data.tokens import (
    audit_findings,
    audit_prepared,
    lengths,
    lengths_from,
    percentile,
    refusal_finding,
    refused_rows,
)
from tunesmith.data.trl_preparation import as_dataset
from tunesmith.records import Cutting, LabelAudit, PairAudit

EOS, BOS = 2, 1


class Words:
    """The little of a tokenizer that counting needs: ids are their own text, 1 is BOS and 2 is EOS."""

    eos_token_id = EOS
    bos_token_id: int | None = BOS
    chat_template = None
    name_or_path = "words"

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{token}>" for token in ids]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def count(rows: list[list[int]], labels: list[list[int]], **more: Any) -> LabelAudit:
    dataset = Dataset.from_dict({"input_ids": rows, "labels": labels})
    settings: dict[str, Any] = {"rows_given": len(rows), "max_length": 8, "layout": "messages", "loss_on": "assistant"}
    return audit_prepared(dataset, Words(), **{**settings, **more})  # type: ignore[arg-type]


def audit_of(**more: Any) -> LabelAudit:
    clean: dict[str, Any] = {
        "prepared_by": "trl", "layout": "prompt-completion", "loss_on": "completion", "max_length": 1024, "rows": 100,
        "rows_kept": 100, "tokens": 1000, "trained_tokens": 400, "trained_percent": 40.0, "stop_tokens": ["</s>"],
        "rows_without_stop": 0, "rows_cut": 0, "longest": 2000, "bos_per_row": {1: 100}, "preview": [],
    }  # fmt: skip
    return LabelAudit(**{**clean, **more})


def found(audit: LabelAudit) -> dict[str, tuple[str, str]]:
    return {finding.code: (finding.severity, finding.what) for finding in audit_findings(audit, "x")}


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100))
def test_percentiles_are_nearest_rank(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    value = percentile(ordered, percent)
    assert value in ordered
    assert sum(other <= value for other in ordered) * 100 >= percent * len(ordered)
    assert sum(other < value for other in ordered) * 100 < percent * len(ordered)


def test_lengths_are_of_rows_prompts_and_completions() -> None:
    measured = lengths_from([10, 4, 6], [7, 1, 2])
    assert (measured.total.rows, measured.total.min, measured.total.max, measured.total.total) == (3, 4, 10, 20)
    assert measured.total.mean == pytest.approx(20 / 3)
    assert (measured.total.median, measured.total.p90, measured.total.p95, measured.total.p99) == (6, 10, 10, 10)
    assert measured.prompt is not None
    assert measured.completion is not None
    assert (measured.prompt.total, measured.completion.total) == (10, 10)
    assert measured.completion.median == 3
    assert lengths_from([1]).prompt is None


def test_lengths_ask_the_encoder() -> None:
    measured = lengths([{"text": "abc"}], "text", lambda rows, layout: (None, [len(row[layout]) for row in rows]))
    assert measured.total.total == 3


def test_no_rows_have_no_lengths() -> None:
    with pytest.raises(ValueError, match="no rows"):
        lengths_from([])


def test_what_is_counted() -> None:
    rows = [[BOS, 5, 6, EOS], [BOS, BOS, 7], [8, EOS, 9], [BOS]]
    labels = [[-100, -100, 6, EOS], [-100, BOS, 7], [-100, -100, 9], [-100]]
    audit = count(rows, labels, rows_given=6, rows_cut=1)
    assert (audit.rows, audit.rows_kept, audit.rows_untrained, audit.rows_cut) == (6, 4, 1, 1)
    assert (audit.tokens, audit.trained_tokens, audit.trained_percent) == (11, 5, 45.45)
    assert audit.rows_without_stop == 3
    assert audit.bos_per_row == {0: 1, 1: 2, 2: 1}
    assert audit.stop_tokens == ["<2>"]
    assert audit.prepared_by.startswith("trl ")


def test_other_stop_tokens_count_too() -> None:
    audit = count([[5, 7], [5, EOS]], [[-100, 7], [-100, EOS]], stop_ids=[7, EOS])
    assert (audit.rows_without_stop, audit.stop_tokens) == (0, ["<2>", "<7>"])


def test_the_preview_shows_runs_of_trained_and_masked_tokens() -> None:
    rows = [[5, 6, 7, 8], [5], []]
    audit = count(rows, [[-100, 6, 7, -100], [5], []], preview=3)
    spans = [[(span.text, span.tokens, span.trained) for span in row.spans] for row in audit.preview]
    assert spans == [[("5", 1, False), ("6 7", 2, True), ("8", 1, False)], [("5", 1, True)], []]
    assert [row.row for row in audit.preview] == [1, 2, 3]
    assert len(count(rows, rows, preview=1).preview) == 1


def test_an_empty_dataset_is_counted() -> None:
    dataset = Dataset.from_dict({"input_ids": [[1]], "labels": [[1]]}).select([])
    audit = audit_prepared(dataset, Words(), rows_given=3, max_length=8, layout="text", loss_on="all")  # type: ignore[arg-type]
    assert (audit.rows_kept, audit.tokens, audit.trained_percent, audit.preview) == (0, 0, 0.0, [])


TOKENS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6)


@settings(deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=8), st.randoms())
def test_columns_count_as_loops_do(tokens: list[list[tuple[int, bool]]], random: Any) -> None:
    dataset = Dataset.from_list(
        [{"input_ids": [t for t, _ in row], "labels": [t if on else -100 for t, on in row]} for row in tokens]
    )
    order = list(range(len(tokens)))
    random.shuffle(order)
    tokens = [tokens[index] for index in order]
    columns = LabelColumns.of(dataset.select(order))
    assert columns.lengths.tolist() == [len(row) for row in tokens]
    assert columns.per_row(columns.trained).tolist() == [sum(on for _, on in row) for row in tokens]
    leading = [next((i for i, (t, _) in enumerate(row) if t != BOS), len(row)) for row in tokens]
    assert columns.leading(BOS) == {number: leading.count(number) for number in set(leading)}


def columns_of(tokens: list[list[tuple[int, bool]]]) -> LabelColumns:
    ids = [token for row in tokens for token, _ in row]
    trained = [on for row in tokens for _, on in row]
    starts = np.cumsum([0, *map(len, tokens)])
    return LabelColumns(np.array(ids, dtype=np.int64), np.array(trained, dtype=bool), starts)


@given(st.lists(st.lists(TOKENS, min_size=3, max_size=3), min_size=1, max_size=2), st.integers(1, 7), st.booleans())
def test_what_cutting_loses_is_counted_as_loops_do(sides: Any, limit: int, from_end: bool) -> None:
    counted = Counted([columns_of(side) for side in sides], Words(), [EOS])  # type: ignore[arg-type]
    kept = [[row[-limit:] if from_end else row[:limit] for row in side] for side in sides]

    def trained(row: list[tuple[int, bool]], *only: int) -> int:
        return sum(on and (not only or token in only) for token, on in row)

    def rows(loses: Any) -> int:
        pairs = zip(zip(*sides, strict=True), zip(*kept, strict=True), strict=True)
        return sum(any(loses(a, b) for a, b in zip(whole, left, strict=True)) for whole, left in pairs)

    gone = rows(lambda a, b: trained(a) > 0 == trained(b))
    lost = counted.cutting(limit, from_end=from_end)
    assert lost == Cutting(
        end="beginning" if from_end else "end",
        tokens=sum(len(row) for side in sides for row in side) - sum(len(row) for side in kept for row in side),
        answer_tokens=sum(trained(row) for side in sides for row in side)
        - sum(trained(row) for side in kept for row in side),
        answers_gone=gone,
        answers_cut=sum(
            any(trained(a) > trained(b) for a, b in zip(whole, left, strict=True))
            and not any(trained(a) > 0 == trained(b) for a, b in zip(whole, left, strict=True))
            for whole, left in zip(zip(*sides, strict=True), zip(*kept, strict=True), strict=True)
        ),
        stops_gone=rows(lambda a, b: trained(a, EOS) > 0 == trained(b, EOS)),
    )


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6))
def test_sides_are_compared_and_joined(rows: list[Any]) -> None:
    one, other = (columns_of(list(side)) for side in zip(*rows, strict=True))
    same = [[token for token, _ in a] == [token for token, _ in b] for a, b in rows]
    assert one.same_as(other).tolist() == same
    joined = LabelColumns.joined([one, other])
    assert joined.lengths.tolist() == [*one.lengths.tolist(), *other.lengths.tolist()]
    assert joined.ids.tolist() == [*one.ids.tolist(), *other.ids.tolist()]
    assert joined.trained.tolist() == [*one.trained.tolist(), *other.trained.tolist()]


def test_the_preview_shows_the_rows_worth_a_look() -> None:
    rows = [[5, EOS], [6, EOS], [7], [8, 8, 8, EOS], [9, EOS]]
    counted = Counted([columns_of([[(token, True) for token in row] for row in rows])], Words(), [EOS])  # type: ignore[arg-type]
    cut = np.array([False, True, True, False, False])
    places = ["a:1", "a:2", "b:1", "b:2", "b:3"]

    def shown(most: int, cut: Any) -> list[tuple[Any, str]]:
        return [(row.row, row.why) for row in counted.preview(most, places, cut)]

    worth = [
        ("a:1", "the first row"),
        ("a:2", "cut at max_length"),
        ("b:1", "trains no stop token"),
        ("b:2", "the longest row"),
    ]
    assert shown(9, cut) == [*worth, ("b:3", "")]
    assert shown(4, cut) == worth
    assert shown(2, cut) == worth[:2]
    assert shown(3, None) == [worth[0], *worth[2:]]
    assert shown(0, cut) == []


def test_long_texts_are_shortened_in_the_preview() -> None:
    many = count([[5] * 3000], [[5] * 3000])
    (span,) = many.preview[0].spans
    assert (span.tokens, len(span.text)) == (3000, 2003)
    assert " … " in span.text


def test_packed_rows_are_taken_apart() -> None:
    packed = Dataset.from_dict(
        {"input_ids": [[5, EOS, 6], [7, 8]], "labels": [[5, EOS, 6], [7, 8]], "seq_lengths": [[2, 1], [2]]}
    )
    assert LabelColumns.of(packed).lengths.tolist() == [2, 1, 2]


def test_a_clean_audit_has_no_findings() -> None:
    assert found(audit_of()) == {}
    assert found(audit_of(layout="text", loss_on="all", trained_percent=100.0, bos_per_row={0: 100})) == {}


def test_t001_no_stop_token() -> None:
    assert found(audit_of(rows_without_stop=3)) == {"T001": ("error", "3 of 100 rows train no stop token (</s>).")}


def test_t001_is_a_warning_when_cutting_explains_it_and_most_rows_have_one() -> None:
    assert found(audit_of(rows_without_stop=3, rows_cut=3))["T001"][0] == "warning"
    assert found(audit_of(rows_without_stop=4, rows_cut=3))["T001"][0] == "error"
    assert found(audit_of(rows_without_stop=50, rows_cut=50))["T001"][0] == "warning"
    assert found(audit_of(rows_without_stop=51, rows_cut=51))["T001"][0] == "error"
    assert found(audit_of(rows_without_stop=50, rows_cut=50))["T002"][0] == "warning"
    assert found(audit_of(rows_without_stop=51, rows_cut=51))["T002"][0] == "error"


def test_t001_names_the_cut_that_took_the_stops() -> None:
    cut = audit_of(rows_without_stop=3, rows_cut=3, longest=90)
    (fix,) = [one.fix for one in audit_findings(cut, "x") if one.code == "T001"]
    assert fix.startswith("Cutting took it: raise `training: {max_length: 90}`")
    (fix,) = [one.fix for one in audit_findings(cut, "x", context=64) if one.code == "T001"]
    assert "The model's context is 64 tokens" in fix
    (fix,) = [one.fix for one in audit_findings(audit_of(rows_without_stop=4, rows_cut=3), "x") if one.code == "T001"]
    assert fix.startswith("Use a chat template")


def test_t002_rows_cut() -> None:
    (finding,) = audit_findings(audit_of(rows_cut=5), "x")
    assert (finding.code, finding.severity) == ("T002", "warning")
    assert finding.what == "5 of 100 rows are longer than max_length 1024 and lose their end."
    assert "max_length: 2000" in finding.fix


@pytest.mark.parametrize(("context", "raised"), [(None, True), (0, True), (2000, True), (1999, False)])
def test_t002_advises_no_max_length_beyond_the_context(context: int | None, raised: bool) -> None:
    (finding,) = audit_findings(audit_of(rows_cut=5), "x", context=context)
    assert ("max_length: 2000" in finding.fix) == raised
    assert ("context is 1999 tokens: shorten" in finding.fix) != raised


def test_t002_what_is_lost() -> None:
    lost: dict[str, Any] = {
        "end": "end",
        "tokens": 90,
        "answer_tokens": 44,
        "answers_cut": 3,
        "answers_gone": 2,
        "stops_gone": 5,
    }
    (finding,) = audit_findings(audit_of(rows_cut=5, trained_tokens=396, cutting=Cutting(**lost)), "x")
    assert finding.what == (
        "5 of 100 rows are longer than max_length 1024 and lose their end. Training loses 44 tokens (10.0%): the "
        "whole answer in 2 rows, a part of it in 3 rows, the stop token in 5 rows."
    )
    few = Cutting(**(lost | {"end": "beginning", "answers_gone": 0, "stops_gone": 0}))
    assert found(audit_of(rows_cut=5, trained_tokens=396, cutting=few))["T002"][1].endswith(
        "and lose their beginning. Training loses 44 tokens (10.0%): a part of the answer in 3 rows."
    )
    prompts = Cutting(**(lost | {"answer_tokens": 0, "answers_cut": 0, "answers_gone": 0, "stops_gone": 0}))
    assert found(audit_of(rows_cut=5, cutting=prompts))["T002"][1].endswith("and lose their end.")


def test_t003_rows_without_a_trained_token() -> None:
    assert found(audit_of(rows_kept=90))["T003"] == (
        "warning",
        "10 of 100 rows have no trained token left and are dropped by the trainer.",
    )
    assert found(audit_of(rows_kept=50))["T003"][0] == "warning"
    assert found(audit_of(rows_kept=49))["T003"][0] == "error"
    packed = found(audit_of(rows_kept=95, rows_untrained=4, rows_without_stop=4))
    assert packed.keys() == {"T003"}
    assert packed["T003"][1].startswith("9 of 100")


def test_t003_rows_too_long_to_score() -> None:
    scored = audit_of(method="reward", loss_on="score", rows_kept=90)
    assert found(scored) == {
        "T003": ("warning", "10 of 100 rows are longer than max_length 1024 and are dropped by the trainer.")
    }
    (finding,) = audit_findings(scored, "x", context=1999)
    assert "context is 1999 tokens" in finding.fix


def test_t019_equal_pairs() -> None:
    sides = {
        "prompt_tokens": 1,
        "chosen_tokens": 2,
        "rejected_tokens": 2,
        "chosen_without_stop": 0,
        "rejected_without_stop": 9,
    }
    of = functools.partial(audit_of, layout="preference", method="dpo")
    assert found(of(pairs=PairAudit(equal=0, **sides))) == {}
    what = "In 3 of 100 pairs, chosen and rejected are the same after tokenising"
    assert found(of(pairs=PairAudit(equal=3, **sides))) == {"T019": ("warning", f"{what}.")}
    cut = found(of(pairs=PairAudit(equal=3, **sides), rows_cut=5))
    assert cut["T019"] == ("warning", f"{what} and cutting at 1024.")
    assert found(of(pairs=PairAudit(equal=50, **sides)))["T019"][0] == "warning"
    assert found(of(pairs=PairAudit(equal=51, **sides)))["T019"][0] == "error"


def test_t004_more_than_one_bos() -> None:
    assert found(audit_of(bos_per_row={1: 60, 2: 30, 3: 10})) == {
        "T004": ("error", "40 of 100 rows begin with 3 BOS tokens.")
    }


def test_t007_the_prompt_is_trained_too() -> None:
    assert found(audit_of(layout="messages", loss_on="all", trained_percent=99.96))["T007"] == (
        "warning",
        "100.0% of all tokens are trained, the user's turns among them.",
    )
    assert "T007" in found(audit_of(loss_on="all"))
    assert found(audit_of(layout="messages", loss_on="assistant")) == {}


def test_t012_nothing_but_a_stop_token_is_trained() -> None:
    assert found(audit_of(rows_stop_only=2)) == {
        "T012": ("error", "2 of 100 rows train nothing but a stop token (</s>).")
    }


class Blanks(Words):
    """As Words, with a line break as token 3 and a space as token 4."""

    def decode(self, ids: list[int]) -> str:
        return "".join({3: "\n", 4: " "}.get(token, str(token)) for token in ids)


def test_rows_that_train_a_stop_token_only_are_counted() -> None:
    empty = [[5, EOS], [5, 3, EOS, 4], [5, 9]]  # 9 is a stop token too
    full = [[5, 3], [5, 6, EOS], [5, EOS, 6], [5, 3, 3, 6, 3, 3, EOS], [5], [EOS, 5]]
    rows = [row for pair in zip(full, [*empty, [], [], []], strict=True) for row in pair]
    dataset = Dataset.from_dict({"input_ids": rows, "labels": [[-100, *row[1:]][: len(row)] for row in rows]})
    settings: dict[str, Any] = {"rows_given": 12, "max_length": 8, "layout": "text", "loss_on": "all"}
    assert audit_prepared(dataset, Blanks(), stop_ids=[9], **settings).rows_stop_only == 3


def test_a_dataset_keeps_each_message_as_it_is() -> None:
    calls = [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": n, "arguments": {n: 1}}}]}
        for n in "ab"
    ]
    rows = [{"messages": [{"role": "user", "content": "x"}, call]} for call in calls]
    rows[0]["tools"] = "[]"  # type: ignore[assignment]
    dataset = as_dataset(rows)
    assert [row["messages"] for row in dataset] == [row["messages"] for row in rows]
    assert dataset["tools"][:] == ["[]", None]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "t"},
        {"prompt": "p", "completion": "c"},
        {"prompt": [{"role": "user", "content": "x"}], "completion": []},
    ],
)
def test_a_dataset_of_plain_rows(row: dict[str, Any]) -> None:
    dataset = as_dataset([row, row])
    assert dataset[:] == {name: [value, value] for name, value in row.items()}
    assert "Json" not in str(dataset.features)  # three times as slow to make


def test_t008_rows_that_are_refused() -> None:
    refused = refused_rows([{"n": 1}, {"n": 0}, {}], lambda row: 1 / row["n"])
    assert refused == {1: "division by zero", 2: "'n'"}
    finding = refusal_finding(refused, [7, 8, 9])
    assert (finding.code, finding.severity) == ("T008", "error")
    assert finding.what == "2 rows can't be rendered by the model's chat template: division by zero (rows 8, 9)."
    assert refused_rows([{"n": 1}], lambda row: 1 / row["n"]) == {}

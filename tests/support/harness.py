"""A folder of lm-eval tasks that need no network: choices, short answers, plain text."""

from __future__ import annotations

import json
from pathlib import Path

from .learnt import COLOURS

_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
fewshot_split: test
metadata: {{version: 2.0}}
"""
_COLOURS = (
    _TASK
    + """
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
)
_SPELT = (
    _TASK
    + """
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - name: first-word
    filter: [{{function: regex, regex_pattern: "(\\\\w+)"}}, {{function: take_first}}]
"""
)
_TEXT = (
    _TASK
    + """
output_type: loglikelihood_rolling
num_fewshot: 0
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
)


def write_tasks(folder: Path) -> Path:
    """The tasks colours, spelt and plain, of the questions of `learnt.ROWS`, and the group both of two of them."""
    folder.mkdir(parents=True)
    file = folder / "rows.jsonl"
    rows = [
        {"question": f"Which colour has number {number}?", "choices": COLOURS, "answer": index}
        for index, number in enumerate(range(1, len(COLOURS) + 1))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, text in (("colours", _COLOURS), ("spelt", _SPELT), ("plain", _TEXT)):
        (folder / f"{name}.yaml").write_text(text.format(name=name, file=file), encoding="utf-8")
    group = "group: both\ntask: [colours, plain]\naggregate_metric_list: [{metric: acc, filter_list: none}]\n"
    (folder / "both.yaml").write_text(group, encoding="utf-8")
    return folder

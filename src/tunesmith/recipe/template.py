"""The text of a new recipe, with comments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from ..records import Wanted
from .schema import is_dataset_id
from .training import CONFIGS

_TEXT = """\
# A tunesmith recipe. Everything left out is decided by the plan and explained there:
#   tunesmith plan FILE     every value with its reason
#   tunesmith train FILE    trains it
# Editors complete the keys from the JSON Schema that `tunesmith schema` prints.

model: {model}
method: {method}

# {remark}
data:
  train: {train}
{mapping}{filter}{test}  eval: 0.05            # share of train that is held out; or a file
  {bad_rows}      # drop rows that can't be trained on, instead of refusing the file

# Low-rank adapters train few parameters and are merged at export; `kind: none` trains all weights.
adapter: {{kind: lora, r: 16}}
{rewards}
# Arguments of trl.{config}, under TRL's own names.
training:
  num_train_epochs: {epochs}
  # learning_rate: {rate}
  # per_device_train_batch_size: 4
  # {length}: 1024
{rest}"""
_REST = """
# GGUF files for llama.cpp: both, unless set.
# export: {gguf: [f16, q8_0]}
"""
_REWARDS = """
# What answers are rewarded for. exact_match compares them with the rows' right answers; docs/rewards.md lists the
# others. Functions of your own are FILE.py:NAME, a reward model is {model: RUN}.
rewards: [exact_match]
"""
_RATES = {"dpo": "5.0e-6", "kto": "5.0e-6", "grpo": "1.0e-5", "rloo": "1.0e-5", "reward": "1.0e-4"}


def recipe_text(
    *,
    data: str,
    model: str,
    method: str,
    remark: str,
    folder: Path,
    test: str | None = None,
    mapping: dict[str, str] | None = None,
    keep: dict[str, Wanted] | None = None,
    bad_rows: str = "error",
) -> str:
    """A recipe file for `folder`, with the paths of data and model as seen from there; `keep` is its `data.filter`."""
    generating = method in ("grpo", "rloo")
    return _TEXT.format(
        model=_scalar(_relative(model, folder) if Path(model).is_dir() else model),
        method=method,
        remark="".join(character for character in " ".join(remark.split()) if character.isprintable()),
        train=_scalar(data if _on_the_hub(data) else _relative(data, folder)),
        mapping=f"  mapping: {_flow(mapping)}\n" if mapping else "",
        filter=f"  filter: {_flow(keep)}\n" if keep else "",
        config=CONFIGS[method][1],
        rate=_RATES.get(method, "2.0e-4"),
        epochs=3 if method == "sft" else 1,
        length="max_completion_length" if generating else "max_length",
        rewards=_REWARDS if generating else "",
        rest="" if method == "reward" else _REST,
        bad_rows="bad_rows: drop" if bad_rows == "drop" else "# bad_rows: drop",
        test=f"  test: {_scalar(test if _on_the_hub(test) else _relative(test, folder))}\n" if test else "",
    )


def _on_the_hub(data: str) -> bool:
    return is_dataset_id(data) and not Path(data).exists()


def _relative(path: str, folder: Path) -> str:
    # The recipe's folder may be reached through a link; load_recipe counts from where it really is.
    file = Path(path)
    return os.path.relpath(file.parent.resolve() / file.name, folder.resolve())


def _scalar(value: str) -> str:
    return _flow(value).removesuffix("...").strip(" \n")


def _flow(value: str | Mapping[str, Wanted]) -> str:
    """`value` on one line of YAML."""
    texts = [value] if isinstance(value, str) else [str(text) for pair in value.items() for text in pair]
    # PyYAML folds a line break that it leaves bare; those of Unicode come back as spaces.
    breaks = any(text.splitlines() != [text] for text in texts if text)
    style = '"' if breaks else None
    return yaml.safe_dump(
        value if isinstance(value, str) else dict(value),
        default_flow_style=True,
        default_style=style,
        allow_unicode=not breaks,
        width=1 << 20,
    ).strip(" \n")  # only what YAML takes for space: a name may end with another one

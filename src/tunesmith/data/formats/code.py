"""Python that turns a file into a dataset of TRL's layout, to be run as it is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ...records import Verdict, Wanted
from ..paths import quoted
from .case import value_shape
from .detection import Detection, Part
from .load import NotPlainError, load
from .mapped import mapped_sight
from .names import mark
from .writer import Writer

_MANY_LINES: Final = {"images", "tools", "tool_calls", "history"}


def with_code(detection: Detection, mapped: dict[str, str], source: str, *, plain: bool = True) -> Detection:
    """`detection` with code in each verdict that isn't INCOMPATIBLE.

    `plain` says that other readers take all rows of the file, and read in them what was read here.
    """
    try:
        loaded = load(source, detection) if plain else None
    except NotPlainError:
        loaded = None
    verdicts = [
        verdict
        if verdict.status == "INCOMPATIBLE"
        else verdict.model_copy(update={"code": _code(detection, verdict, mapped, source, loaded)})
        for verdict in detection.verdicts
    ]
    return replace(detection, verdicts=verdicts)


def _code(
    detection: Detection, verdict: Verdict, mapped: dict[str, str], source: str, loaded: tuple[str, str] | None
) -> str:
    mapping = verdict.mapping or mapped
    try:
        return _plain(detection, verdict, mapping, loaded)
    except NotPlainError:
        arguments = [quoted(source), quoted(verdict.method)]
        arguments += [f"mapping={quoted(mapping)}"] if mapping else []
        arguments += [f"filter={quoted(verdict.filter)}"] if verdict.filter else []
        rows = f"training_rows({', '.join(arguments)})"
        if _has_several_references(detection, verdict, mapping):
            return (
                "from datasets import Dataset\n\nfrom tunesmith.data.prepare import training_rows\n\n"
                f"rows = Dataset.from_list({rows})\n"
            )
        return (
            "from tunesmith.data.prepare import training_rows\n"
            f"from tunesmith.data.trl_preparation import as_dataset\n\nrows = as_dataset({rows})\n"
        )


def _has_several_references(detection: Detection, verdict: Verdict, mapping: dict[str, str]) -> bool:
    """Whether rows get a list of right answers, which is no conversation."""
    sight = mapped_sight(mapping, detection.sight, detection.facts) if mapping else detection.sight
    reference = sight.columns.get("reference")
    if reference is None or verdict.method not in ("grpo", "rloo"):
        return False
    shapes = (value_shape(reference, group.shape) for group in detection.facts.structure.groups)
    return any(shape.kind == "list" for shape in shapes if shape is not None)


def _plain(detection: Detection, verdict: Verdict, mapping: dict[str, str], loaded: tuple[str, str] | None) -> str:
    """Code that needs nothing but datasets; `loaded` is what `load` gives, None where it can't.

    Raises:
        NotPlainError: such code would be long, or not exact.
    """
    if loaded is None or len(detection.parts) != 1 or detection.features.keys() & _MANY_LINES:
        raise NotPlainError
    facts, part = detection.facts, detection.parts[0]
    sight = mapped_sight(mapping, detection.sight, facts) if mapping else detection.sight
    if "tools" in sight.columns:
        raise NotPlainError
    writer = Writer(sight, Part(sight, part.groups), facts)
    body = _BODIES[verdict.method](writer)
    needed, rows = loaded
    # Where the file has a column of this name, its type outlasts `map`.
    cast = '.cast_column("label", Value("bool"))' if "label" in body else ""
    needed = "Value, load_dataset" if cast and "Value" not in needed else needed
    fields = "".join(f'        "{name}": {expression},\n' for name, expression in body.items())
    filters = "".join(
        f"rows = rows.filter(lambda row: row[{quoted(column)}] {_compared(value)})\n"
        for column, value in (verdict.filter or {}).items()
    )
    usable = writer.usable()
    kept = ".filter(is_usable)" if usable else ""
    blocks = [
        f"from datasets import {needed}\n\nrows = {rows}\n{filters}{writer.roles_table()}",
        *writer.helpers(),
        *([usable] if usable else []),
        f"def convert(row):\n    return {{\n{fields}    }}\n",
        f"rows = rows{kept}.map(convert, remove_columns=rows.column_names){cast}\n",
    ]
    return "\n\n".join(blocks)


def _compared(value: Wanted) -> str:
    """How the column of a filter is compared with what the filter wants."""
    return f"in {quoted(value)}" if isinstance(value, list) else f"== {quoted(value)}"


def _sft(writer: Writer) -> dict[str, str]:
    if "text" in writer.columns:
        return _clm(writer)
    if "messages" in writer.columns:
        return {"messages": writer.conversation()}
    prompt, completion = writer.pair()
    return {"prompt": prompt, "completion": completion}


def _clm(writer: Writer) -> dict[str, str]:
    return {"text": writer.said("text")}


def _preference(writer: Writer) -> dict[str, str]:
    if not writer.columns.keys() & {"prompt", "instruction"}:
        raise NotPlainError
    return writer.preference()


def _kto(writer: Writer) -> dict[str, str]:
    if "chosen" in writer.columns:
        return _preference(writer)
    values = writer.facts.label_values(writer.columns["label"])
    if writer.shape("label").kind not in ("boolean", "number") or any(mark(value) is None for value in values):
        raise NotPlainError
    prompt, completion = writer.pair()
    return {"prompt": prompt, "completion": completion, "label": f"{writer.value('label')} > 0"}


def _rewarded(writer: Writer) -> dict[str, str]:
    columns = writer.columns
    if "chosen" in columns:
        return {"prompt": _preference(writer)["prompt"]}
    if "reference" in columns:
        return {"prompt": writer.prompt(), "reference": writer.given("reference")}
    if not columns.keys() & {"completion", "output", "messages"}:
        return {"prompt": writer.prompt()}
    prompt, completion = writer.pair()
    if "label" in columns:
        return {"prompt": prompt}
    return {"prompt": prompt, "reference": f'({completion})[-1]["content"]' if writer.chat else completion}


_BODIES: Final[dict[str, Callable[[Writer], dict[str, Any]]]] = {
    "sft": _sft,
    "clm": _clm,
    "dpo": _preference,
    "reward": _preference,
    "kto": _kto,
    "grpo": _rewarded,
    "rloo": _rewarded,
}

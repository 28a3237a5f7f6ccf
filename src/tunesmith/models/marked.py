"""TRL's marked copies of chat templates, known from its source: importing its table would import torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as TRL's has_generation_markers
_CHOOSES = "get_training_chat_template"


def marked_template(template: str) -> str | None:
    """The template that assistant-only loss renders with: `template` if it has generation marks, else TRL's copy of it.

    None where there is none: the assistant's turns can't be told apart then.
    """
    if _MARK.search(template):
        return template
    for original, marked in _copies().items():
        if original.read_text(encoding="utf-8") == template:
            return marked.read_text(encoding="utf-8")
    return None


@functools.cache
def _copies() -> dict[Path, Path]:
    """Template file -> file of its marked copy, as `get_training_chat_template` of the installed TRL chooses.

    It is a chain of `if chat_template == x_chat_template: return y_chat_template`, where the names are assigned
    `(_CHAT_TEMPLATES_DIR / "x.jinja").read_text(...)` at the top of the module. Empty for a TRL written otherwise.
    """
    spec = importlib.util.find_spec("trl")
    folders = [Path(place) for place in (spec.submodule_search_locations or [] if spec else [])]
    source = next((file for folder in folders if (file := folder / "chat_template_utils.py").exists()), None)
    if source is None:
        return {}
    tree = ast.parse(source.read_text(encoding="utf-8"))
    files: dict[str, Path] = {}
    chosen: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if read := _file_in(value):
                files[name] = source.parent / "chat_templates" / read
            case ast.FunctionDef(name=name) if name == _CHOOSES:
                chosen = dict(filter(None, map(_choice, ast.walk(node))))
    return {files[given]: files[copy] for given, copy in chosen.items() if given in files and copy in files}


def _file_in(value: ast.expr) -> str | None:
    """The name of the template file that an expression reads."""
    texts = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return next((text for text in texts if isinstance(text, str) and text.endswith(".jinja")), None)


def _choice(node: ast.AST) -> tuple[str, str] | None:
    """The two names of `if chat_template == given: return copy`."""
    match node:
        case ast.If(
            test=ast.Compare(ops=[ast.Eq()], comparators=[ast.Name(id=given)]),
            body=[ast.Return(value=ast.Name(id=copy))],
        ):
            return given, copy
    return None

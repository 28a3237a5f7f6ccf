"""Rows with images: where the files are, where the texts show them, and the dataset that a trainer reads them from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .rows import BadRowError, Row, kind_of

if TYPE_CHECKING:
    from datasets import Dataset

MARK: Final = "<image>"
"""Where LLaVA's data shows an image in a text."""


def with_images(row: Row, images: Any, field: str, folder: Path) -> Row:
    """A prepared row with the images of the raw one as paths, and with parts of type image where its texts show them.

    Without marks the images stand before the first question, in their order.

    Raises:
        BadRowError: D013, one of `images` is no path of a file, in `folder` or where the path says; or the row's texts
            have marks for another number of images, or are no conversation.
    """
    listed = images if isinstance(images, list) else [images]
    paths = [_path(image, field, folder) for image in listed]
    name = "messages" if "messages" in row else "prompt"
    if not isinstance(row.get(name), list):
        raise BadRowError("D013", field, "images beside text that is no conversation")
    said = [_in_parts(message) for message in row[name]]
    shown = sum(part["type"] == "image" for message in said for part in message["content"])
    if not shown:
        first = next((message for message in said if message["role"] == "user"), said[0])
        first["content"][:0] = [{"type": "image"}] * len(paths)
    elif shown != len(paths):
        raise BadRowError("D013", field, f"another number of images than its texts have {MARK} marks")
    answer = {"completion": [_in_parts(message) for message in row["completion"]]} if "completion" in row else {}
    return {**row, name: said, **answer, "images": paths}


def as_image_dataset(rows: Sequence[Row]) -> Dataset:
    """Rows with images as a dataset; an image is opened when its row is read, as PIL's, in RGB."""
    from datasets import Dataset, Features, Image, Json, List, Value

    names = dict.fromkeys(name for row in rows for name in row if name != "images")
    kinds = {name: next(row[name] for row in rows if name in row) for name in names}
    features = {name: List(Json()) if isinstance(value, list) else Value("string") for name, value in kinds.items()}
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns["images"] = [row.get("images", []) for row in rows]
    return Dataset.from_dict(columns, features=Features({**features, "images": List(Image(mode="RGB"))}))


def _path(image: Any, field: str, folder: Path) -> str:
    given = image.get("path") if isinstance(image, dict) else image
    if not isinstance(given, str) or not given:
        raise BadRowError("D013", field, f"{kind_of(image)} that isn't the path of an image")
    for path in (folder / given, Path(given)):
        if path.is_file():
            return str(path.resolve())
    raise BadRowError("D013", field, "an image file that isn't there")


def _in_parts(message: Row) -> Row:
    """A message whose content is a list of parts, of a user's text one for each mark and each stretch between them."""
    texts = message["content"].split(MARK) if message["role"] == "user" else [message["content"]]
    parts: list[Row] = []
    for number, text in enumerate(texts):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": text.strip() if len(texts) > 1 else text}] if text.strip() else []
    return {**message, "content": parts}

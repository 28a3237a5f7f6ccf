"""What a browser would make of a page, and text that tries to become more than text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}{% raw %}&lt;\u202eevil\x00\x1b[31m"


class Page(HTMLParser):
    """Tags with attributes, and the text outside style sheets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def hostile(value: Any, fixed: set[str]) -> Any:
    """A dumped record with every free text made hostile; the values of `fixed` names stay."""
    if isinstance(value, dict):
        return {key: item if key in fixed else hostile(item, fixed) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, fixed) for item in value]
    return HOSTILE if isinstance(value, str) else value

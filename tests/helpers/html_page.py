"""A page of HTML taken apart: tags, attributes, texts and the pixels of its pictures."""

import base64
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

VOID = {"meta", "img", "br", "line"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; a tag that is not closed in order is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def pictures(self) -> list[np.ndarray]:
        uris = [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]
        return [pixels(uri) for uri in uris]


def pixels(uri: str) -> np.ndarray:
    """RGB."""
    assert re.match(r"data:image/(jpeg|png);base64,", uri)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2], validate=True), np.uint8), 1)
    assert image is not None
    return image[..., ::-1]

"""Takes the paragraphs of running text out of HTML pages."""

import gzip
import html.parser
import os
import re

from text import squeeze

MIN_LINE = 100
_PARAGRAPH_TAGS = {"p", "li", "dd", "blockquote"}
_BREAKING_TAGS = _PARAGRAPH_TAGS | {
    "ul", "ol", "dl", "dt", "div", "table", "tr", "td", "th", "section", "article",
    "body", "h1", "h2", "h3", "h4", "h5", "h6",
}  # fmt: skip
_SKIPPED_TAGS = {"script", "style", "pre", "nav", "head", "title"}


class ParagraphParser(html.parser.HTMLParser):
    """Collects the text of paragraphs and list items in `paragraphs`."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs = []
        self._text = None  # of the open paragraph, None outside of one
        self._skipped = 0  # depth of open elements that hold no prose

    def handle_starttag(self, tag, attributes):
        if tag in _SKIPPED_TAGS:
            self._skipped += 1
        elif tag in _BREAKING_TAGS:
            self._end_paragraph()
            if tag in _PARAGRAPH_TAGS:
                self._text = []
        elif tag == "br" and self._text is not None:
            self._text.append(" ")

    def handle_endtag(self, tag):
        if tag in _SKIPPED_TAGS:
            self._skipped = max(0, self._skipped - 1)
        elif tag in _BREAKING_TAGS:
            self._end_paragraph()

    def handle_data(self, data):
        if self._text is not None and not self._skipped:
            self._text.append(data)

    def close(self):
        super().close()
        self._end_paragraph()

    def _end_paragraph(self):
        text = squeeze("".join(self._text or []))
        self._text = None
        if text:
            self.paragraphs.append(text)


def page_paragraphs(markup):
    """Returns the paragraphs of one page that are long enough."""
    parser = ParagraphParser()
    parser.feed(markup)
    parser.close()
    return [text for text in parser.paragraphs if len(text) >= MIN_LINE]


def folder_paragraphs(folder):
    """Yields the paragraphs of all pages (.html, .html.gz) below a folder."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.islink(path) or not re.search(r"\.html?(?:\.gz)?$", name):
                continue
            opener = gzip.open if name.endswith(".gz") else open
            with opener(path, "rb") as stream:
                yield from page_paragraphs(stream.read().decode("utf-8", "replace"))

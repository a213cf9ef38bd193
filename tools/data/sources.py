"""Turns the files inside the packages into lines: dictionaries, factbook, articles."""

import gzip
import html
import json
import re

from text import drop_empty_headings, squeeze
from wikitext import DROPPED_SECTIONS

MIN_LINE = 100
_BROKEN_LINK = ("{", "[{", "(http")  # cross references that lost their indentation
_MOSTLY_TEXT = 0.75  # share of letters and spaces in a paragraph of prose


def units_articles(data):
    """Yields (title, lines) from quantulum3's wiki.json (parsed JSON)."""
    for article in sorted(data, key=lambda a: a["clean"]):
        title = squeeze(article["clean"])
        lines = ["= %s =" % title]
        dropped = 0
        for raw in article["text"].split("\n"):
            line = squeeze(raw)
            heading = re.fullmatch(r"(={2,6}) (.*?) \1", line)
            if heading:
                level = len(heading[1])
                if dropped and level > dropped:
                    continue
                dropped = level if DROPPED_SECTIONS.fullmatch(heading[2]) else 0
                if not dropped:
                    lines.append(line)
            elif not dropped and len(line) >= 60 and "displaystyle" not in line:
                lines.append(line)
        yield title, drop_empty_headings(lines)


def foldoc_lines(stream):
    """Yields the paragraphs of a dictd file of FOLDOC or the Jargon File.

    An entry starts in the first column with its headword, which leads the first
    paragraph: 'Ada (language): A Pascal-descended language ...'.
    """
    for headwords, paragraphs in dictd_entries(stream):
        if headwords[0].startswith("00-database"):
            continue
        headword = headwords[0]
        is_first = True
        for raw in paragraphs:
            if not _is_prose(raw):
                continue
            text = _foldoc_text(raw)
            sense = re.match(r"(?:\d+\. +)?<([\w ,/&.-]+)> *", text)
            if sense:
                text = "%s (%s): %s" % (headword, sense[1], text[sense.end() :])
            elif is_first:
                text = "%s: %s" % (headword, text)
            is_first = False
            if len(text) >= MIN_LINE:
                yield text


def _foldoc_text(raw):
    """Removes addresses, dates and the marks of cross references."""
    text = re.sub(r"\{?\((?:https?|ftp|mailto|news)[^()\s]*\)\}?", "", raw)
    text = re.sub(r"\s*\([\w./-]+\.html?\)\}", "}", text)
    text = re.sub(r"(?:,|E-mail:)?\s*<[^<>\s]+@[^<>\s]+>", "", text)
    text = re.sub(r"<(?:https?|ftp)://[^<>]*>", "", text)
    text = re.sub(r"\s*\(\d{4}-\d\d-\d\d\)\s*$", "", text)
    text = re.sub(r"\{\s*\}|[{}]", "", text)
    text = re.sub(r"^((?:\d+\. )?<[^<>]*> \([^()]*\)) <[^<>]*>", r"\1", text)
    text = re.sub(r"__(\S.*?\S)__", r"\1", text)
    return squeeze(re.sub(r"\s+([.,;])(?=\s|$)", r"\1", text))


def dictd_entries(stream):
    """Yields (headwords, paragraphs) of a dictd file with indented definitions."""
    headwords, paragraphs, current = [], [], []
    for raw in stream:
        line = raw.rstrip("\n")
        starts_entry = line and not line[0].isspace() and not line.startswith(_BROKEN_LINK)
        if current and (starts_entry or not line.strip()):
            paragraphs.append(" ".join(current))
            current = []
        if not line.strip():
            continue
        if not starts_entry:
            current.append(line.strip())
            continue
        if paragraphs:
            yield headwords, paragraphs
            headwords, paragraphs = [], []
        headwords.append(line.strip())
    if current:
        paragraphs.append(" ".join(current))
    if headwords:
        yield headwords, paragraphs


def _is_prose(paragraph):
    """False for bibliographic notes, tables, programs and drawings."""
    if re.match(r"\[[\"{A-Z].*\]\.?$", paragraph):
        return False
    if re.search(r"\S {4,}\S.* {4,}\S", paragraph.strip()):
        return False
    text = squeeze(paragraph)
    plain = sum(c.isascii() and (c.isalpha() or c == " ") for c in text)
    return plain >= _MOSTLY_TEXT * len(text)


def factbook_country(sections):
    """Returns (name, lines) of one country of the factbook (parsed JSON)."""
    name = ""
    lines = []
    for topics in sections.values():
        if not isinstance(topics, dict):
            continue
        for topic, value in topics.items():
            if topic.startswith("Diplomatic representation"):
                continue  # addresses and telephone numbers
            parts = [plain_text(part) for part in _leaves("", value)]
            text = "; ".join(part for part in parts if part)
            if topic == "Country name":
                name = _country_name(value)
            # Half of the book is figures; topics of words are kept.
            if len(text) >= MIN_LINE and _is_prose(text):
                lines.append("%s: %s" % (topic, text))
    return name, lines


def plain_text(markup):
    """Returns an HTML fragment as one line of text."""
    text = re.sub(r"</?(?:br|p)\b[^>]*>", " ", markup)
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    text = re.sub(r"(?:; )?for more details, go to:? *|https?://\S+|\S+@\S+", "", text)
    return squeeze(text).strip("; ")


def _country_name(value):
    for form in ("conventional short form", "conventional long form"):
        text = plain_text(value.get(form, {}).get("text", ""))
        if text and text != "none":
            return re.sub(r"\s*[(;].*", "", text)
    return ""


def _leaves(name, value):
    """Yields the texts of nested topics, each led by the name of its topic."""
    for key, inner in value.items():
        key = key.strip()
        if isinstance(inner, dict):
            yield from _leaves(key, inner)
        elif isinstance(inner, str):
            said = key if key not in ("text", "note") else name
            led = not said or key == "note" or inner.startswith(said + ":")
            yield inner if led else "%s: %s" % (said, inner)


def foldoc_file(path):
    with _open_dictd(path) as stream:
        yield from foldoc_lines(stream)


def _open_dictd(path):
    return gzip.open(path, "rt", encoding="utf-8", errors="replace")

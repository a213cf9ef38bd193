"""Small text helpers that the extractors share."""

import re

_SPACES = re.compile(r"\s+")
_PROSE_SHARE = 0.75  # letters and spaces among the characters of prose


def squeeze(text):
    """Makes every run of white space one space and trims the ends."""
    return _SPACES.sub(" ", text).strip()


def heading_level(line):
    """Returns the number of '=' of a heading line, 0 for a paragraph."""
    match = re.fullmatch(r"(={1,6}) .+ \1", line)
    return len(match[1]) if match else 0


def drop_empty_headings(lines):
    """Removes the headings that have no paragraph in their section."""
    kept = []
    pending = []  # headings that still wait for a paragraph
    for line in lines:
        level = heading_level(line)
        if level == 0:
            kept += pending + [line]
            pending = []
            continue
        while pending and heading_level(pending[-1]) >= level:
            pending.pop()
        pending.append(line)
    return kept


def is_prose(paragraph):
    """False for bibliographic notes, figures, tables, programs and drawings."""
    if re.match(r"\[[\"{A-Z].*\]\.?$", paragraph):
        return False
    if re.search(r"\S {4,}\S.* {4,}\S", paragraph.strip()):
        return False
    text = squeeze(paragraph)
    letters = sum(c.isascii() and (c.isalpha() or c == " ") for c in text)
    return letters >= _PROSE_SHARE * len(text)

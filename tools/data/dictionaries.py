"""Takes definitions out of dictionaries in dictd's format (.dict.dz)."""

import gzip
import re

from text import is_prose, squeeze

MIN_LINE = 100
# Cross references that lost their indentation do not start an entry.
_BROKEN_LINK = ("{", "[{", "(http")
# All before the definition: 'Arrack, n. ' or 'Arraign, v. t. '.
_PART_OF_SPEECH = re.compile(
    r"^.*?(?<= )(?:n|a|v|adv|prep|p|pl|imp|conj|interj)\."
    r"(?: (?:t|i|a|p|pr|pl|n|&)\.?)*[,;]? "
)


def open_dictd(path):
    """Opens a .dict.dz file, which any gzip reader can read, as text."""
    return gzip.open(path, "rt", encoding="utf-8", errors="replace")


def dictd_entries(stream):
    """Yields (headwords, paragraphs); an entry starts in the first column."""
    headwords, paragraphs, current = [], [], []
    for raw in stream:
        line = raw.rstrip("\n")
        starts_entry = line and not line[0].isspace()
        starts_entry = starts_entry and not line.startswith(_BROKEN_LINK)
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
    if headwords and not headwords[0].startswith("00-database"):
        yield headwords, paragraphs


def computing_lines(stream):
    """Yields the paragraphs of FOLDOC or the Jargon File.

    The headword leads the first paragraph and every numbered sense:
    'Ada (language): A Pascal-descended language ...'.
    """
    for headwords, paragraphs in dictd_entries(stream):
        if headwords[0].startswith("00-database"):
            continue
        headword = headwords[0]
        is_first = True
        for raw in paragraphs:
            if not is_prose(raw):
                continue
            text = _without_links(raw)
            sense = re.match(r"(?:\d+\. +)?<([\w ,/&.-]+)> *", text)
            if sense:
                text = "%s (%s): %s" % (headword, sense[1], text[sense.end() :])
            elif is_first:
                text = "%s: %s" % (headword, text)
            is_first = False
            if len(text) >= MIN_LINE:
                yield text


def _without_links(raw):
    """Removes addresses, dates and the marks of cross references."""
    text = re.sub(r"\{?\((?:https?|ftp|mailto|news)[^()\s]*\)\}?", "", raw)
    text = re.sub(r"\s*\([\w./-]+\.html?\)\}", "}", text)
    text = re.sub(r"(?:,|E-mail:)?\s*<[^<>\s]+@[^<>\s]+>", "", text)
    text = re.sub(r"<(?:https?|ftp)://[^<>]*>", "", text)
    text = re.sub(r"\s*\(\d{4}-\d\d-\d\d\)\s*$", "", text)
    text = re.sub(r"\{\s*\}|[{}]", "", text)
    # '<topic> (ABBR) <topic> text': the second mark is a slip.
    text = re.sub(r"^((?:\d+\. )?<[^<>]*> \([^()]*\)) <[^<>]*>", r"\1", text)
    text = re.sub(r"__(\S.*?\S)__", r"\1", text)
    return squeeze(re.sub(r"\s+([.,;])(?=\s|$)", r"\1", text))


def webster_lines(stream):
    """Yields one line for each entry of GCIDE: 'Arrack: A name in ...'."""
    for headwords, paragraphs in dictd_entries(stream):
        if headwords[0].startswith("00-database"):
            continue
        headword = re.match(r"[^\\\[,]*", headwords[0])[0].strip()
        text = " ".join([headwords[-1]] + paragraphs)
        text = re.sub(r"\\[^\\]*\\", "", text)  # pronunciation
        text = re.sub(r"(\[1913 Webster\]) \w+$", r"\1", text)
        for _ in range(3):  # etymologies and marks, which nest
            text = re.sub(r"\[[^\[\]]*\]", "", text)
        text = squeeze(re.sub(r"[{}]", "", text))
        text = _PART_OF_SPEECH.sub("", text, count=1)
        text = squeeze(re.sub(r"\s+([.,;:])(?=\s|$)", r"\1", text)).lstrip(",;: ")
        if len(text) >= MIN_LINE:
            yield "%s: %s" % (headword, text)


def wordnet_lines(stream):
    """Yields one line for each entry of WordNet: 'bid: n 1: an instruction ...'."""
    headword, text = "", []
    for raw in [*stream, "end of the last entry"]:
        if raw[:1].isspace():
            text.append(raw.strip())
            continue
        line = squeeze(re.sub(r"[{}]", "", " ".join(text)))
        line = re.sub(r"(?<=[a-z]-) (?=[a-z])", "", line)  # words cut at a line's end
        if len(line) >= MIN_LINE and not headword.startswith("00-database"):
            yield "%s: %s" % (headword, line)
        headword, text = raw.strip(), []

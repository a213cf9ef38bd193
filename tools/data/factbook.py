"""Turns the JSON files of the CIA World Factbook into one line for each topic."""

import html
import re

from text import is_prose, squeeze

MIN_LINE = 100


def country_lines(sections):
    """Returns (name of the country, lines) of one parsed file."""
    name = ""
    lines = []
    for topics in sections.values():
        if not isinstance(topics, dict):
            continue
        for topic, value in topics.items():
            if topic.startswith("Diplomatic representation"):
                continue  # addresses and telephone numbers
            if topic == "Country name":
                name = _country_name(value)
            parts = [plain_text(part) for part in _leaves("", value)]
            text = "; ".join(part for part in parts if part)
            # Half of the book is figures; topics of words are kept.
            if len(text) >= MIN_LINE and is_prose(text):
                lines.append("%s: %s" % (topic, text))
    return name, lines


def plain_text(markup):
    """Returns an HTML fragment as one line of text."""
    text = re.sub(r"</?(?:br|p)\b[^>]*>", " ", markup)
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    text = re.sub(r"(?:; )?for more details, go to:?", "", text)
    text = re.sub(r"https?://\S+|\S+@\S+", "", text)
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

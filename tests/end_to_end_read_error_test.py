#!/usr/bin/env python3
"""A disk that cannot read the newest checkpoint any more: a loop device whose
file was cut short below a file system. An older checkpoint is whole. Every
program says what it does; none ends by SIGBUS."""

import os
import pathlib
import shutil
import subprocess
import unittest

from ds_support import FP32, DsTest, tag, tags_of
from end_to_end_support import checkpoint, steps_of

BLOCK = 4096  # so that all is one group, with its tables at the beginning
TINY = ("--h_dim=16", "--ff_dim=16")  # 10 MB a checkpoint
SENTENCE = "The river <mask>."


def command(*words):
    return subprocess.run(
        [str(word) for word in words], check=True, text=True,
        capture_output=True).stdout


class ReadErrorTest(DsTest):
    def mount(self):
        try:
            command("mount", "-o", "loop", self.image, self.disk)
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"no loop device can be mounted here: {error}")
        self.addCleanup(
            subprocess.run, ["umount", self.disk], capture_output=True)

    def blocks(self, path):
        """The blocks of a file of the image, and those that hold their list."""
        return [int(word) for word in command(
            "debugfs", "-R", f"blocks {path}", self.image).split()]

    def on_bad_disk(self, experiment, newest):
        """The experiment on a disk that cannot read the files `newest`. They are
        written last, so that they lie behind all others."""
        self.image, self.disk = self.folder / "image", self.folder / "disk"
        self.disk.mkdir()
        stage = self.folder / "stage"
        shutil.copytree(
            experiment, stage / "experiment", ignore=lambda folder, entries: [
                entry for entry in entries
                if pathlib.Path(folder) / entry in newest])
        try:
            command("mkfs.ext2", "-q", "-b", BLOCK, "-d", stage, self.image,
                    "60M")
            others = [path for path in stage.rglob("*")
                      if path.is_file() and path.stat().st_size > 0]
            names = [path.relative_to(experiment) for path in newest]
            for name in names:
                command("debugfs", "-w", "-R",
                        f"write {experiment / name} /experiment/{name}",
                        self.image)
        except FileNotFoundError as error:
            self.skipTest(f"needs e2fsprogs: {error}")
        last = max(max(self.blocks(f"/{path.relative_to(stage)}"))
                   for path in others)
        for name in names:
            self.assertGreater(max(self.blocks(f"/experiment/{name}")), last)
        self.mount()  # it looks for the last block
        os.truncate(self.image, (last + 1) * BLOCK)
        copy = self.disk / "experiment"
        for name in names:
            with self.assertRaises(OSError):
                (copy / name).read_bytes()
        return copy

    def test_train_bert_and_fill_mask(self):
        whole = self.train(*TINY, "--num_iterations=4", "--checkpoint_every=2")
        copy = self.on_bad_disk(whole, [checkpoint(whole, 4)])
        older = checkpoint(copy, 2)
        run = self.assert_fails(
            65, ["cannot read the file", older, "--newest_whole"],
            "fill_mask", copy, SENTENCE)
        guesses = self.run_program(
            "fill_mask", copy, SENTENCE, "--newest_whole").out
        self.assertEqual(
            guesses, self.run_program("fill_mask", older, SENTENCE).out)
        run = self.resume(copy, "--num_iterations=3")
        self.assertIn("cannot read the file", run.err)
        self.assertIn(f"taken in its place: {older}", run.err)
        self.assertEqual(steps_of(copy), [2, 3])

    def test_train_bert_ds_and_zero_to_fp32(self):
        whole = self.train_ranks(
            1, *FP32, *TINY, "--num_iterations=4", "--checkpoint_every=2")
        copy = self.on_bad_disk(
            whole, [path for path in tag(whole, 4).iterdir()
                    if path.suffix == ".pt"])
        for program, *rest in (("zero_to_fp32", copy, self.folder / "out"),
                               ("fill_mask", copy, SENTENCE)):
            run = self.assert_fails(
                65, ["cannot read the file", "global_step2", "--newest_whole"],
                program, *rest)
            run = self.run_program(program, *rest, "--newest_whole")
            self.assertIn("global_step2", run.err + run.out)
        run = self.resume_ranks(1, copy, "--num_iterations=3")
        self.assertIn("cannot read the file", run.err)
        self.assertIn(f"taken in its place: {tag(copy, 2)}", run.err)
        self.assertEqual(tags_of(copy), [2, 3])


if __name__ == "__main__":
    unittest.main()

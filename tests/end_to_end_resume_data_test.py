#!/usr/bin/env python3
"""What a resume compares: the position in the data, the data themselves, the
tokenizer, and hparams.json."""

import json
import shutil
import unittest
import zipfile

from ds_support import DsTest, losses, tag
from end_to_end_support import BIN, TOKENIZER, checkpoint, small_text

FP32 = ("--dtype=fp32",)
SIX = ("--num_iterations=6", "--checkpoint_every=3")


class Position(DsTest):
    """A run that reads each line once learns the same, however its steps share
    the lines: with a learning rate of 0 the loss of a step is that of its
    lines alone, if nothing is dropped."""

    FLAGS = (*FP32, "--learning_rate=0", "--dropout=0", "--checkpoint_every=2")

    def single_lines(self, count):
        """The loss of each sample of the stream."""
        folder = self.train_ranks(
            1, *self.FLAGS, "--batch_size=1", f"--num_iterations={count}")
        return losses(folder)

    def means(self, lines, *groups):
        means, first = [], 0
        for size in groups:
            means.append(sum(lines[first:first + size]) / size)
            first += size
        return means

    @staticmethod
    def make_older(path):
        """The position as if it had never been stored."""
        with zipfile.ZipFile(path) as file:
            entries = [(name, file.read(name)) for name in file.namelist()]
        with zipfile.ZipFile(path, "w") as file:
            for name, content in entries:
                if name.endswith("data.pkl"):
                    key = b"X\x07\0\0\0samples"
                    assert content.count(key) == 1
                    content = content.replace(key, key[:-1] + b"_")
                file.writestr(name, content)

    def test_older_checkpoints(self):
        """Step x the batch of the stored settings and ranks."""
        folder = self.train("--num_iterations=3", "--batch_size=4")
        self.make_older(checkpoint(folder, 3))
        run = self.resume(folder, "--batch_size=2", "--num_iterations=4")
        self.assertIn("the data go on after 12 samples", run.err)
        folder = self.train_ranks(2, "--num_iterations=3", "--batch_size=4")
        self.make_older(tag(folder, 3) / "mp_rank_00_model_states.pt")
        (tag(folder, 3) / "ds_manifest.json").unlink()
        run = self.resume_ranks(1, folder, "--num_iterations=4")
        self.assertIn("the data go on after 24 samples", run.err)

    def test_other_ranks_and_accumulation(self):
        lines = self.single_lines(16)
        folder = self.train_ranks(
            2, *self.FLAGS, "--batch_size=1", "--gradient_accumulation_steps=2",
            "--num_iterations=2")
        run = self.resume_ranks(1, folder, "--num_iterations=4")
        self.assertIn("the data go on after 8 samples", run.err)
        run = self.resume_ranks(
            1, folder, "--num_iterations=5", "--gradient_accumulation_steps=4")
        self.assertIn("the data go on after 12 samples", run.err)
        self.assert_close(
            losses(folder), self.means(lines, 4, 4, 2, 2, 4))

    def test_train_bert(self):
        flags = (*self.FLAGS, "--batch_size=1", "--num_iterations=4")
        lines = losses(self.train(*flags, "--num_iterations=12"))
        folder = self.train(*flags)
        self.resume(folder, "--gradient_accumulation_steps=2",
                    "--num_iterations=6")
        run = self.resume(folder, "--num_iterations=8")
        self.assertIn("the data go on after 8 samples", run.err)
        self.assert_close(losses(folder), self.means(lines, 1, 1, 1, 1, 2, 2, 2, 2))

    def test_the_same_batch_is_not_mentioned(self):
        folder = self.train(*SIX)
        self.assertNotIn(
            "the data go on",
            self.resume(folder, "--num_iterations=7").err)


class DataSet(DsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.own = cls.shared / "own.txt"
        cls.own.write_text(small_text(50))
        cls.trained = cls.train_shared(1, *FP32, "--dataset", cls.own, *SIX)

    def setUp(self):
        super().setUp()
        self.own.write_text(small_text(50))

    def hparams(self, folder):
        return json.loads((folder / "hparams.json").read_text())

    def start(self):
        return self.rewound(self.trained, 6)

    def resume(self, folder, *flags, **options):
        return self.run_program("train_bert_ds", "--load_checkpoint_dir",
                                folder, *flags, **options)

    def refused(self, folder, words, *flags, code=78):
        before = (folder / "hparams.json").read_bytes()
        run = self.assert_fails(
            code, words, "train_bert_ds", "--load_checkpoint_dir", folder,
            "--num_iterations=7", *flags)
        self.assertEqual((folder / "hparams.json").read_bytes(), before)
        return run

    def test_a_resume_from_another_folder_finds_it(self):
        (self.repository / "beside.txt").write_text(small_text(50))
        folder = self.train_ranks(1, "--dataset=beside.txt", *SIX)
        stored = self.hparams(folder)
        self.assertEqual(
            stored["dataset"], str(self.repository / "beside.txt"))
        self.assertEqual(stored["dataset_bytes"], len(small_text(50)))
        self.assertRegex(stored["dataset_hash"], "^[0-9a-f]{32}$")
        self.assertRegex(stored["tokenizer_hash"], "^[0-9a-f]{32}$")
        # Python's names stay names.
        self.assertEqual(stored["tokenizer"], "roberta-base")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "beside.txt").write_text("another text\n" * 9)
        self.repository, old = elsewhere, self.repository
        try:
            run = self.resume(folder, "--num_iterations=7")
        finally:
            self.repository = old
        self.assertIn(str(old / "beside.txt"), run.err)
        self.assertNotIn("changed: dataset", run.err)

    def test_one_that_has_grown(self):
        folder = self.start()
        with self.own.open("a") as file:
            file.write("one more line\n")
        run = self.refused(folder, ["the data set is not the one", "it has grown",
                              "bytes then", self.own, "--allow_change dataset"])
        self.assertNotIn("text for evaluation", run.err)
        run = self.resume(
            folder, "--num_iterations=7", "--allow_change=dataset")
        self.assertIn("changed: the data set: it has grown", run.err)
        # It is the run's data set now.
        self.assertNotIn(
            "changed: the data",
            self.resume(folder, "--num_iterations=8").err)

    def test_another_text_of_the_same_size(self):
        folder = self.start()
        self.own.write_text(small_text(50).replace("river", "liver"))
        self.refused(folder, ["as many bytes, but another text"])

    def test_one_that_is_gone(self):
        folder = self.start()
        self.own.unlink()
        run = self.refused(folder, [self.own, "hint: ", "--dataset"], code=66)
        self.assertNotIn("make data", run.err)

    def test_one_that_was_moved(self):
        folder = self.start()
        moved = self.folder / "new" / "own.txt"
        moved.parent.mkdir()
        self.own.rename(moved)
        run = self.resume(folder, "--num_iterations=7", "--dataset", moved)
        self.assertIn(f"changed: dataset {self.own} -> {moved}", run.err)

    def test_an_experiment_without_the_hash_goes_on_with_a_line(self):
        folder = self.start()
        stored = self.hparams(folder)
        for key in list(stored):
            if "as_written" in key or key.endswith(("_hash", "_bytes")):
                del stored[key]
        (folder / "hparams.json").write_text(json.dumps(stored, indent=2))
        self.own.write_text(small_text(60))
        run = self.resume(folder, "--num_iterations=7")
        self.assertIn("does not say what the data set was", run.err)
        self.assertIn("dataset_hash", self.hparams(folder))

    def test_tokenizer(self):
        mine = self.folder / "mine"
        shutil.copytree(TOKENIZER, mine)
        folder = self.train_ranks(1, "--tokenizer", mine, *SIX)
        moved = self.folder / "moved"
        mine.rename(moved)
        self.refused(folder, [mine, "--tokenizer"], code=66)
        self.resume(folder, "--tokenizer", moved, "--num_iterations=7")
        merges = (moved / "merges.txt").read_text().splitlines()
        merges[1], merges[2] = merges[2], merges[1]
        (moved / "merges.txt").write_text("\n".join(merges) + "\n")
        (moved / "tokenizer.json").unlink(missing_ok=True)
        self.refused(folder, ["the tokenizer is not the one", moved],
                     "--num_iterations=8")
        self.assert_fails(
            78, ["the tokenizer is not the one", "put the old one back there"],
            "fill_mask", folder, "a <mask>")

    def test_ranks_with_other_data(self):
        for name, text in (("one", small_text(50)), ("two", small_text(51)),
                           ("three", small_text(50).replace("city", "kity"))):
            (self.folder / name).mkdir()
            (self.folder / name / "own.txt").write_text(text)
        script = self.folder / "rank.sh"
        script.write_text(
            '#!/bin/sh\n[ "$RANK" = 1 ] && cd "$OTHER" || cd "$FIRST"\n'
            'exec "$@"\n')
        script.chmod(0o755)
        for other in ("two", "three"):
            self.environment |= {"FIRST": str(self.folder / "one"),
                                 "OTHER": str(self.folder / other)}
            run = self.run_program(
                "deepspeed", "--num_gpus", 2, "--no_local_rank", script,
                BIN / "train_bert_ds",
                *self.new_flags(*FP32, "--dataset=own.txt"), code=78)
            self.assertIn("ranks differ in the data", run.err)
            self.assertIn("rank(s) that differ from rank 0: 1", run.err)
            self.assertFalse((self.folder / "runs").exists())


class Hparams(DsTest):
    def test_an_edit_by_hand_is_said(self):
        folder = self.train(*SIX)
        path = folder / "hparams.json"
        path.write_text(path.read_text().replace(
            '"learning_rate": 0.0001,\n', '"learning_rate": 0.0003,\n', 1))
        run = self.resume(folder, "--num_iterations=7")
        self.assertIn("changed by hand: learning_rate 0.0001 -> 0.0003", run.err)
        run = self.resume(folder, "--num_iterations=8")
        self.assertNotIn("changed", run.err.replace(
            "changed: num_iterations 7 -> 8", ""))

    def test_an_edited_ds_config(self):
        path = self.folder / "ds_config.json"
        config = {"train_micro_batch_size_per_gpu": 4,
                  "optimizer": {"type": "Adam", "params": {"lr": 1e-4}},
                  "scheduler": {"type": "WarmupLR", "params": {
                      "warmup_max_lr": 1e-4, "warmup_num_steps": 4}},
                  "zero_optimization": {"stage": 1}}
        path.write_text(json.dumps(config))
        folder = self.train_ranks(
            1, "--deepspeed_config", path, "--num_iterations=2")
        config["train_micro_batch_size_per_gpu"] = 2
        config["optimizer"]["params"]["lr"] = 0.01
        config["scheduler"]["params"]["warmup_num_steps"] = 8
        config["zero_optimization"]["stage"] = 2
        config["bf16"] = {"enabled": True}
        path.write_text(json.dumps(config))
        run = self.resume_ranks(1, folder, "--num_iterations=4")
        for line in ("batch_size 4 -> 2", "learning_rate 0.0001 -> 0.01",
                     "zero_stage 1 -> 2", "dtype fp32 -> bf16",
                     "scheduler.params.warmup_num_steps 4 -> 8"):
            self.assertEqual(run.err.count(f"changed: {line}\n"), 1, run.err)
        self.assertEqual(run.err.count("changed: dtype"), 1, run.err)
        self.assertIn("the data go on after 8 samples", run.err)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Bad flags, bad files, full disks: the exit code, the message, and that
nothing is lost. docs/errors.md lists the codes."""

import json
import os
import pickle
import resource
import shutil
import unittest
import zipfile

from end_to_end_support import (
    SMALL, TOKENIZER, EndToEndTest, checkpoint, contents, metrics,
    newest_checkpoint_step, steps_of)


class DamageTest(EndToEndTest):
    def refused(self, code, words, *flags):
        """A new run that ends with `code` before it makes a folder."""
        run = self.assert_fails(
            code, words, "train_bert", *self.new_flags(*flags))
        self.assertFalse((self.folder / "runs").exists())
        return run


class Flags(DamageTest):
    def test_unknown_flag(self):
        self.refused(
            64, ["batchsize", "did you mean", "--batch_size"], "--batchsize=3")
        self.assert_fails(
            64, ["argument --topk\n", "did you mean --top_k"], "fill_mask", "a",
            "b", "--topk=3")

    def test_value_of_another_type(self):
        self.refused(64, ["batch_size", "many"], "--batch_size=many")
        self.refused(64, ["h_dim", "64.5"], "--h_dim=64.5")

    def test_folders(self):
        words = ["checkpoint_dir", "load_checkpoint_dir"]
        self.assert_fails(64, words, "train_bert", *SMALL)
        self.refused(64, words, "--load_checkpoint_dir", self.folder)

    def test_out_of_range(self):
        self.refused(
            78, ["h_dim 66", "num_heads 4", "--h_dim"], "--h_dim=66")
        self.refused(78, ["max_seq_length", "513", "512"],
                     "--max_seq_length=513")
        self.refused(78, ["mask_prob", "1.5"], "--mask_prob=1.5")
        self.refused(78, ["dtype", "fp16"], "--dtype=fp16")
        self.refused(78, ["batch_size", "0"], "--batch_size=0")

    def test_not_a_number(self):
        self.refused(78, ["learning_rate", "NaN"], "--learning_rate=nan")


class Text(DamageTest):
    def test_missing(self):
        self.refused(
            66, ["no_such_text", self.folder / "here", "data"],
            "--dataset=no_such_text", f"--data_dir={self.folder / 'here'}")

    def test_empty(self):
        empty = self.folder / "empty.txt"
        empty.touch()
        self.refused(65, ["empty.txt"], f"--dataset={empty}")
        empty.write_text("\n \n\n")
        self.refused(65, ["empty.txt"], f"--dataset={empty}")

    def test_no_file(self):
        folder = self.folder / "folder.txt"
        folder.mkdir()
        self.refused(66, ["folder.txt"], f"--dataset={folder}")
        pipe = self.folder / "pipe.txt"
        os.mkfifo(pipe)
        self.refused(66, ["pipe.txt"], f"--dataset={pipe}")

    def test_unreadable(self):
        if os.geteuid() == 0:
            self.skipTest("root reads everything")
        closed = self.folder / "closed.txt"
        closed.write_text("text\n")
        closed.chmod(0)
        self.refused(66, ["closed.txt"], f"--dataset={closed}")

    def test_bytes_that_are_no_text(self):
        strange = self.folder / "strange.txt"
        strange.write_bytes(bytes(range(256)) * 20)
        self.refused(65, ["strange.txt", "iconv"], f"--dataset={strange}")
        strange.write_bytes(
            bytes(range(256)) + b"a\0b\nsome more of the usual\n" * 50)
        folder = self.train("--num_iterations=3", f"--dataset={strange}")
        self.assertEqual(list(metrics(folder)), [1, 2, 3])

    def test_a_long_line_takes_little_memory(self):
        usual = self.peak_memory(self.text)
        long = self.folder / "long.txt"
        for words in (b"some words and ", b"a"):
            with open(long, "wb") as file:
                file.write(b"first line\n")
                for _ in range(100):
                    file.write(words * (1_000_000 // len(words)))
                file.write(b"\nlast line\n")
            self.assertLess(self.peak_memory(long) - usual, 256 << 20)

    def peak_memory(self, text):
        folder = self.train("--num_iterations=2", f"--dataset={text}")
        line = (folder / "metrics.jsonl").read_text().splitlines()[-1]
        return json.loads(line)["peak_memory_bytes"]

    def test_broken_jsonl(self):
        lines = self.folder / "lines.jsonl"
        lines.write_text('{"text": "one"}\n{"text": "two"\n')
        self.refused(65, ["lines.jsonl", "2"], f"--dataset={lines}")


class Tokenizer(DamageTest):
    def setUp(self):
        super().setUp()
        self.tokenizer = self.folder / "tokenizer"
        self.tokenizer.mkdir()
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(TOKENIZER / name, self.tokenizer)

    def test_missing(self):
        self.refused(66, ["no_such_tokenizer"], "--tokenizer=no_such_tokenizer")
        (self.tokenizer / "merges.txt").unlink()
        self.refused(66, ["merges.txt"], "--tokenizer", self.tokenizer)

    def test_broken_vocabulary(self):
        vocab = self.tokenizer / "vocab.json"
        vocab.write_bytes(vocab.read_bytes()[:-10])
        self.refused(65, [vocab], "--tokenizer", self.tokenizer)
        vocab.write_text('["a", "b"]')
        self.refused(65, [vocab], "--tokenizer", self.tokenizer)

    def test_broken_merges(self):
        merges = self.tokenizer / "merges.txt"
        with open(merges, "a") as file:
            file.write("one two three\n")
        self.refused(65, [merges, "50002"], "--tokenizer", self.tokenizer)

    def test_more_ids_than_the_model_has(self):
        vocab = self.tokenizer / "vocab.json"
        ids = json.loads(vocab.read_text())
        for number in range(50265, 50300):
            ids[f"new{number}"] = number
        vocab.write_text(json.dumps(ids))
        self.refused(78, ["50300", "50265"], "--tokenizer", self.tokenizer)


class Checkpoints(DamageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        trainer = cls()
        trainer.folder = cls.shared
        cls.whole = trainer.train("--num_iterations=6", "--checkpoint_every=2")
        trainer.doCleanups()

    def setUp(self):
        super().setUp()
        # The run of 6 steps, as it was after step 4.
        self.run_folder = self.rewound(self.whole, 4)
        self.newest = checkpoint(self.run_folder, 4)

    def assert_falls_back(self):
        run = self.resume(self.run_folder)
        self.assertRegex(run.err, f"warning: .*{self.newest}: ")
        self.assertIn("resuming after step 2", run.err)
        self.assert_same_run(self.whole, self.run_folder, 6)
        self.assert_same_checkpoints(checkpoint(self.whole, 4), self.newest)
        return run

    def test_truncated(self):
        data = self.newest.read_bytes()
        for size in (len(data) - 1, len(data) // 2, 0):
            for later in (4, 6):
                checkpoint(self.run_folder, later).unlink(missing_ok=True)
            self.newest.write_bytes(data[:size])
            self.assert_falls_back()

    def test_one_flipped_bit(self):
        data = bytearray(self.newest.read_bytes())
        for place in (len(data) // 2, 100):
            checkpoint(self.run_folder, 6).unlink(missing_ok=True)
            data[place] ^= 4
            self.newest.write_bytes(data)
            self.assert_falls_back()
            data[place] ^= 4

    def test_no_code_is_run(self):
        marker = self.folder / "marker"

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {marker}",)

        evil = pickle.dumps({"model": Evil()}, protocol=2)
        with zipfile.ZipFile(self.newest, "w") as file:
            file.writestr("checkpoint.iter_4/data.pkl", evil)
            file.writestr("checkpoint.iter_4/byteorder", "little")
            file.writestr("checkpoint.iter_4/version", "3\n")
        self.assertIn("posix.system", self.assert_falls_back().err)
        self.assertFalse(marker.exists())
        pickle.loads(evil)  # the same bytes in Python
        self.assertTrue(marker.exists())

    def test_all_damaged(self):
        for step in steps_of(self.run_folder):
            path = checkpoint(self.run_folder, step)
            path.write_bytes(path.read_bytes()[:-100])
        before = contents(self.run_folder)
        for flags in ((), ("--num_iterations=20",)):
            self.assert_fails(
                65, ["none of the 2 checkpoints is whole", self.newest],
                "train_bert", "--load_checkpoint_dir", self.run_folder, *flags)
            self.assertEqual(contents(self.run_folder), before)

    def test_of_another_model(self):
        self.assert_fails(
            78, ["h_dim", "64", "128"], "train_bert", "--load_checkpoint_dir",
            self.run_folder, "--h_dim=128")
        hparams = self.run_folder / "hparams.json"
        text = hparams.read_text()
        for old, new, word in (
                ('"h_dim": 64', '"h_dim": 128', "word_embeddings"),
                ('"num_layers": 2', '"num_layers": 3', "layer.2.attention")):
            hparams.write_text(text.replace(old, new))
            before = contents(self.run_folder)
            self.assert_fails(
                65, [word, self.newest], "train_bert", "--load_checkpoint_dir",
                self.run_folder)
            self.assertEqual(contents(self.run_folder), before)

    def test_broken_hparams(self):
        hparams = self.run_folder / "hparams.json"
        text = hparams.read_text()
        for broken in (text[:-3], "[]", "", text.replace("64", '"64"', 1),
                       text.replace("h_dim", "h_dimm")):
            hparams.write_text(broken)
            self.assert_fails(
                65, [hparams], "train_bert", "--load_checkpoint_dir",
                self.run_folder)
            self.assertEqual(hparams.read_text(), broken)

    def test_no_experiment(self):
        for folder in (self.folder / "nowhere", self.folder):
            self.assert_fails(
                66, [folder], "train_bert", "--load_checkpoint_dir", folder)


class Disk(DamageTest):
    # Room for the small files, not for a checkpoint.
    LIMIT = 20 << 20

    def limited(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.LIMIT, self.LIMIT))

    def test_the_last_checkpoint_finds_no_room(self):
        folder = self.train("--num_iterations=2")
        before = contents(folder)[checkpoint(folder, 2)]
        # The signal of the limit is ignored, so the write fails with EFBIG.
        run = self.resume(
            folder, "--num_iterations=3", code=74, preexec_fn=self.limited)
        self.assertIn(str(checkpoint(folder, 3)), run.err)
        self.assertRegex(run.err, r"cannot write after \d+ bytes")
        self.assertEqual(steps_of(folder), [2])
        self.assertEqual(contents(folder)[checkpoint(folder, 2)], before)
        self.assertEqual(list(folder.glob("*.tmp-*")), [])
        self.resume(folder)
        self.assertEqual(steps_of(folder), [2, 3])

    def test_training_goes_on_and_then_gives_up(self):
        run = self.run_program(
            "train_bert", *self.new_flags(
                "--num_iterations=10", "--checkpoint_every=2"),
            code=74, preexec_fn=self.limited)
        self.assertIn("warning: no checkpoint of step 2", run.err)
        self.assertIn("warning: no checkpoint of step 4", run.err)
        self.assertRegex(run.err, r"(?m)^step +6/10")
        self.assertNotRegex(run.err, r"(?m)^step +7/10")

    def test_no_folder_can_be_made(self):
        file = self.folder / "file"
        file.touch()
        self.assert_fails(
            73, [file], "train_bert",
            *self.new_flags("--checkpoint_dir", file / "below"))
        self.assertEqual(list(self.folder.iterdir()), [file])

    def test_two_runs_in_a_folder(self):
        process, folder = self.launch_train(
            "--num_iterations=100000", "--checkpoint_every=1")
        self.wait(process, lambda: newest_checkpoint_step(folder) > 0)
        self.assert_fails(
            73, ["another run", f"pid {process.pid}", "host", "started"],
            "train_bert", "--load_checkpoint_dir", folder)
        self.stop(process)
        self.resume(folder, "--num_iterations=1")


if __name__ == "__main__":
    unittest.main()

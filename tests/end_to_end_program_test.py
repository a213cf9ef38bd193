#!/usr/bin/env python3
"""What train_bert, fill_mask and tokenize make of good input."""

import json
import pathlib
import re
import resource
import struct
import subprocess
import time
import unittest

from end_to_end_support import BIN, EndToEndTest, contents, metrics, steps_of

# As HelloDeepSpeed stores them.
FIRST_HPARAMS = [
    "mask_prob", "random_replace_prob", "unmask_replace_prob",
    "max_seq_length", "tokenizer", "num_layers", "num_heads", "ff_dim",
    "h_dim", "dropout", "batch_size", "num_iterations", "checkpoint_every"]


class HelloDeepSpeed(EndToEndTest):
    """Its test of checkpoints."""

    def test_checkpoints_and_resume(self):
        folder = self.train("--num_iterations=5", "--checkpoint_every=2")
        self.assertEqual(steps_of(folder), [2, 4, 5])
        self.assertRegex(
            folder.name, r"^bert_pretrain(\.\d+){6}\.[a-z0-9]{8}$")
        hparams = json.loads((folder / "hparams.json").read_text())
        self.assertEqual(list(hparams)[:13], FIRST_HPARAMS)
        self.assertEqual(hparams["h_dim"], 64)
        self.assertRegex(
            (folder / "githash.log").read_text(), r"^[0-9a-f]{40}\s*$")
        self.assertIn("+two", (folder / "gitdiff.log").read_text())
        self.assertEqual(len(list(folder.glob("tb_dir/events.*"))), 1)

        run = self.resume(folder, "--num_iterations=10")
        self.assertEqual(steps_of(folder), [2, 4, 5, 6, 8, 10])
        self.assertEqual(list(metrics(folder)), list(range(1, 11)))
        self.assertIn("resuming after step 5 of 10", run.err)
        self.assertIn("changed: num_iterations 5 -> 10", run.err)
        self.assertEqual(run.out, f"experiment: {folder}\n")
        hparams = json.loads((folder / "hparams.json").read_text())
        self.assertEqual(hparams["num_iterations"], 10)
        self.assertEqual(len(list(folder.parent.iterdir())), 1)

    def test_a_run_that_is_done(self):
        folder = self.train("--num_iterations=2")
        run = self.resume(folder)
        self.assertIn("after step 2 of 2: no step is left", run.err)
        # As a shell finds the programs.
        self.assertIn(f"Next:\n  {BIN}/train_bert --load_checkp", run.err)
        self.assertIn(f"  {BIN}/fill_mask {folder} ", run.err)
        self.assertEqual(steps_of(folder), [2])
        self.assertEqual(list(metrics(folder)), [1, 2])

    def test_without_a_repository(self):
        self.repository = self.folder  # hides the one of the class
        run = self.run_program(
            "train_bert", *self.new_flags("--num_iterations=1"))
        self.assertIn("not in a git repository", run.err)
        self.assertEqual(list(self.folder.glob("runs/*/git*.log")), [])


class Settings(EndToEndTest):
    def test_spellings(self):
        folder = self.train(
            "--num-iterations=3", "--checkpoint-every", "2", "--no_dry_run")
        self.assertEqual(steps_of(folder), [2, 3])

    def test_help_shows_groups(self):
        run = self.run_program("train_bert", "--help")
        for group in ("Folders", "Data", "Model", "Optimizer", "Run",
                      "Machine"):
            self.assertIn(f"\n{group}\n", run.out)
        self.assertIn("--checkpoint_every 1000", run.out)

    def test_version(self):
        run = self.run_program("train_bert", "--version")
        self.assertRegex(run.out, r"^train_bert \d+\.\d+.*libtorch \d")

    def test_print_config_is_hparams(self):
        flags = ("--num_iterations=1", "--learning_rate=3e-4")
        printed = self.run_program(
            "train_bert", *self.new_flags(*flags, "--print_config")).out
        self.assertFalse((self.folder / "runs").exists())
        stored = json.loads((self.train(*flags) / "hparams.json").read_text())
        self.assertEqual(
            json.loads(printed),
            {key: value for key, value in stored.items()
             if "as_written" not in key and not key.endswith(("_hash", "_bytes"))})
        copy = stored.pop("as_written")
        self.assertRegex(stored.pop("as_written_crc32c"), "^[0-9a-f]{8}$")
        self.assertEqual(copy, stored)
        self.assertEqual(json.loads(printed)["learning_rate"], 3e-4)

    def test_an_answer_that_cannot_be_written(self):
        """As --print_config > FILE on a full disk."""
        for flag in ("--print_config", "--help", "--version"):
            with open("/dev/full", "w") as full:
                run = subprocess.run([BIN / "train_bert", flag], stdout=full,
                                     stderr=subprocess.PIPE, text=True)
            self.assertEqual(run.returncode, 74, flag)
            self.assertIn("cannot write: No space left", run.stderr)

    def test_print_config_of_an_experiment(self):
        folder = self.train("--num_iterations=1")
        run = self.resume(folder, "--print_config", "--num_iterations=7")
        self.assertEqual(run.out[-1], "\n")
        config = json.loads(run.out)
        self.assertEqual((config["h_dim"], config["num_iterations"]), (64, 7))
        stored = json.loads((folder / "hparams.json").read_text())
        self.assertEqual(stored["num_iterations"], 1)

    def test_dry_run_writes_nothing(self):
        run = self.run_program("train_bert", *self.new_flags(
            "--dry_run", f"--export={self.folder / 'exported'}"))
        self.assertRegex(run.err, r"(?m)^step +1/.* loss 10\.")
        self.assertNotRegex(run.err, r"(?m)^step +2/")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_dry_run_of_an_experiment(self):
        folder = self.train("--num_iterations=2")
        before = contents(folder)
        run = self.resume(folder, "--dry_run", "--num_iterations=9")
        self.assertRegex(run.err, r"(?m)^step +3/9 ")
        self.assertEqual(contents(folder), before)


class Run(EndToEndTest):
    def test_keep_last(self):
        folder = self.train(
            "--num_iterations=7", "--checkpoint_every=2", "--keep_last=2")
        self.assertEqual(steps_of(folder), [6, 7])
        self.resume(folder, "--num_iterations=8")
        self.assertEqual(steps_of(folder), [7, 8])

    def test_evaluations(self):
        held_out = self.folder / "held_out.txt"
        held_out.write_text("The river runs through Paris and London.\n" * 20)
        folder = self.train(
            "--num_iterations=5", "--eval_every=2", "--validation_file",
            held_out)
        records = [json.loads(line) for line in
                   (folder / "metrics.jsonl").read_text().splitlines()]
        losses = {record["step"]: record["eval_loss"]
                  for record in records if "eval_loss" in record}
        self.assertEqual(list(losses), [2, 4, 5])
        for loss in losses.values():
            self.assertTrue(10 < loss < 11.5, losses)
        # Evaluations leave no trace in the training.
        self.assertEqual(
            metrics(folder), metrics(self.train("--num_iterations=5")))

    def test_it_learns(self):
        folder = self.train("--num_iterations=60", "--learning_rate=3e-3")
        losses = [record["loss"] for record in metrics(folder).values()]
        self.assertGreater(losses[0], 10)
        self.assertLess(sum(losses[-10:]) / 10, 5)
        self.assertIn("<svg", (folder / "report.html").read_text())

    def test_memory_does_not_grow(self):
        # Packed batches have another shape in every step; oneDNN, which does
        # the products in bf16, would keep memory for each of them.
        folder = self.train("--dtype=bf16", "--h_dim=256", "--num_iterations=24")
        peaks = [json.loads(line)["peak_memory_bytes"] / 2**20 for line in
                 (folder / "metrics.jsonl").read_text().splitlines()
                 if "peak_memory_bytes" in line]
        self.assertEqual(len(peaks), 24)
        self.assertLess(peaks[23], peaks[7] + 100)

    def test_first_step_comes_soon(self):
        self.run_program("train_bert", *self.new_flags("--dry_run"))
        # The default model, with the cache that the run before has made.
        start = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run_program(
            "train_bert", "--dry_run", "--checkpoint_dir",
            self.folder / "runs", "--dataset", self.text)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = (after.ru_utime + after.ru_stime
                   - before.ru_utime - before.ru_stime)
        print(f"default model, one step: {time.monotonic() - start:.2f} s, "
              f"{seconds:.2f} s of processor time", flush=True)
        self.assertLess(seconds, 10)  # of the processor: machines are busy


class FillMask(EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.exported = cls.shared / "exported"
        trainer = cls()
        trainer.folder = cls.shared
        cls.experiment = trainer.train(
            "--num_iterations=30", "--learning_rate=3e-3", "--export",
            cls.exported)
        trainer.doCleanups()

    def test_an_export_that_cannot_be_written_stops_the_start(self):
        runs, taken = self.folder / "runs", self.folder / "taken"
        taken.write_text("")
        self.assert_fails(
            73, ["exported", taken], "train_bert",
            *self.new_flags("--num_iterations=1", "--export", taken / "model"))
        self.assertFalse(runs.exists() and list(runs.iterdir()))

    def test_exported_files(self):
        self.assertEqual(
            sorted(path.name for path in self.exported.iterdir()),
            ["config.json", "merges.txt", "model.safetensors",
             "special_tokens_map.json", "tokenizer_config.json", "vocab.json"])
        config = json.loads((self.exported / "config.json").read_text())
        self.assertEqual(config["model_type"], "roberta")
        self.assertEqual(config["hidden_size"], 64)
        data = (self.exported / "model.safetensors").read_bytes()
        header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
        self.assertEqual(
            header["roberta.embeddings.word_embeddings.weight"]["shape"],
            [50265, 64])

    def test_both_folders_give_equal_answers(self):
        text = "The river <mask> through Paris."
        answers = [self.run_program("fill_mask", folder, text).out
                   for folder in (self.exported, self.experiment)]
        self.assertEqual(answers[0], answers[1])
        lines = answers[0].splitlines()
        self.assertEqual(len(lines), 5)
        shares = [float(line.split("%")[0]) for line in lines]
        self.assertEqual(shares, sorted(shares, reverse=True))
        for line in lines:
            self.assertRegex(line, r"The river.* through Paris\.$")

    def test_two_masks(self):
        run = self.run_program(
            "fill_mask", self.exported, "The <mask> runs <mask> Paris.",
            "--top_k=3")
        self.assertEqual(len(run.out.splitlines()), 6)

    def test_a_tokenizer_smaller_than_the_model(self):
        tokenizer, model = self.folder / "bytes", self.folder / "model"
        tokenizer.mkdir()
        # One id for each byte: the vocabulary of roberta-base without merges.
        full = json.loads((self.exported / "vocab.json").read_text())
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(
            token for token in full if len(token) == 1), "<mask>"]
        (tokenizer / "vocab.json").write_text(json.dumps(
            {token: i for i, token in enumerate(tokens)}))
        (tokenizer / "merges.txt").write_text("#version: 0.2\n")
        experiment = self.train(
            "--num_iterations=1", "--tokenizer", tokenizer, "--export", model)
        for folder in (experiment, model):
            run = self.run_program("fill_mask", folder, "a<mask>", "--top_k=300")
            # A token may be a line end.
            self.assertEqual(
                len(re.findall(r"(?m)^ *\d+\.\d\d %", run.out)), len(tokens))
            self.assertIn(f"50265 outputs, the tokenizer {len(tokens)}", run.err)

    def test_without_a_mask(self):
        self.assert_fails(
            64, ["no <mask>", "The river"], "fill_mask", self.exported,
            "The river.")

    def test_too_long_a_text(self):
        run = self.assert_fails(
            65, ["tokens", "512"], "fill_mask", self.exported,
            "river " * 600 + "<mask>")
        count = int(re.search(r"has (\d+) tokens", run.err).group(1))
        self.assertTrue(600 < count < 610, run.err)

    def test_no_model_there(self):
        self.assert_fails(
            66, ["no model", self.folder], "fill_mask", self.folder,
            "A <mask>.")

    def test_damaged_weights(self):
        for name in ("config.json", "model.safetensors", "vocab.json"):
            with self.subTest(name):
                copy = pathlib.Path(self.folder / name)
                copy.mkdir()
                for file in self.exported.iterdir():
                    data = file.read_bytes()
                    (copy / file.name).write_bytes(
                        data[:len(data) // 2] if file.name == name else data)
                self.assert_fails(
                    65, [copy / name], "fill_mask", copy, "A <mask>.")


class Tokenize(EndToEndTest):
    def tokenize(self, text, *flags):
        source = self.folder / "input"
        source.write_text(text)
        with open(source) as file:
            return self.run_program("tokenize", *flags, stdin=file).out

    def test_there_and_back(self):
        text = "Hello world\n\nÄ 😀 <mask> end\n"
        ids = self.tokenize(text)
        self.assertEqual(ids.splitlines()[0], "0 31414 232 2")
        self.assertEqual(ids.splitlines()[1], "0 2")
        self.assertIn(" 50264 ", ids.splitlines()[2])
        back = self.tokenize(ids, "--decode", "--skip_special_tokens")
        self.assertEqual(back.splitlines()[:2], ["Hello world", ""])
        self.assertTrue(back.splitlines()[2].startswith("Ä 😀"))


class Report(EndToEndTest):
    def kernels(self, isa):
        """The line on the kernels; the exit code is that of all checks."""
        self.environment = dict(self.environment, DS_CPU_ISA=isa)
        output = self.launch("ds_report").communicate(timeout=60)[0]
        return next(
            line for line in output.splitlines() if "CPU kernels" in line)

    def test_the_instruction_set_is_shown(self):
        self.assertRegex(
            self.kernels("scalar"), r"^OK .* scalar \(DS_CPU_ISA takes ")
        self.assertRegex(self.kernels("mmx"), r'^FAIL .* instruction set "mmx"')


if __name__ == "__main__":
    unittest.main()

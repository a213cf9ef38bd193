#!/usr/bin/env python3
"""train_bert_ds under the launcher, as HelloDeepSpeed's page shows it: what it
leaves behind, what it prints, and that its three faults are not ours."""

import json
import pathlib
import re
import subprocess
import time
import unittest

from ds_support import (
    FP32, SMALL, DsTest, latest, losses, metrics, shards, tag, tags_of)
from end_to_end_support import ROOT

MODEL_STATES = "mp_rank_00_model_states.pt"


def parameters(h=64, ff=64, layers=2, vocabulary=50265, positions=514):
    """Of the RoBERTa model with its tied decoder and its unused pooler."""
    embeddings = (vocabulary + positions + 1) * h + 2 * h
    layer = 4 * (h * h + h) + 2 * h * ff + ff + h + 4 * h
    head = h * h + h + 2 * h + vocabulary
    return embeddings + layers * layer + (h * h + h) + head


class Tree(DsTest):
    def test_page(self):
        """deepspeed --include localhost:2,3,4,5 train_bert_ds, scaled down."""
        run = self.run_program(
            "deepspeed", "--include", "localhost:2,3,4,5", "train_bert_ds",
            *self.new_flags("--num_iterations=4", "--checkpoint_every=2"))
        folder = self.folder_of(run)
        # Fault 1: each rank made a folder of its own.
        self.assertEqual([folder], list((self.folder / "runs").iterdir()))
        self.assertRegex(
            folder.name, r"^bert_pretrain(\.\d+){6}\.[a-z0-9]{8}$")
        names = {path.name for path in folder.iterdir()}
        self.assertEqual(names, {
            ".lock", "gitdiff.log", "githash.log", "global_step2", "global_step4",
            "hparams.json", "latest", "loss_curve.svg", "metrics.jsonl",
            "report.html", "tb_dir", "zero_to_fp32.py"})
        self.assertEqual(latest(folder), "global_step4")
        self.assertIn("+two", (folder / "gitdiff.log").read_text())
        [events] = (folder / "tb_dir").iterdir()
        self.assertTrue(events.name.startswith("events.out.tfevents."))
        self.check_files(folder)
        self.check_zero_to_fp32(folder)
        # Python's script for people without our programs.
        compile((folder / "zero_to_fp32.py").read_text(), "zero_to_fp32.py", "exec")

    def check_files(self, folder):
        ranks = 4
        for step in (2, 4):
            self.assertEqual(
                {path.name for path in tag(folder, step).iterdir()},
                {MODEL_STATES, "ds_manifest.json"} | {
                    f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
                    for rank in range(ranks)})
            # bf16 weights; fp32 weights, first and second moments of a quarter.
            count = parameters()
            size = (tag(folder, step) / MODEL_STATES).stat().st_size
            self.assertAlmostEqual(size / (2 * count), 1, delta=0.02)
            for shard in shards(folder, step):
                self.assertAlmostEqual(
                    shard.stat().st_size / (12 * count / ranks), 1, delta=0.02)

    def check_zero_to_fp32(self, folder):
        self.run_program("zero_to_fp32", folder, self.folder / "fp32")
        [weights] = (self.folder / "fp32").glob("*.bin")
        self.assertAlmostEqual(
            weights.stat().st_size / (4 * parameters()), 1, delta=0.02)

    def test_n_iterations_are_n_steps(self):
        """Fault 3: N - 1 steps, and step N was not saved."""
        folder = self.train_ranks(2, "--num_iterations=3", "--checkpoint_every=3")
        self.assertEqual(list(metrics(folder)), [1, 2, 3])
        self.assertEqual(tags_of(folder), [3])
        # Also where the last step is not one of the interval.
        folder = self.train_ranks(2, "--num_iterations=3", "--checkpoint_every=2")
        self.assertEqual(tags_of(folder), [2, 3])
        self.assertEqual(latest(folder), "global_step3")

    def test_keep_last(self):
        folder = self.train_ranks(
            2, "--num_iterations=4", "--checkpoint_every=1", "--keep_last=2")
        self.assertEqual(tags_of(folder), [3, 4])
        self.assertEqual(latest(folder), "global_step4")


class Ranks(DsTest):
    """Fault 2: all ranks trained on the same samples with the same masks."""

    def test_ranks_are_micro_batches_of_one_rank(self):
        """With dropout, so sample, mask and dropout of each are the same."""
        flags = (*FP32, "--num_iterations=5", "--batch_size=4")
        several = losses(self.train_ranks(4, *flags))
        one = losses(self.train_ranks(
            1, *flags, "--gradient_accumulation_steps=4"))
        self.assert_close(several, one)
        # Were the ranks' samples the same, this would be the same run.
        alone = losses(self.train_ranks(1, *flags))
        self.assertGreater(
            max(abs(a - b) / b for a, b in zip(several, alone)), 1e-4)

    def test_without_the_launcher_it_is_one_rank(self):
        flags = (*FP32, "--num_iterations=3")
        folder = self.folder_of(self.run_program(
            "train_bert_ds", *self.new_flags(*flags)))
        self.assertEqual(
            metrics(folder), metrics(self.train_ranks(1, *flags)))

    def test_only_rank_0_speaks(self):
        run = self.run_ranks(3, *self.new_flags(
            "--num_iterations=3", "--checkpoint_every=1"))
        folder = self.folder_of(run)
        lines = run.err.splitlines()
        self.assertEqual(len(lines), len(set(lines)), run.err)
        for step in (1, 2, 3):
            self.assertEqual(
                sum(line.startswith(f"step {step}/3 ") for line in lines), 1)
        self.assertEqual(
            len((folder / "metrics.jsonl").read_text().splitlines()), 3)
        self.assertEqual(len(list((folder / "tb_dir").iterdir())), 1)

    def test_evaluation_is_that_of_one_rank(self):
        validation = self.folder / "validation.txt"
        validation.write_text("".join(self.text.read_text().splitlines(True)[:37]))
        results = []
        for ranks, accumulation in ((3, 1), (1, 3)):
            folder = self.train_ranks(
                ranks, *FP32, "--num_iterations=2", "--eval_every=1",
                f"--gradient_accumulation_steps={accumulation}",
                "--validation_file", validation)
            results.append([
                json.loads(line)["eval_loss"]
                for line in (folder / "metrics.jsonl").read_text().splitlines()
                if "eval_loss" in line])
        self.assertEqual(len(results[0]), 2)
        self.assert_close(*results)

    def test_a_global_batch_larger_than_the_text(self):
        text = self.folder / "few.txt"
        text.write_text("one line of text\nand a second line\nand a third\n")
        folder = self.train_ranks(
            2, "--num_iterations=2", f"--dataset={text}", "--batch_size=4")
        self.assertEqual(list(metrics(folder)), [1, 2])


class Uses(DsTest):
    def test_export_and_fill_mask(self):
        model = self.folder / "model"
        run = self.run_ranks(2, *self.new_flags(
            "--num_iterations=2", "--export", model))
        self.assertLessEqual(
            {"config.json", "model.safetensors", "merges.txt", "vocab.json"},
            {path.name for path in model.iterdir()})
        answers = [
            self.run_program("fill_mask", source, "The river <mask>.").out
            for source in (self.folder_of(run), model)]
        self.assertGreater(len(answers[0].splitlines()), 4)
        self.assertEqual(answers[0], answers[1])

    def test_dry_run_writes_nothing(self):
        run = self.run_ranks(2, *self.new_flags("--dry_run"))
        self.assertIn("nothing was written", run.err)
        self.assertRegex(run.err, r"(?m)^step +1/")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_print_config(self):
        run = self.run_program(
            "train_bert_ds", *self.new_flags("--print_config"))
        decoder = json.JSONDecoder()
        settings, end = decoder.raw_decode(run.out)
        self.assertEqual(settings["zero_stage"], 1)
        self.assertIn("zero_optimization", run.out[end:])
        self.assertFalse((self.folder / "runs").exists())

    def test_fp16(self):
        folder = self.train_ranks(
            2, "--dtype=fp16", "--num_iterations=3", "--zero_stage=2")
        self.assertEqual(list(metrics(folder)), [1, 2, 3])
        for loss in losses(folder):
            self.assertTrue(9 < loss < 12, loss)
        self.assertEqual(
            [path.name for path in shards(folder, 3)],
            [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)])

    def test_starts_soon(self):
        """Seconds from exec to the first step; the bound is wide, as other tests
        may run beside this one."""
        self.train_ranks(2, "--num_iterations=1")  # fills the caches
        start = time.monotonic()
        process, folder = self.launch_new(
            2, "--num_iterations=100000", "--checkpoint_every=100000")
        self.wait_for_step(process, folder, 1)
        self.assertLess(time.monotonic() - start, 20)


class Screens(DsTest):
    def test_help(self):
        for program in ("train_bert_ds", "deepspeed"):
            run = self.run_program(program, "--help")
            self.assertEqual(run.err, "")
            self.assertIn("usage: " + program, run.out)
            if program == "train_bert_ds":
                self.assertLessEqual(max(map(len, run.out.splitlines())), 80)

    def test_every_flag_is_on_the_page(self):
        page = (ROOT / "docs" / "training.md").read_text()
        run = self.run_program("train_bert_ds", "--help")
        flags = set(re.findall(r"(?m)^  --(\w+)", run.out)) - {"version"}
        self.assertGreater(len(flags), 30)
        self.assertEqual([name for name in flags if f"`{name}`" not in page], [])


class OtherLaunchers(DsTest):
    """The program finds its rank in the environment that others set, too."""

    def test_mpirun(self):
        try:
            subprocess.run(["mpirun", "--version"], check=True,
                           capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("no mpirun: apt-get install openmpi-bin")
        run = subprocess.run(
            ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2",
             *self.program_and_flags()], cwd=self.repository,
            env=self.environment, capture_output=True, text=True, timeout=120,
            check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.check(pathlib.Path(run.stdout.strip().removeprefix("experiment: ")))

    def test_plain_environment(self):
        """As a batch script starts ranks by itself."""
        processes = [
            self.launch_rank(rank, MASTER_PORT="0" if rank is None else self.port())
            for rank in (0, 1)]
        outputs = [self.finish(process).out for process in processes]
        self.assertEqual(outputs[1], "")
        self.check(pathlib.Path(outputs[0].strip().removeprefix("experiment: ")))

    def port(self):
        if not hasattr(self, "free_port"):
            import socket
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.free_port = probe.getsockname()[1]
        return str(self.free_port)

    def launch_rank(self, rank, **variables):
        saved = self.environment
        self.environment = dict(
            saved, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", **variables)
        try:
            return self.launch(*self.program_and_flags())
        finally:
            self.environment = saved

    def program_and_flags(self):
        from end_to_end_support import BIN
        return [BIN / "train_bert_ds", *map(str, self.new_flags(
            *FP32, "--num_iterations=2"))]

    def check(self, folder):
        self.assertEqual([folder], list((self.folder / "runs").iterdir()))
        self.assertEqual(len(shards(folder, 2)), 2)
        self.assertEqual(
            losses(folder),
            losses(self.train_ranks(
                2, *FP32, "--num_iterations=2",
                "--checkpoint_dir", self.folder / "ours")))


if __name__ == "__main__":
    unittest.main()

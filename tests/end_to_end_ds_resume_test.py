#!/usr/bin/env python3
"""Runs of several ranks that were stopped, killed, or go on with other ranks or
another ZeRO stage end as one that never was."""

import os
import signal
import time
import unittest

from ds_support import (
    FP32, DsTest, latest, losses, metrics, tag, tags_of)
from end_to_end_support import BIN

LONG = ("--num_iterations=100000", "--checkpoint_every=100000")


class ResumeIsExact(DsTest):
    """Dropout is on in all of these."""

    def check(self, ranks, *flags, first=2, total=5):
        whole = self.train_ranks(
            ranks, "--num_iterations", total, "--checkpoint_every", first, *flags)
        resumed = self.rewound(whole, first)
        self.resume_ranks(ranks, resumed)
        self.assert_same_run(whole, resumed, total)

    def test_bf16_stage_1(self):
        self.check(2)

    def test_fp16_stage_2(self):
        self.check(2, "--dtype=fp16", "--zero_stage=2",
                   "--gradient_accumulation_steps=2")

    def test_fp32_stage_0(self):
        self.check(2, *FP32, "--zero_stage=0", "--weight_decay=0.01",
                   "--lr_scheduler_type=cosine", "--warmup_steps=3")


class OtherRanksAndStages(DsTest):
    """12 samples a step in micro batches of 2, however many ranks share them."""

    STEPS = 8

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.train_shared(
            2, *FP32, *cls.share(2), f"--num_iterations={cls.STEPS}",
            "--checkpoint_every=2")

    @staticmethod
    def share(ranks):
        return ("--batch_size=2", f"--gradient_accumulation_steps={6 // ranks}")

    def test_ranks(self):
        folder = self.rewound(self.whole, 2)
        for ranks, until in ((1, 4), (3, 6), (2, self.STEPS)):
            self.resume_ranks(
                ranks, folder, *self.share(ranks), f"--num_iterations={until}")
            self.assertEqual(latest(folder), f"global_step{until}")
            shards = list(tag(folder, until).glob("*_optim_states.pt"))
            self.assertEqual(len(shards), ranks)
        self.assert_close(losses(folder), losses(self.whole))

    def test_stages(self):
        folder = self.rewound(self.whole, 2)
        for stage, until in ((2, 4), (0, 6), (1, self.STEPS)):
            run = self.resume_ranks(
                2, folder, f"--zero_stage={stage}", f"--num_iterations={until}")
            self.assertIn("changed: zero_stage", run.err)
        # Nothing but the layout differs: the numbers are the same ones.
        self.assertEqual(metrics(folder), metrics(self.whole))

    def test_other_dtype(self):
        folder = self.rewound(self.whole, 2)
        run = self.resume_ranks(2, folder, "--dtype=bf16", "--num_iterations=4")
        self.assertIn("changed: dtype fp32 -> bf16", run.err)
        self.assert_close(losses(folder), losses(self.whole)[:4], 1e-2)

    def test_other_model_is_refused(self):
        folder = self.rewound(self.whole, 2)
        for flag, words in (("--h_dim=128", ["h_dim", "64", "128"]),
                            ("--num_layers=3", ["num_layers", "2", "3"])):
            self.assert_error(
                78, words, 2, "--load_checkpoint_dir", folder, flag)


class Killed(DsTest):
    FLAGS = ("--num_iterations=12", "--checkpoint_every=3")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.train_shared(2, *cls.FLAGS)

    def kill_rank(self, rank):
        [pid] = self.processes(RANK=rank, WORLD_SIZE=2)
        os.kill(pid, signal.SIGKILL)
        return pid

    def test_a_rank(self):
        process, folder = self.launch_new(2, *self.FLAGS)
        self.wait_for_tag(process, folder, 3)
        pid = self.kill_rank(1)
        start = time.monotonic()
        run = self.finish(process, code=128 + signal.SIGKILL)
        self.assertLess(time.monotonic() - start, 8)  # the grace period is 5
        self.assert_all_gone()
        self.assertRegex(
            run.err, rf"error: rank 1 \(host \S+, pid {pid}\) was killed by signal 9")
        self.assert_whole(folder)
        self.resume_ranks(2, folder)
        self.assert_same_run(self.whole, folder, 12)

    def test_the_launcher(self):
        process, folder = self.launch_new(2, *self.FLAGS)
        self.wait_for_tag(process, folder, 3)
        process.kill()
        process.communicate()
        self.assert_all_gone(3)
        self.assert_whole(folder)
        self.resume_ranks(2, folder)
        self.assert_same_run(self.whole, folder, 12)

    def test_before_the_first_checkpoint(self):
        process, folder = self.launch_new(2, *LONG)
        self.wait_for_step(process, folder, 1)
        self.kill_rank(0)
        self.finish(process, code=128 + signal.SIGKILL)
        self.assert_error(
            66, ["checkpoint", folder], 2, "--load_checkpoint_dir", folder)

    def test_restart(self):
        """--max-restarts goes on from the last checkpoint by itself."""
        process, folder = self.launch_new(
            2, *self.FLAGS, launcher=("--max-restarts", 1))
        self.wait_for_tag(process, folder, 6)
        self.kill_rank(1)
        run = self.finish(process)
        self.assertEqual(self.folder_of(run), folder)
        self.assertEqual(list(folder.parent.iterdir()), [folder])
        self.assertRegex(run.err, "resuming after step (6|9)")
        self.assert_same_run(self.whole, folder, 12)

    def test_restart_before_the_first_checkpoint(self):
        process, folder = self.launch_new(
            2, *self.FLAGS, "--checkpoint_every=100",
            launcher=("--max-restarts", 1))
        self.wait_for_step(process, folder, 1)
        self.kill_rank(1)
        self.assertEqual(self.folder_of(self.finish(process)), folder)
        self.assertEqual(list(folder.parent.iterdir()), [folder])
        self.assertEqual(metrics(folder), metrics(self.whole))

    def test_restart_of_a_resumed_run(self):
        folder = self.rewound(self.whole, 3)
        process = self.launch_ranks(
            2, "--load_checkpoint_dir", folder, launcher=("--max-restarts", 1))
        self.wait_for_tag(process, folder, 6)
        self.kill_rank(0)
        self.finish(process)
        self.assert_same_run(self.whole, folder, 12)


class Stopped(DsTest):
    def check(self, number, word):
        process, folder = self.launch_new(2, *LONG)
        self.wait_for_step(process, folder, 2)
        run = self.stop(process, number)
        self.assert_all_gone()
        self.assertIn(f"Stopped by {word} after step", run.err)
        self.assertNotIn("error", run.err)
        self.assertEqual(run.err.count("stopping: this step"), 1, run.err)
        # As it was started, and to the end that it was to have.
        self.assertRegex(
            run.err,
            rf"Next:\n  {BIN}/deepspeed .*--num_gpus[= ]2 \S*train_bert_ds "
            rf"--load_checkpoint_dir {folder}\n")
        [step] = tags_of(folder)
        self.assertEqual(latest(folder), f"global_step{step}")
        self.assertEqual(max(metrics(folder)), step)
        self.resume_ranks(2, folder, "--num_iterations", step + 2)
        whole = self.train_ranks(2, "--num_iterations", step + 2)
        self.assert_same_run(whole, folder, step + 2)

    def test_by_sigterm(self):
        self.check(signal.SIGTERM, "SIGTERM")

    def test_by_ctrl_c(self):
        self.check(signal.SIGINT, "SIGINT")

    def test_by_a_signal_to_one_rank(self):
        process, folder = self.launch_new(2, *LONG)
        self.wait_for_step(process, folder, 1)
        [pid] = self.processes(RANK=1, WORLD_SIZE=2)
        os.kill(pid, signal.SIGUSR1)
        run = self.finish(process, code=75)
        self.assertIn("Stopped by SIGUSR1", run.err)
        self.assertEqual(len(tags_of(folder)), 1)

    def test_a_second_ctrl_c_ends_at_once(self):
        process, folder = self.launch_new(
            2, *LONG, "--gradient_accumulation_steps=5000")
        self.wait(process, lambda: list((folder / "tb_dir").iterdir()))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        self.finish(process, code=130)
        self.assertLess(time.monotonic() - start, 3)
        self.assert_all_gone()
        self.assertEqual(tags_of(folder), [])


if __name__ == "__main__":
    unittest.main()

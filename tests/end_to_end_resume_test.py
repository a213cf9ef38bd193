#!/usr/bin/env python3
"""A run that was stopped, killed or rewound ends as one that never was."""

import random
import signal
import time
import unittest

from end_to_end_support import (
    EndToEndTest, checkpoint, metrics, newest_checkpoint_step, steps_of)


class ResumeIsExact(EndToEndTest):
    """Dropout is on in all of these."""

    def check(self, *flags, first=4, total=9, resume_flags=()):
        """A run of `total` steps, and the same from its checkpoint of step
        `first` on."""
        whole = self.train(
            "--num_iterations", total, "--checkpoint_every", first, *flags)
        resumed = self.rewound(whole, first)
        self.resume(resumed, *resume_flags)
        self.assert_same_run(whole, resumed, total)
        return whole

    def test_plain(self):
        whole = self.check()
        # The comparison sees a difference where there is one.
        with self.assertRaises(AssertionError):
            self.assert_same_checkpoints(
                checkpoint(whole, 8), checkpoint(whole, 9))
        other = self.train("--num_iterations=9", "--seed=1")
        self.assertNotEqual(metrics(whole), metrics(other))

    def test_dropout_is_on(self):
        with_dropout = self.train("--num_iterations=1")
        without = self.train("--num_iterations=1", "--dropout=0")
        self.assertNotEqual(metrics(with_dropout), metrics(without))

    def test_across_the_end_of_an_epoch(self):
        # 200 lines are 8 steps of 25.
        self.check("--batch_size=25", first=7, total=10)
        # Epochs that end within a batch: 200 is not a multiple of 32.
        self.check("--batch_size=32", first=6, total=8)

    def test_all_settings_of_the_optimizer(self):
        self.check(
            "--gradient_accumulation_steps=2", "--lr_scheduler_type=cosine",
            "--warmup_steps=3", "--max_grad_norm=0.5", "--weight_decay=0.01",
            first=2)

    def test_bf16(self):
        self.check("--dtype=bf16")

    def test_reference_implementation(self):
        self.check("--implementation=reference", total=6)

    def test_log_lines_between_checkpoints(self):
        # The line of step 6 is the mean over 4 to 6; the checkpoint is of 5.
        whole = self.check("--log_every=3", first=5)
        self.assertEqual(list(metrics(whole)), [3, 6, 9])

    def test_another_number_of_threads(self):
        # Matrix products of libtorch may split a sum by threads: nearly exact.
        whole = self.train("--num_iterations=9", "--checkpoint_every=4")
        resumed = self.rewound(whole, 4)
        self.resume(resumed, "--num_threads=2")
        for step, record in metrics(whole).items():
            for key, value in record.items():
                self.assertAlmostEqual(
                    metrics(resumed)[step][key] / value, 1, places=6)

    def test_twice(self):
        whole = self.train("--num_iterations=9", "--checkpoint_every=1")
        resumed = self.rewound(whole, 3)
        self.stop_soon(resumed)
        self.resume(resumed)
        self.assert_same_run(whole, resumed, 9)

    def stop_soon(self, folder):
        process = self.launch("train_bert", "--load_checkpoint_dir", folder)
        self.wait(process, lambda: newest_checkpoint_step(folder) > 3)
        self.stop(process)
        self.assertLess(newest_checkpoint_step(folder), 9)


class Killed(EndToEndTest):
    STEPS = 20
    FLAGS = (f"--num_iterations={STEPS}", "--checkpoint_every=1")

    def kill(self, process):
        process.kill()
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def test_at_any_moment(self):
        whole = self.train(f"--num_iterations={self.STEPS}")
        process, folder = self.launch_train(*self.FLAGS)
        self.wait(process, lambda: steps_of(folder))
        source = random.Random(time.time_ns())
        while newest_checkpoint_step(folder) < self.STEPS - 6:
            reached = newest_checkpoint_step(folder)
            self.kill(process)
            self.assert_whole(folder)
            process = self.launch("train_bert", "--load_checkpoint_dir", folder)
            self.wait(
                process, lambda: newest_checkpoint_step(folder) > reached)
            time.sleep(source.uniform(0, 0.4))
        self.kill(process)
        self.resume(folder)
        self.assert_same_run(whole, folder, self.STEPS)

    def test_while_a_checkpoint_is_written(self):
        whole = self.train(f"--num_iterations={self.STEPS}")
        process, folder = self.launch_train(*self.FLAGS)
        for step in (1, 4, 7):
            self.wait(
                process, lambda: newest_checkpoint_step(folder) >= step
                and list(folder.glob("checkpoint*.tmp-*")))
            self.kill(process)
            left_over = list(folder.glob("checkpoint*.tmp-*"))
            self.assertLessEqual(len(left_over), 1)
            self.assert_whole(folder)
            process = self.launch("train_bert", "--load_checkpoint_dir", folder)
        self.finish(process)
        self.assert_same_run(whole, folder, self.STEPS)
        self.assertEqual(list(folder.glob("*.tmp-*")), [])

    def test_before_the_first_checkpoint(self):
        process, folder = self.launch_train(
            "--num_iterations=10000", "--checkpoint_every=10000")
        self.kill(process)
        run = self.resume(folder, code=66)
        self.assertIn("no checkpoint.iter_N.pt", run.err)


class Stopped(EndToEndTest):
    def check(self, number, word):
        flags = ("--num_iterations=60", "--checkpoint_every=1000")
        whole = self.train(*flags)
        process, folder = self.launch_train(*flags)
        self.wait(process, lambda: metrics(folder))
        run = self.stop(process, number)
        self.assertIn("stopping: this step is to be finished and saved", run.err)
        self.assertIn(f"Stopped by {word} after step", run.err)
        [step] = steps_of(folder)
        self.assertEqual(max(metrics(folder)), step)
        self.assertLess(step, 60)
        self.resume(folder)
        self.assert_same_run(whole, folder, 60)

    def test_by_sigterm(self):
        self.check(signal.SIGTERM, "SIGTERM")

    def test_by_sigint(self):
        self.check(signal.SIGINT, "SIGINT")

    def test_by_sigusr1(self):
        self.check(signal.SIGUSR1, "SIGUSR1")

    def test_a_second_sigint_ends_at_once(self):
        # Steps that take a while: the second signal comes within the first one.
        process, folder = self.launch_train(
            "--num_iterations=60", "--gradient_accumulation_steps=500")
        self.wait(process, (folder / "metrics.jsonl").exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        run = self.finish(process, code=130)
        self.assertIn("ended at once", run.err)
        self.assertEqual(steps_of(folder), [])

    def test_before_the_first_step(self):
        process, folder = self.launch_train("--num_iterations=60")
        self.stop(process)
        self.assertEqual(len(steps_of(folder)), 1)
        self.resume(folder, "--num_iterations=4")
        self.assertEqual(max(metrics(folder)), max(4, min(steps_of(folder))))


if __name__ == "__main__":
    unittest.main()

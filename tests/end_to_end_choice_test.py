#!/usr/bin/env python3
"""Which checkpoint, which folder: the one that was meant, or a line or an error
that says what was taken."""

import os
import re
import shutil
import signal
import subprocess
import time
import unittest
import zipfile

from ds_support import DsTest, latest, losses, metrics, shards, tag, tags_of
from end_to_end_support import (
    BIN, EndToEndTest, checkpoint, newest_checkpoint_step, steps_of)

SENTENCE = "The river <mask>."


def aside(folder):
    return sorted(path.name for path in (folder / "set_aside").iterdir())


class Files(EndToEndTest):
    """Checkpoints of train_bert, of steps 2, 4 and 6."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        trainer = cls()
        trainer.folder = cls.shared
        cls.whole = trainer.train("--num_iterations=6", "--checkpoint_every=2")
        trainer.doCleanups()

    def setUp(self):
        super().setUp()
        self.experiment = self.rewound(self.whole, 6)

    def guesses(self, path, *flags):
        return self.run_program("fill_mask", path, SENTENCE, *flags).out

    def test_a_file_is_what_it_says(self):
        older = self.guesses(self.rewound(self.whole, 4))
        file = checkpoint(self.experiment, 4)
        self.assertEqual(self.guesses(file), older)
        best = file.rename(self.experiment / "best.pt")
        self.assertEqual(self.guesses(best), older)
        self.assertNotEqual(self.guesses(self.experiment), older)

    def test_a_damaged_newest_one_is_not_replaced_unasked(self):
        os.truncate(checkpoint(self.experiment, 6), 1000)
        run = self.assert_fails(
            65, [checkpoint(self.experiment, 6), checkpoint(self.experiment, 4),
                 "--newest_whole"], "fill_mask", self.experiment, SENTENCE)
        self.assertNotIn("warning", run.err)
        self.assertEqual(
            self.guesses(self.experiment, "--newest_whole"),
            self.guesses(checkpoint(self.experiment, 4)))

    def test_an_export_of_what_is_there(self):
        """Nothing is left to train: it would be another one's export."""
        os.truncate(checkpoint(self.experiment, 6), 1000)
        flags = ("train_bert", "--load_checkpoint_dir", self.experiment,
                 "--num_iterations=4", "--export", self.folder / "model")
        run = self.run_program(*flags, code=65)
        self.assertIn(str(checkpoint(self.experiment, 4)), run.err)
        self.assertFalse((self.folder / "model").exists())
        self.run_program(*flags, "--newest_whole")
        self.assertTrue((self.folder / "model" / "config.json").exists())

    def test_back_to_an_older_one(self):
        self.resume(checkpoint(self.experiment, 2))
        self.assert_same_run(self.whole, self.experiment, 6)
        self.assertEqual(
            aside(self.experiment), ["checkpoint.iter_4.pt", "checkpoint.iter_6.pt"])

    def test_a_damaged_one_is_set_aside(self):
        os.truncate(checkpoint(self.experiment, 6), 1000)
        run = self.resume(self.experiment)
        self.assertIn(
            f"taken in its place: {checkpoint(self.experiment, 4)}", run.err)
        self.assertIn("set aside: ", run.err)
        self.assertEqual(aside(self.experiment), ["checkpoint.iter_6.pt"])
        self.assert_same_run(self.whole, self.experiment, 6)

    def test_the_other_program(self):
        self.assert_fails(
            78, ["train_bert", "train_bert_ds"], "train_bert_ds",
            "--load_checkpoint_dir", self.experiment)

    def test_what_killed_runs_left(self):
        number = "0123456789abcdef" * 2
        left = [self.experiment / f".tmp-global_step9-{number}",
                self.experiment / f".trash-t-{number}"]
        users = [self.experiment / name for name in (
            ".tmp-mine", "notes.tmp-1.txt", ".trash-x-12")]
        for path in left + users:
            path.mkdir()
        self.resume(self.experiment)
        self.assertEqual([path for path in left if path.exists()], [])
        self.assertEqual([path for path in users if not path.exists()], [])


class NotFinite(EndToEndTest):
    def test_good_checkpoints_stay(self):
        experiment = self.train(
            "--num_iterations=6", "--checkpoint_every=2", "--keep_last=2")
        run = self.resume(
            experiment, "--learning_rate=1e30", "--num_iterations=40", code=70)
        self.assertIn("warning: no checkpoint of step 8", run.err)
        self.assertEqual(steps_of(experiment), [4, 6])
        self.assertIn("is of step 6", run.err)
        # What the hint says works.
        flags = re.search(r"hint: .*?(--load_checkpoint_dir .*)", run.err)[1]
        run = self.run_program(
            "train_bert", *flags.split(), "--num_iterations=8")
        self.assertEqual(max(metrics(experiment)), 8)
        self.assertLess(metrics(experiment)[8]["loss"], 12)

    def test_the_last_step(self):
        """One update that ruins the weights, and no loss after it."""
        experiment = self.train("--num_iterations=2")
        experiment = experiment.rename(experiment.with_name("two words"))
        run = self.resume(
            experiment, "--learning_rate=1e30", "--num_iterations=3",
            "--export", self.folder / "model", code=70)
        self.assertIn(f"--load_checkpoint_dir '{experiment}' -", run.err)
        self.assertIn("no checkpoint of step 3", run.err)
        self.assertEqual(steps_of(experiment), [2])
        self.assertFalse((self.folder / "model").exists())


    def test_a_stop(self):
        experiment = self.train("--num_iterations=2")
        run = self.launch(
            "train_bert", "--load_checkpoint_dir", experiment,
            "--learning_rate=1e30", "--num_iterations=9",
            "--gradient_accumulation_steps=600")
        while not run.stderr.readline().startswith("  Stop "):
            self.assertIsNone(run.poll())
        time.sleep(0.3)  # step 3 has begun, and takes seconds
        run.send_signal(signal.SIGTERM)
        self.finish(run, code=75)
        self.assertIn("Stopped by SIGTERM after step 3, not saved", run.err)
        self.assertEqual(steps_of(experiment), [2])


class Names(EndToEndTest):
    FLAGS = ("--checkpoint_every=2", "--experiment", "mine")

    def run_named(self, steps, *flags, code=0, environment=None):
        self.environment = dict(self.environment, **(environment or {}))
        return self.run_program(
            "train_bert", *self.new_flags("--num_iterations", steps, *flags),
            code=code)

    def experiments(self):
        return sorted(path for path in (self.folder / "runs").iterdir()
                      if path.is_dir())

    def test_the_same_command_goes_on(self):
        whole = self.train("--num_iterations=6", "--checkpoint_every=2")
        for steps in (4, 6):
            run = self.run_named(steps, *self.FLAGS)
        experiment = self.folder / "runs" / "mine"
        self.assertIn(f"going on with {experiment}", run.err)
        self.assertEqual(run.err.count("changed: "), 1, run.err)  # the steps
        self.assert_same_run(whole, experiment, 6)
        run = self.run_named(6, *self.FLAGS)
        self.assertIn("resuming after step 6 of 6", run.err)
        self.assertNotIn("changed: ", run.err)

    def test_before_the_first_checkpoint(self):
        process = self.launch("train_bert", *self.new_flags(
            "--num_iterations=100000", "--checkpoint_every=100000",
            "--experiment=mine"))
        experiment = self.folder / "runs" / "mine"
        self.wait(process, lambda: experiment.exists() and metrics(experiment))
        process.kill()
        process.communicate()
        run = self.run_named(2, *self.FLAGS, "--h_dim=32")
        self.assertIn("it has no checkpoint yet", run.err)
        self.assertEqual(sorted(metrics(experiment)), [1, 2])

    def test_names_that_are_refused(self):
        for name in ("../mine", "a/b", ".hidden", "-x"):
            self.run_named(2, f"--experiment={name}", code=64)
        foreign = self.folder / "runs" / "mine"
        foreign.mkdir(parents=True)
        (foreign / "thesis.txt").write_text("mine")
        run = self.run_named(2, *self.FLAGS, code=73)
        self.assertIn("thesis.txt", run.err)
        self.assertEqual(os.listdir(foreign), ["thesis.txt"])

    def check_restart(self, first, again):
        self.run_named(2, environment=first)
        [experiment] = self.experiments()
        run = self.run_named(2, environment=again)
        self.assertIn(f"going on with {experiment}", run.err)
        self.assertIn("resuming after step 2 of 2", run.err)
        self.assertEqual(self.experiments(), [experiment])
        # Another run of the same job.
        run = self.run_named(2, "--seed=1", environment=again)
        self.assertIn("a new experiment begins", run.err)
        self.assertEqual(len(self.experiments()), 2)

    def test_restart_by_torchrun(self):
        self.check_restart(
            {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"},
            {"TORCHELASTIC_RESTART_COUNT": "1"})

    def test_torchrun_outside_of_our_container(self):
        """Its process has no number here."""
        container = ["unshare", "--user", "--map-root-user", "--pid", "--fork",
                     "--mount-proc"]
        if subprocess.run([*container, "true"], capture_output=True).returncode:
            self.skipTest("no namespaces on this machine")
        run = subprocess.run(
            [*container, BIN / "train_bert",
             *map(str, self.new_flags("--num_iterations=1"))],
            env=self.environment | {"TORCHELASTIC_RUN_ID": "none",
                                    "TORCHELASTIC_RESTART_COUNT": "1"},
            cwd=self.repository, capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("a new experiment begins", run.stderr)

    def test_requeued_by_slurm(self):
        self.check_restart(
            {"SLURM_JOB_ID": "17"}, {"SLURM_RESTART_COUNT": "2"})

    def test_a_new_job_is_a_new_experiment(self):
        self.run_named(2, environment={"SLURM_JOB_ID": "17"})
        self.run_named(2, environment={"SLURM_JOB_ID": "17"})
        self.assertEqual(len(self.experiments()), 2)

    def test_a_restart_does_not_go_back_again(self):
        """A run from an older checkpoint that is started again goes on with what
        it has saved itself."""
        whole = self.train("--num_iterations=6", "--checkpoint_every=2")
        experiment = self.rewound(whole, 6)
        older = checkpoint(experiment, 2)
        self.environment = dict(self.environment, SLURM_JOB_ID="5")
        self.resume(older, "--num_iterations=4")
        self.environment |= {"SLURM_RESTART_COUNT": "1"}
        run = self.resume(older, "--num_iterations=4")
        self.assertIn("resuming after step 4 of 4", run.err)
        self.assertEqual(steps_of(experiment), [2, 4])


class Restarted(DsTest):
    def test_train_bert(self):
        """Our launcher starts it again: it goes on."""
        parent = self.folder / "live"
        process = self.launch(
            "deepspeed", "--num_gpus", 1, "--max_restarts", 1, "train_bert",
            *self.new_flags("--checkpoint_dir", parent, "--num_iterations=30",
                            "--checkpoint_every=2"))
        self.wait(process, lambda: list(parent.glob("*/checkpoint.iter_*.pt")))
        [folder] = parent.iterdir()
        for pid in self.processes(RANK=0, WORLD_SIZE=1):
            os.kill(pid, signal.SIGKILL)
        run = self.finish(process)
        self.assertRegex(run.err, r"resuming after step \d+ of 30")
        self.assertEqual(list(parent.iterdir()), [folder])
        self.assertEqual(newest_checkpoint_step(folder), 30)


class Tags(DsTest):
    """Checkpoints of train_bert_ds, of steps 2, 4 and 6."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.train_shared(
            1, "--num_iterations=6", "--checkpoint_every=2")

    def setUp(self):
        super().setUp()
        self.experiment = self.rewound(self.whole, 6)

    def weights(self, path, *flags, code=0):
        out = self.folder / f"weights{len(list(self.folder.iterdir()))}"
        run = self.run_program("zero_to_fp32", path, out, *flags, code=code)
        run.weights = ((out / "pytorch_model.bin").read_bytes() if code == 0
                       else None)
        if code != 0:
            self.assertFalse(out.exists())
        return run

    @staticmethod
    def written_anew(path):
        """The same entries in another file, as torch.save() would make it."""
        with zipfile.ZipFile(path) as file:
            entries = [(name, file.read(name)) for name in file.namelist()]
        with zipfile.ZipFile(path, "w") as file:
            for name, data in entries:
                file.writestr(name, data)

    def test_files_beside_a_manifest_of_others(self):
        whole = self.weights(self.experiment).weights
        for path in tag(self.experiment, 6).glob("*.pt"):
            self.written_anew(path)
        run = self.weights(self.experiment)
        self.assertIn("the manifest was passed over", run.err)
        self.assertIn("step 6", run.out)
        self.assertEqual(run.weights, whole)
        run = self.resume_ranks(1, self.experiment, "--num_iterations=6")
        self.assertIn("resuming after step 6", run.err)

    def test_python_saves_into_our_tag(self):
        for path in tag(self.whole, 6).glob("*.pt"):
            shutil.copy(path, tag(self.experiment, 2))
        (self.experiment / "latest").write_text("global_step2")
        run = self.weights(self.experiment)
        self.assertIn("step 6", run.out)
        self.assertEqual(run.weights, self.weights(self.whole).weights)

    def test_files_of_two_checkpoints(self):
        for name in ("mp_rank_00_model_states.pt",
                     shards(self.experiment, 6)[0].name):
            folder = self.rewound(self.whole, 6)
            shutil.copy(tag(folder, 4) / name, tag(folder, 6))
            run = self.weights(folder, code=65)
            self.assertIn("are not of one checkpoint", run.err)
            self.assertIn(str(tag(folder, 4)), run.err)

    def test_damage_is_not_passed_over_unasked(self):
        older = self.weights(tag(self.experiment, 4)).weights
        os.truncate(shards(self.experiment, 6)[0], 100)
        run = self.weights(self.experiment, code=65)
        self.assertIn(str(tag(self.experiment, 4)), run.err)
        for path, flags in ((self.experiment, ("--newest_whole",)),
                            (self.experiment, ("--tag", "global_step4")),
                            (tag(self.experiment, 4), ())):
            self.assertEqual(self.weights(path, *flags).weights, older)

    def test_latest_is_missing(self):
        whole = self.run_program("fill_mask", self.experiment, SENTENCE).out
        (self.experiment / "latest").unlink()
        run = self.run_program("fill_mask", self.experiment, SENTENCE, code=65)
        self.assertIn(str(tag(self.experiment, 6)), run.err)
        for flags in ((self.experiment, SENTENCE, "--newest_whole"),
                      (tag(self.experiment, 6), SENTENCE)):
            self.assertEqual(self.run_program("fill_mask", *flags).out, whole)
        run = self.resume_ranks(1, self.experiment, "--num_iterations=6")
        self.assertIn("warning: passed over", run.err)
        self.assertEqual(latest(self.experiment), "global_step6")

    def test_a_renamed_tag(self):
        whole = self.weights(self.experiment).weights
        tag(self.experiment, 6).rename(self.experiment / "best")
        (self.experiment / "latest").write_text("best")
        run = self.weights(self.experiment)
        self.assertEqual(run.weights, whole)
        self.assertNotIn("warning", run.err)
        run = self.resume_ranks(1, self.experiment, "--num_iterations=6")
        self.assertIn("resuming after step 6", run.err)

    def test_back_to_an_older_one(self):
        run = self.resume_ranks(1, tag(self.experiment, 2))
        self.assertIn("resuming after step 2", run.err)
        self.assertEqual(aside(self.experiment), ["global_step4", "global_step6"])
        self.assertEqual(tags_of(self.experiment), [2, 4, 6])
        self.assert_same_run(self.whole, self.experiment, 6)

    def test_steps_that_are_not_finite(self):
        run = self.resume_ranks(
            2, self.experiment, "--learning_rate=1e30", "--num_iterations=40",
            "--keep_last=1", code=70)
        self.assertEqual(latest(self.experiment), "global_step6")
        self.assertEqual(tags_of(self.experiment), [2, 4, 6])
        self.assertIn("not finite", run.err)
        self.resume_ranks(
            2, self.experiment, "--learning_rate=1e-4", "--num_iterations=8")
        self.assertLess(losses(self.experiment)[-1], 12)

    def test_the_other_program(self):
        self.assert_fails(
            78, ["train_bert_ds"], "train_bert", "--load_checkpoint_dir",
            self.experiment)


if __name__ == "__main__":
    unittest.main()

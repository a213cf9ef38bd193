#!/usr/bin/env python3
"""The world around a run: closed and broken streams, limits of the system, and
pipes, links and other people's files where the run's own are meant. None of it
ends a run that could go on, and none is a fault of the program."""

import errno
import json
import os
import resource
import signal
import subprocess
import unittest

from end_to_end_support import (
    BIN, EndToEndTest, contents, metrics, steps_of)

ODD_FILE_SYSTEM = BIN / "odd_file_system.so"


class WorldTest(EndToEndTest):
    def shell(self, line, *arguments, code=0):
        """A line of bash; "$@" is train_bert with `arguments`."""
        run = subprocess.run(
            ["bash", "-c", line, "bash", BIN / "train_bert",
             *map(str, arguments)], text=True, capture_output=True,
            cwd=self.repository, env=self.environment, timeout=120)
        self.assertEqual(run.returncode, code, run.stderr)
        return run

    def only_run(self):
        (folder,) = (self.folder / "runs").iterdir()
        return folder

    def steps(self, count=4, every=2):
        return self.new_flags(
            f"--num_iterations={count}", f"--checkpoint_every={every}")


class Streams(WorldTest):
    def test_closed_streams_are_no_files(self):
        self.shell('exec "$@" <&- >&- 2>&-', *self.steps())
        folder = self.only_run()
        self.assertEqual(steps_of(folder), [2, 4])
        self.assertEqual(sorted(metrics(folder)), [1, 2, 3, 4])
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
        self.assertTrue((folder / ".lock").read_text().startswith("host "))

    def test_output_that_nobody_reads(self):
        self.shell('set -o pipefail; "$@" 2>&1 | head -1', *self.steps())
        self.assertEqual(steps_of(self.only_run()), [2, 4])

    def test_full_output(self):
        self.shell('"$@" >/dev/full 2>/dev/full', *self.steps())
        self.assertEqual(steps_of(self.only_run()), [2, 4])

    def test_launcher_without_streams(self):
        subprocess.run(
            ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", BIN / "deepspeed",
             "--num_gpus=1", BIN / "train_bert_ds", *map(str, self.steps())],
            cwd=self.repository, env=self.environment, timeout=120, check=True)
        self.assertTrue((self.only_run() / "global_step4").is_dir())


class Limits(WorldTest):
    def test_little_memory_is_advised(self):
        for megabytes in (300, 600, 900, 1200):
            run = subprocess.run(
                ["bash", "-c", f'ulimit -v {megabytes * 1024}; exec "$@"',
                 "bash", BIN / "train_bert", *map(str, self.steps())],
                text=True, capture_output=True, cwd=self.repository,
                env=self.environment, timeout=120)
            self.assertNotIn("fault of the program", run.stderr)
            self.assertGreaterEqual(run.returncode, 0, run.stderr)


@unittest.skipUnless(ODD_FILE_SYSTEM.exists(), "not built: a sanitizer")
class FileSystemsThatKnowLess(WorldTest):
    def setUp(self):
        super().setUp()
        self.environment = dict(
            self.environment, LD_PRELOAD=str(ODD_FILE_SYSTEM))

    def test_a_folder_sync_that_is_not_known(self):
        for error in (errno.EINVAL, errno.ENOTSUP):
            self.environment["ODD_FOLDER_SYNC"] = str(error)
            folder = self.train("--num_iterations=2", "--checkpoint_every=1")
            self.assertEqual(steps_of(folder), [1, 2])
        self.environment["ODD_FOLDER_SYNC"] = str(errno.EINVAL)
        self.run_program(
            "train_bert_ds", *self.new_flags(
                "--checkpoint_dir", self.folder / "ds", "--num_iterations=1"))
        self.assertTrue(list(self.folder.glob("ds/*/global_step1/*.pt")))
        # One that fails is another matter: nobody knows what is on the disk.
        self.environment["ODD_FOLDER_SYNC"] = str(errno.EIO)
        run = self.run_program("train_bert", *self.steps(1, 1), code=74)
        self.assertIn("cannot sync folder", run.err)

    def test_free_space_that_is_not_known(self):
        self.train("--num_iterations=1")
        run = self.run_program(
            "train_bert_ds", *self.new_flags(
                "--checkpoint_dir", self.folder / "ds", "--num_iterations=1"))
        self.assertNotIn("free", run.err)
        self.assertTrue(list(self.folder.glob("ds/*/global_step1/*.pt")))
        report = json.loads(
            self.run_program("ds_report", "--json").out)
        disk = [part for part in report if part["name"] == "Disk"]
        self.assertEqual(
            [(part["value"], part["status"]) for part in disk],
            [("unknown", "ok")])


class Files(WorldTest):
    def test_the_current_folder_was_deleted(self):
        run = self.shell(
            'mkdir gone && cd gone && rmdir ../gone && exec "$@"', code=66)
        self.assertIn("the current folder was deleted", run.stderr)

    def test_links_are_not_written_through(self):
        folder = self.train("--num_iterations=4", "--checkpoint_every=2")
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "file").write_text("mine\n")
        for name in ("metrics.jsonl", "tb_dir"):
            path = folder / name
            path.rename(folder / f"old_{name}")
            path.symlink_to(outside if name == "tb_dir" else outside / "file")
        before = contents(outside)
        run = self.resume(folder, "--num_iterations=6")
        self.assertEqual(run.err.count("training goes on without"), 2, run.err)
        self.assertEqual(contents(outside), before)
        self.assertIn(6, steps_of(folder))

    def test_pipes_in_place_of_files(self):
        folder = self.train("--num_iterations=4", "--checkpoint_every=2")
        for name, code in (("metrics.jsonl", 0), ("hparams.json", 66)):
            (folder / name).unlink()
            os.mkfifo(folder / name)
            run = self.resume(folder, "--num_iterations=5", code=code)
            self.assertIn("a pipe, not a regular file", run.err)

    def test_a_newest_checkpoint_that_is_a_pipe(self):
        folder = self.train("--num_iterations=4", "--checkpoint_every=2")
        (folder / "checkpoint.iter_4.pt").unlink()
        os.mkfifo(folder / "checkpoint.iter_4.pt")
        run = self.resume(folder, "--num_iterations=5")
        self.assertIn("resuming after step 2", run.err)

    def test_dry_run_writes_nothing(self):
        folder = self.train("--num_iterations=4", "--checkpoint_every=2")
        (folder / ".lock").unlink()
        before = contents(self.folder)
        self.resume(folder, "--num_iterations=6", "--dry_run")
        self.assertEqual(contents(self.folder), before)
        self.assertFalse((folder / ".lock").exists())


class Ends(WorldTest):
    def test_a_third_failed_save(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        run = self.run_program(
            "train_bert", *self.steps(9, 1), code=74, preexec_fn=limit)
        self.assertEqual(run.err.count("training goes on\n"), 2, run.err)

    def test_a_folder_that_is_gone_is_a_failed_save(self):
        process, folder = self.launch_train(
            "--num_iterations=100000", "--checkpoint_every=20")
        self.wait(process, lambda: steps_of(folder))
        folder.rename(self.folder / "moved")
        self.finish(process, 74)
        self.assertEqual(process.err.count("training goes on\n"), 2)

    def test_a_signal_in_an_evaluation(self):
        valid = self.folder / "valid.txt"
        valid.write_text(self.text.read_text() * 100)
        process, folder = self.launch_train(
            "--num_iterations=4", "--checkpoint_every=100", "--eval_every=2",
            "--validation_file", valid, "--batch_size=1")
        self.wait(process, lambda: 2 in metrics(folder))
        process.send_signal(signal.SIGTERM)
        self.finish(process, 75)
        self.assertEqual(steps_of(folder), [2])
        self.assertNotIn(
            "eval_loss", (folder / "metrics.jsonl").read_text())


if __name__ == "__main__":
    unittest.main()

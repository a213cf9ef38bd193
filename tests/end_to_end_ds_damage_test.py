#!/usr/bin/env python3
"""Damaged, foreign and hostile checkpoints of several ranks, folders in use, full
disks: the exit code, the message, and that nothing is lost."""

import os
import pickle
import shutil
import subprocess
import unittest
import zipfile

from ds_support import DsTest, latest, losses, metrics, shards, tag, tags_of
from end_to_end_support import contents

MODEL_STATES = "mp_rank_00_model_states.pt"


class Checkpoints(DsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.train_shared(
            2, "--num_iterations=6", "--checkpoint_every=2")

    def setUp(self):
        super().setUp()
        # The run of 6 steps, as it was after step 4.
        self.run_folder = self.rewound(self.whole, 4)
        self.newest = tag(self.run_folder, 4)
        self.shard = shards(self.run_folder, 4)[1]

    def assert_falls_back(self, *words):
        run = self.resume_ranks(2, self.run_folder)
        self.assertRegex(run.err, "warning: passed over a checkpoint: ")
        for word in words:
            self.assertIn(str(word), run.err)
        self.assertIn(
            f"taken in its place: {tag(self.run_folder, 2)}", run.err)
        self.assertIn("resuming after step 2", run.err)
        # What was passed over is neither taken later nor lost.
        self.assertEqual(
            [path.name for path in (self.run_folder / "set_aside").iterdir()],
            ["global_step4"])
        self.assert_same_run(self.whole, self.run_folder, 6)
        self.assertEqual(run.err.count("passed over"), 1, run.err)
        return run

    def assert_refused(self, code, *words):
        """Nothing in the folder changes."""
        before = contents(self.run_folder)
        run = self.assert_error(
            code, words, 2, "--load_checkpoint_dir", self.run_folder)
        self.assertEqual(contents(self.run_folder), before)
        return run

    def only_newest(self):
        shutil.rmtree(tag(self.run_folder, 2))

    def test_truncated_shard(self):
        size = self.shard.stat().st_size
        os.truncate(self.shard, size - 1)
        self.assert_falls_back(self.shard.name, size, size - 1)

    def test_empty_shard(self):
        os.truncate(self.shard, 0)
        self.assert_falls_back(self.shard.name)

    def test_one_flipped_bit(self):
        self.flip(self.shard, self.shard.stat().st_size // 2)
        self.assert_falls_back(self.shard.name)

    def test_flipped_bit_in_the_manifest(self):
        manifest = self.newest / "ds_manifest.json"
        self.flip(manifest, manifest.read_text().index('"stage": ') + 9)
        # The files are whole without it.
        run = self.resume_ranks(2, self.run_folder)
        self.assertIn("warning: the manifest was passed over", run.err)
        self.assertIn("ds_manifest.json", run.err)
        self.assertIn("resuming after step 4", run.err)
        self.assert_same_run(self.whole, self.run_folder, 6)

    def test_missing_shard(self):
        self.shard.unlink()
        self.assert_falls_back(self.shard.name)

    def test_extra_shard(self):
        extra = self.newest / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt"
        shutil.copy(self.shard, extra)
        self.assert_falls_back(extra.name)

    def test_shard_of_another_step(self):
        shutil.copy(shards(self.run_folder, 2)[1], self.shard)
        self.assert_falls_back(self.shard.name)

    def test_none_is_whole(self):
        os.truncate(self.shard, 100)
        (tag(self.run_folder, 2) / MODEL_STATES).unlink()
        self.assert_refused(65, "no checkpoint is whole", self.shard.name)

    def test_latest(self):
        """A `latest` that names nothing: the newest whole checkpoint is used."""
        outside = self.folder / "global_step9"
        shutil.copytree(self.newest, outside)
        before = contents(outside)
        for number, text in enumerate((
                b"", b"\0\0\0", b"x" * (10 << 20), b"../global_step9",
                str(outside).encode(), b"/etc", b"global_step77",
                b"global_step4\r\n", b"global_step4\n")):
            with self.subTest(number):
                (self.run_folder / "latest").write_bytes(text)
                run = self.resume_ranks(2, self.run_folder, "--num_iterations=4")
                self.assertIn("resuming after step 4", run.err)
                self.assertEqual("warning: " in run.err, number < 7, run.err)
        (self.run_folder / "latest").unlink()
        self.resume_ranks(2, self.run_folder, "--num_iterations=6")
        self.assertEqual(latest(self.run_folder), "global_step6")
        self.assert_same_run(self.whole, self.run_folder, 6)
        self.assertEqual(contents(outside), before)

    def flip(self, path, place, bit=4):
        data = bytearray(path.read_bytes())
        data[place] ^= bit
        path.write_bytes(data)

    def as_python_writes_it(self):
        """Without our manifest nothing but the checksums of the archive tell."""
        for path in self.run_folder.glob("global_step*/ds_manifest.json"):
            path.unlink()

    def test_without_a_manifest(self):
        self.as_python_writes_it()
        self.resume_ranks(2, self.run_folder)
        self.assertEqual(metrics(self.run_folder), metrics(self.whole))

    def test_flipped_bit_without_a_manifest(self):
        self.as_python_writes_it()
        self.only_newest()
        with zipfile.ZipFile(self.shard) as file:
            largest = max(file.infolist(), key=lambda info: info.file_size)
        self.flip(self.shard, largest.header_offset + largest.file_size // 2)
        self.assert_refused(65, self.shard.name, "checksum")

    def test_missing_shard_without_a_manifest(self):
        self.as_python_writes_it()
        self.only_newest()
        self.shard.unlink()
        self.assert_refused(65, self.newest, "rank 1 is missing")

    def test_no_code_is_run(self):
        self.as_python_writes_it()
        self.only_newest()
        marker = self.folder / "marker"

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {marker}",)

        evil = pickle.dumps({"module": Evil()}, protocol=2)
        for path in (self.newest / MODEL_STATES, self.shard):
            kept = path.read_bytes()
            with zipfile.ZipFile(path, "w") as file:
                name = path.name.removesuffix(".pt")
                file.writestr(f"{name}/data.pkl", evil)
                file.writestr(f"{name}/byteorder", "little")
                file.writestr(f"{name}/version", "3\n")
            self.assert_refused(65, "posix.system", path.name)
            self.assertFalse(marker.exists())
            path.write_bytes(kept)
        pickle.loads(evil)  # the same bytes in Python
        self.assertTrue(marker.exists())

    def test_of_another_model(self):
        hparams = self.run_folder / "hparams.json"
        text = hparams.read_text()
        hparams.write_text(text.replace('"h_dim": 64', '"h_dim": 128'))
        self.assert_refused(65, self.newest)

    def test_no_experiment(self):
        for folder in (self.folder / "nowhere", self.folder):
            self.assert_error(
                66, [folder], 2, "--load_checkpoint_dir", folder)

    def test_fill_mask_of_a_damaged_experiment(self):
        os.truncate(self.newest / MODEL_STATES, 1000)
        sentence = "The river <mask>."
        run = self.run_program("fill_mask", self.run_folder, sentence, code=65)
        self.assertIn(str(tag(self.run_folder, 2)), run.err)
        self.assertEqual(run.out, "")
        run = self.run_program(
            "fill_mask", self.run_folder, sentence, "--newest_whole")
        self.assertIn("passed over a checkpoint", run.err)
        named = self.run_program(
            "fill_mask", tag(self.run_folder, 2), sentence)
        shutil.rmtree(self.newest)
        (self.run_folder / "latest").write_text("global_step2")
        other = self.run_program("fill_mask", self.run_folder, sentence)
        self.assertEqual(run.out, other.out)
        self.assertEqual(named.out, other.out)


class Folders(DsTest):
    def test_two_runs_in_a_folder(self):
        process, folder = self.launch_new(
            2, "--num_iterations=100000", "--checkpoint_every=1", "--keep_last=1")
        self.wait(process, lambda: (folder / "latest").exists())
        [holder] = self.processes(RANK=0, WORLD_SIZE=2)
        other = self.launch_ranks(2, "--load_checkpoint_dir", folder)
        run = self.finish(other, code=73)
        for word in ("another run", f"pid {holder}", "host", "started"):
            self.assertIn(word, run.err)
        self.stop(process)
        self.resume_ranks(2, folder, "--num_iterations=1")

    def test_no_folder_can_be_made(self):
        file = self.folder / "file"
        file.touch()
        self.assert_error(73, [file], 2, *self.new_flags(
            "--checkpoint_dir", file / "below"))
        self.assertEqual(list(self.folder.iterdir()), [file])


class FullDisk(DsTest):
    """A small file system of its own; a checkpoint is about 47 MB."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small file system")
        self.disk = self.folder / "disk"
        self.disk.mkdir()

    def mount(self, size):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", self.disk],
            capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest("no file system can be mounted: " + done.stderr)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)

    def test_the_last_checkpoint_finds_no_room(self):
        self.mount(80)
        run = self.run_ranks(
            2, *self.new_flags(
                "--checkpoint_dir", self.disk, "--num_iterations=4",
                "--checkpoint_every=2"), code=74)
        [folder] = self.disk.iterdir()
        self.assertIn(str(folder), run.err)
        self.assertRegex(run.err, r"\d+ bytes|\d+(\.\d+)? MiB")
        self.assertEqual(tags_of(folder), [2])
        self.assertEqual(latest(folder), "global_step2")
        self.assert_whole(folder)
        self.assertEqual(list(folder.glob(".tmp-*")), [])
        # With room again the run ends as if nothing had been.
        subprocess.run(["mount", "-o", "remount,size=300m", self.disk], check=True)
        self.resume_ranks(2, folder)
        whole = self.train_ranks(
            2, "--num_iterations=4", "--checkpoint_every=2")
        self.assert_same_run(whole, folder, 4)

    def test_training_goes_on_and_then_gives_up(self):
        self.mount(10)
        run = self.run_ranks(
            2, *self.new_flags(
                "--checkpoint_dir", self.disk, "--num_iterations=10",
                "--checkpoint_every=2"), code=74)
        [folder] = self.disk.iterdir()
        for step in (2, 4):
            self.assertIn(f"warning: no checkpoint of step {step}", run.err)
        self.assertRegex(run.err, r"(?m)^step +6/10")
        self.assertNotRegex(run.err, r"(?m)^step +7/10")
        self.assertEqual(len(losses(folder)), 6)
        self.assertEqual(tags_of(folder), [])


if __name__ == "__main__":
    unittest.main()

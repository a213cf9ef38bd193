"""What the end-to-end tests of train_bert_ds share: runs of several ranks under
`deepspeed`, and comparisons of the experiment folders that they leave.
"""

import os
import pathlib
import shutil
import signal
import time
import uuid
import zipfile

from end_to_end_support import PATIENCE, SMALL, EndToEndTest, metrics

FP32 = ("--dtype=fp32",)


def tags_of(folder):
    """The steps of the checkpoints in a folder, rising."""
    return sorted(int(path.name.removeprefix("global_step"))
                  for path in pathlib.Path(folder).glob("global_step*"))


def tag(folder, step):
    return pathlib.Path(folder) / f"global_step{step}"


def latest(folder):
    return (folder / "latest").read_text()


def shards(folder, step):
    return sorted(tag(folder, step).glob("*_optim_states.pt"))


def losses(folder):
    return [record["loss"] for _, record in sorted(metrics(folder).items())]


class DsTest(EndToEndTest):
    """Every process of a test carries a mark in its environment, by which it is
    found wherever it went."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name in ("OMP_NUM_THREADS", "DS_ENV_FILE", "RANK", "WORLD_SIZE"):
            cls.environment.pop(name, None)
        cls.environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
                            "HOME": str(cls.shared)}

    def setUp(self):
        super().setUp()
        self.mark = uuid.uuid4().hex
        self.environment = dict(self.environment, TEST_MARK=self.mark)
        self.addCleanup(self.end_all)

    @classmethod
    def train_shared(cls, ranks, *flags):
        """An experiment for all tests of the class, made in setUpClass()."""
        trainer = DsTest()
        trainer.text, trainer.repository = cls.text, cls.repository
        trainer.environment = cls.environment
        trainer.setUp()
        trainer.folder = cls.shared
        try:
            return trainer.train_ranks(ranks, *flags)
        finally:
            trainer.doCleanups()

    def end_all(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def processes(self, **variables):
        """The living processes of this test with these variables."""
        wanted = {f"{name}={value}".encode() for name, value in
                  dict(variables, TEST_MARK=self.mark).items()}
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if wanted <= set((path / "environ").read_bytes().split(b"\0")):
                    found.append(int(path.name))
            except OSError:
                pass
        return found

    def assert_all_gone(self, seconds=3.0):
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.processes(), [])

    def launch_ranks(self, ranks, *flags, launcher=(), **options):
        """`deepspeed --num_gpus ranks train_bert_ds flags`."""
        return self.launch("deepspeed", "--num_gpus", ranks, *launcher,
                           "train_bert_ds", *flags, **options)

    def run_ranks(self, ranks, *flags, code=0, **options):
        return self.finish(self.launch_ranks(ranks, *flags, **options), code)

    def folder_of(self, run):
        """The experiment folder that a run named on its last line."""
        [line] = run.out.splitlines()
        self.assertTrue(line.startswith("experiment: "), run.out)
        return pathlib.Path(line.removeprefix("experiment: "))

    def train_ranks(self, ranks, *flags, **options):
        """A new experiment that goes well; returns its folder."""
        return self.folder_of(
            self.run_ranks(ranks, *self.new_flags(*flags), **options))

    def resume_ranks(self, ranks, folder, *flags, code=0, **options):
        return self.run_ranks(
            ranks, "--load_checkpoint_dir", folder, *flags, code=code, **options)

    def launch_new(self, ranks, *flags, launcher=()):
        """A new experiment that runs; returns the launcher and the folder."""
        parent = self.folder / f"live{len(list(self.folder.iterdir()))}"
        process = self.launch_ranks(
            ranks, *self.new_flags("--checkpoint_dir", parent, *flags),
            launcher=launcher)
        self.wait(process, lambda: list(parent.glob("*/hparams.json")))
        [folder] = parent.iterdir()
        return process, folder

    def wait_for_step(self, process, folder, step):
        self.wait(process, lambda: max(metrics(folder), default=0) >= step)

    def wait_for_tag(self, process, folder, step):
        self.wait(process, lambda: (folder / "latest").exists()
                  and latest(folder) == f"global_step{step}")

    def rewound(self, folder, step):
        """A copy of an experiment as it was after the checkpoint of `step`."""
        copy = self.folder / f"rewound_to_{step}_{len(list(self.folder.iterdir()))}"
        shutil.copytree(folder, copy)
        for later in tags_of(copy):
            if later > step:
                shutil.rmtree(tag(copy, later))
        (copy / "latest").write_text(f"global_step{step}")
        return copy

    def assert_error(self, code, words, ranks, *flags, **options):
        """The exit code, and one error that holds all the words."""
        run = self.run_ranks(ranks, *flags, code=code, **options)
        for word in words:
            self.assertIn(str(word), run.err)
        self.assertEqual(run.out, "")
        self.assert_all_gone()
        return run

    def assert_close(self, ours, theirs, tolerance=1e-5):
        self.assertEqual(len(ours), len(theirs))
        for one, other in zip(ours, theirs):
            self.assertLess(abs(one - other) / abs(other), tolerance,
                            (ours, theirs))

    def assert_same_tag(self, one, other, step):
        """Byte by byte, file by file."""
        names = sorted(path.name for path in tag(one, step).iterdir())
        self.assertEqual(
            names, sorted(path.name for path in tag(other, step).iterdir()))
        for name in names:
            if name.endswith(".pt"):
                self.assert_same_checkpoints(
                    tag(one, step) / name, tag(other, step) / name)

    def assert_same_run(self, whole, resumed, step):
        self.assertEqual(metrics(resumed), metrics(whole))
        self.assert_same_tag(whole, resumed, step)

    def assert_whole(self, folder):
        """No checkpoint of the folder is damaged; there is at least one."""
        self.assertTrue(tags_of(folder))
        self.assertIn(latest(folder), [f"global_step{n}" for n in tags_of(folder)])
        for path in folder.glob("global_step*/*.pt"):
            with zipfile.ZipFile(path) as file:
                self.assertIsNone(file.testzip())


__all__ = ["DsTest", "FP32", "PATIENCE", "SMALL", "latest", "losses", "metrics",
           "shards", "tag", "tags_of"]

"""What the end-to-end tests share: a small text and model, runs of the built
programs as a user starts them, and comparisons of what they leave behind.

The programs are taken from the folder in DS_BIN, or from build/bin.
"""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("DS_BIN", ROOT / "build" / "bin")).resolve()
TOKENIZER = ROOT / "data" / "roberta-base"
# The smallest model that has more than one of everything. Losses are compared
# bit for bit, so the number of threads is fixed.
SMALL = ("--num_layers=2", "--num_heads=4", "--ff_dim=64", "--h_dim=64",
         "--num_threads=1", "--log_every=1")
PATIENCE = 120  # seconds; a run takes about one


def small_text(lines):
    """Lines of made-up sentences, always the same."""
    source = random.Random(7)
    words = ["the", "river", "of", "city", "king", "old", "stone", "runs",
             "through", "Paris", "and", "1848", "music", "was", "written"]
    return "".join(
        " ".join(source.choices(words, k=source.randrange(3, 24))) + ".\n"
        for _ in range(lines))


def steps_of(folder):
    """The steps of the checkpoints in a folder, rising."""
    return sorted(int(path.name.split("_")[1].split(".")[0])
                  for path in pathlib.Path(folder).glob("checkpoint.iter_*.pt"))


def checkpoint(folder, step):
    return pathlib.Path(folder) / f"checkpoint.iter_{step}.pt"


def metrics(folder):
    """{step: what was logged of training}, less what depends on the clock."""
    records = {}
    if not (folder / "metrics.jsonl").exists():
        return records
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            assert record["step"] not in records, f"step logged twice: {line}"
            records[record["step"]] = {
                key: record[key] for key in ("loss", "lr", "grad_norm")}
    return records


def contents(folder):
    """{path: checksum} of the files below a folder, less the lock."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"}


def newest_checkpoint_step(folder):
    return max(steps_of(folder), default=0)


class EndToEndTest(unittest.TestCase):
    """self.folder is new for each test; the token cache and the text are shared
    by the tests of a class."""

    @classmethod
    def setUpClass(cls):
        shared = tempfile.TemporaryDirectory(prefix="end_to_end.")
        cls.addClassCleanup(shared.cleanup)
        cls.shared = pathlib.Path(shared.name)
        cls.text = cls.shared / "text.txt"
        cls.text.write_text(small_text(200))
        # The programs run in a git repository of their own.
        cls.repository = cls.shared / "repository"
        cls.repository.mkdir()
        (cls.repository / "file").write_text("one\n")
        for command in (["init", "-q"], ["add", "file"], [
                "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm",
                "one"]):
            subprocess.run(["git", *command], cwd=cls.repository, check=True)
        (cls.repository / "file").write_text("two\n")
        cls.environment = dict(
            os.environ, DEEPSPEED_CACHE_DIR=str(cls.shared / "cache"),
            DEEPSPEED_DATA_DIR=str(ROOT / "data"))

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="end_to_end.")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def launch(self, program, *arguments, **options):
        """Starts a program; it is killed at the end of the test."""
        process = subprocess.Popen(
            [BIN / program, *map(str, arguments)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.repository, env=self.environment, **options)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def finish(self, process, code=0):
        """Waits for the end; returns what was printed to both streams."""
        process.out, process.err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, code, process.err)
        return process

    def run_program(self, program, *arguments, code=0, **options):
        return self.finish(self.launch(program, *arguments, **options), code)

    def new_flags(self, *flags):
        return ("--checkpoint_dir", self.folder / "runs", *SMALL, "--dataset",
                self.text, *flags)

    def train(self, *flags):
        """A new experiment that goes well; returns its folder."""
        run = self.run_program("train_bert", *self.new_flags(*flags))
        last = run.out.splitlines()[-1]
        self.assertTrue(last.startswith("experiment: "), run.out)
        return pathlib.Path(last.removeprefix("experiment: "))

    def resume(self, folder, *flags, code=0, **options):
        return self.run_program(
            "train_bert", "--load_checkpoint_dir", folder, *flags, code=code,
            **options)

    def launch_train(self, *flags):
        """A new experiment that runs; returns the process and its folder."""
        parent = self.folder / f"live{len(list(self.folder.iterdir()))}"
        process = self.launch(
            "train_bert", *self.new_flags("--checkpoint_dir", parent, *flags))
        self.wait(process, lambda: list(parent.glob("*/hparams.json")))
        return process, next(parent.iterdir())

    def wait(self, process, condition):
        """Until the condition holds; the process must live so long."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if process.poll() is not None:
                self.fail("ended too soon: " + process.communicate()[1])
            if time.monotonic() > deadline:
                self.fail("waited in vain")
            time.sleep(0.002)

    def rewound(self, folder, step):
        """A copy of an experiment as it was after the checkpoint of `step`."""
        copy = self.folder / f"rewound_to_{step}"
        shutil.copytree(folder, copy)
        for later in steps_of(copy):
            if later > step:
                checkpoint(copy, later).unlink()
        return copy

    def assert_fails(self, code, words, program, *arguments):
        """The exit code, and an error that holds all the words."""
        run = self.run_program(program, *arguments, code=code)
        self.assertTrue(run.err.count("error: ") == 1, run.err)
        for word in words:
            self.assertIn(str(word), run.err)
        self.assertEqual(run.out, "")
        return run

    def assert_same_checkpoints(self, one, other):
        """Byte by byte; a difference is named by its place in the file."""
        if one.read_bytes() == other.read_bytes():
            return
        entries = []
        for path in (one, other):
            with zipfile.ZipFile(path) as file:
                entries.append({name: file.read(name)
                                for name in file.namelist()})
        names = [name for name in {**entries[0], **entries[1]}
                 if entries[0].get(name) != entries[1].get(name)]
        self.fail(f"{one} and {other} differ in {names[:8]}")

    def assert_same_run(self, whole, resumed, step):
        """All that was logged, and the checkpoint of `step`."""
        self.assertEqual(metrics(resumed), metrics(whole))
        self.assert_same_checkpoints(
            checkpoint(whole, step), checkpoint(resumed, step))

    def assert_whole(self, folder):
        """No checkpoint of the folder is damaged; there is at least one."""
        self.assertTrue(steps_of(folder))
        for step in steps_of(folder):
            with zipfile.ZipFile(checkpoint(folder, step)) as file:
                self.assertIsNone(file.testzip())

    def stop(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        return self.finish(process, code=75)

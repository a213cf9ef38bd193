"""Short runs of train_bert on a small text, for the parity tests.

DS_BIN is the folder of the built programs, DS_DATA the one with roberta-base/.
"""
import json
import os
import random
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(os.environ.get("DS_BIN", ROOT / "build" / "bin")).absolute()
DATA = Path(os.environ.get("DS_DATA", ROOT / "data")).absolute()
TOKENIZER = DATA / "roberta-base"

SHAPE = dict(layers=2, heads=4, ff=64, hidden=64)
BATCH_SIZE = 4
# High: within a few steps a wrong moment or step count of Adam moves the loss.
LEARNING_RATE = 3e-3
WORDS = """the a of and to in is was it for on with as by at from river city king
year house water light stone small large old new first built found gave made known
people north south near under Danube Lisbon 1848 3.14 naïve café""".split()


def require(*programs):
    """Skips a test file on a machine without the programs or the tokenizer."""
    for path, hint in [(BIN / name, "make build") for name in programs] + [
            (TOKENIZER / "vocab.json", "make data")]:
        if not path.exists():
            pytest.skip(f"{path} is not there: {hint}", allow_module_level=True)


def write_text(path, lines=100):
    draw = random.Random(7)
    path.write_text("".join(
        " ".join(draw.choices(WORDS, k=draw.randint(3, 60))) + ".\n"
        for _ in range(lines)))
    return path


class Runner:
    """Runs the programs in `folder`, on its text.txt."""

    def __init__(self, folder):
        self.folder = folder
        self.text = write_text(folder / "text.txt")
        self.environment = dict(os.environ, DEEPSPEED_CACHE_DIR=str(folder / "cache"))

    def run(self, *command, stdin=subprocess.DEVNULL):
        """Standard output, as text; the test fails if the program does."""
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, env=self.environment,
            stdin=stdin, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, *flags):
        return self.run(
            BIN / "train_bert", "--dataset", self.text, "--num_threads", 1,
            "--log_every", 1, "--learning_rate", LEARNING_RATE, *flags)

    def start(self, name, iterations, *flags):
        """A new experiment of `iterations` steps; its folder."""
        parent = self.folder / name
        self.train(
            "--checkpoint_dir", parent, "--num_iterations", iterations,
            "--tokenizer", TOKENIZER, "--dropout", 0, "--batch_size", BATCH_SIZE,
            "--num_layers", SHAPE["layers"], "--num_heads", SHAPE["heads"],
            "--ff_dim", SHAPE["ff"], "--h_dim", SHAPE["hidden"], *flags)
        (experiment,) = parent.iterdir()
        return experiment

    def resume(self, experiment, iterations):
        self.train(
            "--load_checkpoint_dir", experiment, "--num_iterations", iterations)

    def batches(self, steps):
        """What train_bert trains on in its first `steps` steps."""
        out = self.folder / "batches.jsonl"
        self.run(
            BIN / "write_batches", self.text, TOKENIZER, out, "--seed", 42,
            "--batch_size", BATCH_SIZE, "--steps", steps)
        return [json.loads(line) for line in out.read_text().splitlines()]


def losses(experiment, first, last):
    """Of the steps first ... last, as train_bert logged them."""
    by_step = {}
    for line in (experiment / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            by_step[record["step"]] = record["loss"]
    return [by_step[step] for step in range(first, last + 1)]


def load(path):
    return torch.load(path, weights_only=True)

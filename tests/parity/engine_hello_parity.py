"""train_bert_ds and HelloDeepSpeed's train_bert_ds.py under Python DeepSpeed, each
going on from the other's experiment folder.

Run by pytest with the peers' python4 (transformers 4); DS_BIN and DS_DATA as in
small_run.py. With HELLODEEPSPEED, the folder of the Python program's own
train_bert_ds.py, that program runs too; else its loop and configuration around
hello_model.py stand for it (deepspeed_hello_peer.py).
"""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="the Python peers are not installed: no transformers")
if not transformers.__version__.startswith("4."):
    pytest.skip("needs transformers 4, which ties lm_head.bias",
                allow_module_level=True)
if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("the Python peers are not installed whole: no deepspeed "
                "(tools/peers.sh full)", allow_module_level=True)

from small_run import (  # noqa: E402
    BATCH_SIZE, BIN, LEARNING_RATE, SHAPE, TOKENIZER, Runner, losses, require)

require("train_bert_ds", "deepspeed", "write_batches")
HERE = Path(__file__).resolve().parent
STEPS = 4  # before the hand-over, and after it
# Relative, of the losses after the hand-over. bf16: both sides compute in bf16, but
# round at different places.
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}


class TwoRanks(Runner):
    """Starts our program and the peer on `ranks` ranks with the same batches."""

    def ours(self, ranks, *flags):
        self.run(BIN / "deepspeed", "--num_gpus", ranks, BIN / "train_bert_ds",
                 "--dataset", self.text, "--num_threads", 1, "--log_every", 1,
                 "--learning_rate", LEARNING_RATE, *flags)

    def start(self, name, ranks, dtype, *flags):
        parent = self.folder / name
        self.ours(
            ranks, "--checkpoint_dir", parent, "--num_iterations", STEPS,
            "--tokenizer", TOKENIZER, "--dropout", 0, "--batch_size", BATCH_SIZE,
            "--num_layers", SHAPE["layers"], "--num_heads", SHAPE["heads"],
            "--ff_dim", SHAPE["ff"], "--h_dim", SHAPE["hidden"], "--dtype", dtype,
            "--checkpoint_every", STEPS, *flags)
        (experiment,) = parent.iterdir()
        return experiment

    def resume(self, experiment, ranks, iterations, dtype, *flags):
        self.ours(ranks, "--load_checkpoint_dir", experiment, "--num_iterations",
                  iterations, "--dtype", dtype, *flags)

    def global_batches(self, ranks):
        out = self.folder / f"batches_{ranks}.jsonl"
        if not out.exists():
            self.run(BIN / "write_batches", self.text, TOKENIZER, out, "--seed", 42,
                     "--batch_size", BATCH_SIZE, "--ranks", ranks,
                     "--steps", 2 * STEPS)
        return out

    def python(self, ranks, *command):
        """A script on `ranks` ranks of Python DeepSpeed; rank 0's lines of JSON."""
        output = self.run(
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", ranks,
            "--master-port", free_port(), *command)
        return [json.loads(line) for line in output.splitlines()
                if line.startswith("{")]

    def peer(self, ranks, dtype, *flags):
        rows = self.python(
            ranks, HERE / "deepspeed_hello_peer.py", self.global_batches(ranks),
            "--shape", SHAPE["layers"], SHAPE["heads"], SHAPE["ff"], SHAPE["hidden"],
            "--dropout", 0, "--batch_size", BATCH_SIZE, "--dtype", dtype,
            "--learning_rate", LEARNING_RATE, "--plain_operators", "--steps", STEPS,
            *flags)
        return [row["loss"] for row in rows if "loss" in row], rows


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_same(ours, theirs, dtype):
    errors = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    print("largest relative difference of a loss:", max(errors))
    assert max(errors) < TOLERANCE[dtype], (ours, theirs)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = TwoRanks(tmp_path_factory.mktemp("hello"))
    runner.environment.update(
        CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    return runner


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_python_goes_on_from_ours(runner, dtype):
    """Our run goes on too: undisturbed it has the same losses."""
    experiment = runner.start(f"ours_{dtype}", 2, dtype)
    theirs, rows = runner.peer(
        2, dtype, "--load", experiment, "--first_step", STEPS)
    assert rows[0]["checkpoint_step"] == STEPS
    assert f"/global_step{STEPS}/" in rows[0]["loaded"]
    runner.resume(experiment, 2, 2 * STEPS, dtype)
    check_same(losses(experiment, STEPS + 1, 2 * STEPS), theirs, dtype)


def hparams(dtype):
    return {
        "mask_prob": 0.15, "random_replace_prob": 0.1, "unmask_replace_prob": 0.1,
        "max_seq_length": 512, "tokenizer": str(TOKENIZER),
        "num_layers": SHAPE["layers"], "num_heads": SHAPE["heads"],
        "ff_dim": SHAPE["ff"], "h_dim": SHAPE["hidden"], "dropout": 0.0,
        "batch_size": BATCH_SIZE, "num_iterations": STEPS,
        "checkpoint_every": STEPS}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_ours_goes_on_from_python(runner, dtype):
    experiment = runner.folder / f"theirs_{dtype}"
    (experiment / "tb_dir").mkdir(parents=True)
    (experiment / "hparams.json").write_text(json.dumps(hparams(dtype), indent=2))
    runner.peer(2, dtype, "--save", experiment)
    theirs, _ = runner.peer(2, dtype, "--load", experiment, "--first_step", STEPS)
    # Python's settings know no dealing: in the order of the stream, if not told.
    runner.resume(experiment, 2, 2 * STEPS, dtype, "--balance_batches")
    check_same(losses(experiment, STEPS + 1, 2 * STEPS), theirs, dtype)


class RealProgram:
    """HelloDeepSpeed's train_bert_ds.py. Its N iterations train N - 1 steps."""

    def __init__(self, runner):
        folder = os.environ.get("HELLODEEPSPEED")
        if not folder:
            pytest.skip("HELLODEEPSPEED, the folder of HelloDeepSpeed's "
                        "train_bert_ds.py, is not set")
        self.script = Path(folder) / "train_bert_ds.py"
        self.runner = runner

    def run(self, ranks, *flags):
        self.runner.python(
            ranks, HERE / "run_hellodeepspeed.py", self.script, self.runner.text,
            *flags, "--log_every", 1)


@pytest.fixture(scope="module")
def real(runner):
    return RealProgram(runner)


def tags(experiment):
    return {path.name for path in experiment.glob("global_step*")}


def structure(value):
    """Keys, types, and shapes of tensors."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape)
    if isinstance(value, dict):
        return {key: structure(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [structure(item) for item in value]
    return type(value).__name__


def test_real_program_goes_on_from_ours_and_back(runner, real):
    experiment = runner.start("ours_to_real", 2, "bf16")
    real.run(2, "--load_checkpoint_dir", experiment, "--num_iterations", STEPS + 3)
    # The last of the iterations was not trained, but client_state counts it.
    last = STEPS + 2
    assert tags(experiment) == {f"global_step{STEPS}", f"global_step{last}"}
    for name in ("mp_rank_00_model_states.pt",
                 "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
                 "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"):
        ours, theirs = (structure(torch.load(
            experiment / f"global_step{step}" / name, weights_only=False))
            for step in (STEPS, last))
        # Where our data order stands; Python ignores it and does not keep it.
        ours.pop("train_bert_ds", None)
        assert list(ours) == list(theirs)
        for key in ours:
            if key != "ds_config":  # of the run that wrote the file
                assert ours[key] == theirs[key], key
    runner.resume(experiment, 2, last + 3, "bf16")
    assert f"global_step{last + 3}" in tags(experiment)


def test_ours_goes_on_from_the_real_program(runner, real):
    """On two ranks from its one: with two, each of its ranks may choose a folder of
    its own name."""
    parent = runner.folder / "real_to_ours"
    real.run(
        1, "--checkpoint_dir", parent, "--num_iterations", STEPS + 1, "--dropout", 0.0,
        "--checkpoint_every", STEPS, "--batch_size", BATCH_SIZE, "--tokenizer",
        TOKENIZER, "--num_layers", SHAPE["layers"], "--num_heads", SHAPE["heads"],
        "--ff_dim", SHAPE["ff"], "--h_dim", SHAPE["hidden"])
    (experiment,) = parent.iterdir()
    assert f"global_step{STEPS}" in tags(experiment)
    runner.resume(experiment, 2, 2 * STEPS, "bf16")
    assert f"global_step{2 * STEPS}" in tags(experiment)

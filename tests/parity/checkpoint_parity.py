"""Checkpoints of train_bert and of HelloDeepSpeed's Python, each read by the other.

Run by pytest with the peers' python4 (transformers 4); DS_BIN and DS_DATA as in
small_run.py. With HELLODEEPSPEED, the folder of the Python program's own
train_bert.py, that program runs too; else hello_model.py stands for it.
"""
import json
import os
import sys
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="the Python peers are not installed: no transformers")
if not transformers.__version__.startswith("4."):
    pytest.skip("needs transformers 4, which ties lm_head.bias",
                allow_module_level=True)

import hello_model  # noqa: E402
from small_run import (  # noqa: E402
    BATCH_SIZE, LEARNING_RATE, SHAPE, TOKENIZER, Runner, load, losses, require)

require("train_bert", "write_batches")
STEPS = 5  # before the hand-over, and after it
TOLERANCE = 1e-4


class Peer:
    """HelloDeepSpeed's model and optimizer."""

    def __init__(self, learning_rate):
        torch.manual_seed(1)
        self.model = hello_model.HelloModel(hello_model.config(dropout=0.0, **SHAPE))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)

    def load(self, checkpoint):
        self.model.load_state_dict(checkpoint["model"], strict=True)
        self.optimizer.load_state_dict(checkpoint["optimizer"])

    def train(self, batches):
        self.model.train()
        result = []
        for batch in batches:
            self.optimizer.zero_grad()
            loss = self.model(*hello_model.padded(batch))
            loss.backward()
            self.optimizer.step()
            result.append(loss.item())
        return result

    def save(self, folder, step):
        """An experiment folder as the Python program leaves it."""
        folder.mkdir()
        (folder / "tb_dir").mkdir()
        (folder / "githash.log").write_text("0" * 40 + "\n")
        (folder / "gitdiff.log").write_text("")
        with (folder / "hparams.json").open("w") as file:
            json.dump(self.hparams(step), file, indent=2)
        torch.save(
            {"model": self.model.state_dict(),
             "optimizer": self.optimizer.state_dict()},
            folder / f"checkpoint.iter_{step}.pt")

    @staticmethod
    def hparams(step):
        return {
            "mask_prob": 0.15, "random_replace_prob": 0.1,
            "unmask_replace_prob": 0.1, "max_seq_length": 512,
            "tokenizer": str(TOKENIZER), "num_layers": SHAPE["layers"],
            "num_heads": SHAPE["heads"], "ff_dim": SHAPE["ff"],
            "h_dim": SHAPE["hidden"], "dropout": 0.0, "batch_size": BATCH_SIZE,
            "num_iterations": step, "checkpoint_every": step,
        }


def check_same(ours, theirs):
    errors = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    print("largest relative difference of a loss:", max(errors))
    assert max(errors) < TOLERANCE, (ours, theirs)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def batches(runner):
    return runner.batches(2 * STEPS)


@pytest.fixture(scope="module")
def ours(runner):
    """An experiment of 2 * STEPS steps, with a checkpoint in the middle that it
    was resumed from."""
    experiment = runner.start("ours", STEPS, "--checkpoint_every", STEPS)
    runner.resume(experiment, 2 * STEPS)
    return experiment


def middle(experiment):
    """Loaded anew each time: torch's optimizers take the tensors as their own."""
    return load(experiment / f"checkpoint.iter_{STEPS}.pt")


def test_layout(ours):
    checkpoint = middle(ours)
    assert list(checkpoint) == ["model", "optimizer", "deepspeed_cpp"]
    expected = Peer(1).model.state_dict()
    mine = checkpoint["model"]
    assert list(mine) == list(expected)
    assert [(t.shape, t.dtype, t.stride()) for t in mine.values()] == [
        (t.shape, t.dtype, t.stride()) for t in expected.values()]
    for tied, name in (
            ("lm_head.decoder.weight", "encoder.embeddings.word_embeddings.weight"),
            ("lm_head.decoder.bias", "lm_head.bias")):
        assert mine[tied].data_ptr() == mine[name].data_ptr(), tied


def test_optimizer_layout(ours, batches):
    peer = Peer(LEARNING_RATE)
    peer.train(batches[:1])
    expected = peer.optimizer.state_dict()
    mine = middle(ours)["optimizer"]
    assert list(mine) == list(expected)
    assert list(mine["state"]) == list(expected["state"])
    for index, state in expected["state"].items():
        saved = mine["state"][index]
        assert {k: (t.shape, t.dtype) for k, t in saved.items()} == {
            k: (t.shape, t.dtype) for k, t in state.items()}
        assert saved["step"] == STEPS
    assert mine["param_groups"] == expected["param_groups"]


def test_python_goes_on_from_ours(ours, batches):
    peer = Peer(learning_rate=1)  # comes with the checkpoint
    peer.load(middle(ours))
    check_same(losses(ours, STEPS + 1, 2 * STEPS), peer.train(batches[STEPS:]))
    mine = load(ours / f"checkpoint.iter_{2 * STEPS}.pt")["model"]
    for name, tensor in peer.model.state_dict().items():
        if "key.bias" not in name:  # its gradients are rounding errors alone
            error = (mine[name] - tensor).norm()
            assert error <= TOLERANCE * tensor.norm(), name


@pytest.mark.parametrize("lost", ["step", "exp_avg", "exp_avg_sq"])
def test_a_lost_part_of_the_optimizer_would_show(ours, batches, lost):
    peer = Peer(learning_rate=1)
    peer.load(middle(ours))
    for state in peer.optimizer.state.values():
        state[lost].zero_()
    with pytest.raises(AssertionError):
        check_same(losses(ours, STEPS + 1, 2 * STEPS), peer.train(batches[STEPS:]))


def test_ours_goes_on_from_python(runner, batches):
    peer = Peer(LEARNING_RATE)
    peer.train(batches[:STEPS])
    experiment = runner.folder / "theirs"
    peer.save(experiment, STEPS)
    runner.resume(experiment, 2 * STEPS)
    check_same(losses(experiment, STEPS + 1, 2 * STEPS), peer.train(batches[STEPS:]))
    hparams = json.loads((experiment / "hparams.json").read_text())
    assert list(hparams)[:13] == list(Peer.hparams(STEPS))


class RealProgram:
    """HelloDeepSpeed's train_bert.py. Its N iterations train N - 1 steps."""

    def __init__(self, runner):
        folder = os.environ.get("HELLODEEPSPEED")
        if not folder:
            pytest.skip("HELLODEEPSPEED, the folder of HelloDeepSpeed's "
                        "train_bert.py, is not set")
        self.script = Path(folder) / "train_bert.py"
        self.runner = runner

    def run(self, *flags):
        launcher = Path(__file__).resolve().parent / "run_hellodeepspeed.py"
        self.runner.run(
            sys.executable, launcher, self.script, self.runner.text, *flags,
            "--log_every", 1)


@pytest.fixture(scope="module")
def real(runner):
    return RealProgram(runner)


def step_files(experiment):
    return {path.name for path in experiment.glob("*.pt")}


def check_same_layout(path, other):
    mine, theirs = load(path), load(other)
    assert [(k, t.shape) for k, t in mine["model"].items()] == [
        (k, t.shape) for k, t in theirs["model"].items()]
    assert list(mine["optimizer"]["state"]) == list(theirs["optimizer"]["state"])


def test_real_program_goes_on_from_ours_and_back(runner, real):
    experiment = runner.start("ours_to_real", 3, "--checkpoint_every", 2)
    assert step_files(experiment) == {f"checkpoint.iter_{n}.pt" for n in (2, 3)}
    real.run("--load_checkpoint_dir", experiment, "--num_iterations", 5)
    # Iteration 5 was not trained, but gives the last file its name.
    assert step_files(experiment) == {
        f"checkpoint.iter_{n}.pt" for n in (2, 3, 4, 5)}
    check_same_layout(
        experiment / "checkpoint.iter_3.pt", experiment / "checkpoint.iter_4.pt")
    runner.resume(experiment, 7)
    assert "checkpoint.iter_7.pt" in step_files(experiment)


def test_ours_goes_on_from_the_real_program(runner, real):
    parent = runner.folder / "real_to_ours"
    real.run(
        "--checkpoint_dir", parent, "--num_iterations", STEPS, "--dropout", 0.0,
        "--checkpoint_every", 2, "--batch_size", BATCH_SIZE, "--tokenizer",
        TOKENIZER, "--num_layers", SHAPE["layers"], "--num_heads", SHAPE["heads"],
        "--ff_dim", SHAPE["ff"], "--h_dim", SHAPE["hidden"])
    (experiment,) = parent.iterdir()
    latest = experiment / f"checkpoint.iter_{STEPS}.pt"
    assert latest.exists()
    twin = Peer(learning_rate=1)
    twin.load(load(latest))
    for group in twin.optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    runner.resume(experiment, 2 * STEPS)
    check_same(
        losses(experiment, STEPS + 1, 2 * STEPS),
        twin.train(runner.batches(2 * STEPS)[STEPS:]))

"""train_bert_ds under torchrun and under our launcher: the same run.

Run by pytest with the peers' python; DS_BIN and DS_DATA as in small_run.py.
"""
import json
import sys

import pytest

pytest.importorskip(
    "torch", reason="the Python peers are not installed: no torch")

from small_run import (  # noqa: E402
    BATCH_SIZE, BIN, SHAPE, TOKENIZER, Runner, require)

require("train_bert_ds", "deepspeed")
RANKS = 2


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("launchers"))
    runner.environment.update(
        CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    return runner


def train(runner, name, *launcher):
    parent = runner.folder / name
    runner.run(
        *launcher, BIN / "train_bert_ds", "--checkpoint_dir", parent, "--dataset",
        runner.text, "--tokenizer", TOKENIZER, "--num_iterations", 3,
        "--num_threads", 1, "--log_every", 1, "--batch_size", BATCH_SIZE,
        "--num_layers", SHAPE["layers"], "--num_heads", SHAPE["heads"],
        "--ff_dim", SHAPE["ff"], "--h_dim", SHAPE["hidden"])
    (experiment,) = parent.glob("bert_pretrain.*")
    assert len(list(experiment.glob("global_step3/*_optim_states.pt"))) == RANKS
    return [json.loads(line)["loss"] for line in
            (experiment / "metrics.jsonl").read_text().splitlines()
            if '"loss"' in line]


def test_torchrun(runner):
    under_torchrun = train(
        runner, "torchrun", sys.executable, "-m", "torch.distributed.run",
        "--no-python", "--nproc-per-node", RANKS)
    assert len(under_torchrun) == 3
    assert under_torchrun == train(
        runner, "deepspeed", BIN / "deepspeed", "--num_gpus", RANKS)

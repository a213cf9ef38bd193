"""Checkpoints between our engine and Python DeepSpeed 0.19.8, both ways.

Run by pytest with the peers' python; DS_BIN as in engine_support.py.
"""
import subprocess
import sys

import pytest

import engine_support
from engine_support import BIN, check_same, config, final

engine_support.require()
import torch  # noqa: E402

import engine_toy  # noqa: E402

BEFORE, AFTER = 4, 6  # steps
# Of the steps after the hand-over; engine_parity.py says why bf16 and fp16 differ.
BOUNDS = {"fp32": (1e-5, 1e-5), "bf16": (5e-3, 3e-2), "fp16": (1e-3, 5e-3)}
CLIENT_STATE = {"note": "text", "ratio": 0.25, "flag": True, "nothing": None,
                "list": [1, 2.5, "x"], "nested": {"a": {"b": 1}}}
NAMES = list(engine_toy.initial_weights({}))
GROUPS = [{"names": [n for n in NAMES if n.endswith("weight")]},
          {"names": [n for n in NAMES if n.endswith("bias")], "weight_decay": 0.0}]
DYNAMIC = {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 1000}


def settings(stage, dtype, **changes):
    if dtype == "fp16":
        changes = {"fp16": DYNAMIC, **changes}
    return config(stage, dtype, **changes)


# name -> (ranks, dtype, job)
def cases():
    for stage in (0, 1, 2):
        for dtype in ("fp32", "bf16", "fp16"):
            for ranks in (1, 2, 3):
                # Every other one has two groups; all but those of 3 ranks are tied.
                job = {"config": settings(stage, dtype),
                       "module": {"tied": ranks != 3}}
                if (stage + ranks) % 2 == 0 and ranks != 3:
                    job["param_groups"] = GROUPS
                yield f"stage{stage}-{ranks}-{dtype}", (ranks, dtype, job)
    offload = {"stage": 1, "offload_optimizer": {"device": "cpu"}}
    yield "offload", (2, "bf16", {
        "config": settings(1, "bf16", zero_optimization=offload)})
    for stage in (0, 2):
        yield f"sgd{stage}", (2, "bf16", {"config": settings(
            stage, "bf16", optimizer={"type": "SGD", "params": {
                "lr": 0.05, "momentum": 0.9}})})
        yield f"torch_adam{stage}", (2, "bf16", {"config": settings(
            stage, "bf16", optimizer={"type": "Adam", "params": {
                "lr": 0.01, "torch_adam": True}})})
        yield f"frozen{stage}", (2, "fp32", {
            "config": settings(stage, "fp32"),
            "module": {"frozen": ["layers.0.bias", "layers.1.weight"]}})
        yield f"unused{stage}", (2, "fp32", {
            "config": settings(stage, "fp32"), "module": {"spare": True}})
    yield "overflow", (2, "fp16", {
        "config": settings(2, "fp16"), "loss_factors": {"1": 1e9, "2": 1e9}})


CASES = dict(cases())


def for_peer(job):
    untested = job["config"]["optimizer"]["type"] == "SGD"
    return {**job, "mend_stage0": True, "config": {
        **job["config"], **({"zero_allow_untested_optimizer": True}
                            if untested else {})}}


def saving(job, folder):
    """Trains, saves in the middle and goes on."""
    return {**job, "steps": BEFORE + AFTER, "save": [{
        "after": BEFORE, "dir": str(folder / "checkpoint"),
        "client_state": CLIENT_STATE, "final": str(folder / "saved.safetensors")}]}


def loading(job, checkpoint, path):
    """Other initial weights; they must not matter."""
    return {**job, "seed": 7, "first_step": BEFORE, "steps": AFTER, "load": {
        "dir": str(checkpoint), "client_keys": list(CLIENT_STATE),
        "final": str(path)}}


class Exchange:
    """All jobs of all cases, in few starts of the programs."""

    def __init__(self, sides):
        self.sides = sides
        sides.start_peers(1, 2, 3)
        self.ours, self.theirs = {}, {}          # undisturbed runs
        self.ours_on, self.theirs_on = {}, {}    # gone on from the other's checkpoint
        for name, (ranks, _, job) in CASES.items():
            folder = self.folder("theirs", name)
            self.theirs[name] = sides.peer(ranks, for_peer(saving(job, folder)))
        for ranks in (1, 2, 3):
            self.run_ours(ranks)
        for name, (ranks, _, job) in CASES.items():
            self.theirs_on[name] = sides.peer_or_error(ranks, for_peer(loading(
                job, self.folder("ours", name) / "checkpoint",
                self.folder("theirs", name) / "loaded.safetensors")))

    def folder(self, side, name):
        folder = self.sides.folder / side / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run_ours(self, ranks):
        names = [name for name, case in CASES.items() if case[0] == ranks]
        jobs = []
        for name in names:
            job, folder = CASES[name][2], self.folder("ours", name)
            other = self.folder("theirs", name) / "checkpoint"
            jobs += [saving(job, folder),
                     loading(job, other, folder / "loaded.safetensors")]
        answers = self.sides.ours_many(ranks, jobs)
        for i, name in enumerate(names):
            self.ours[name], self.ours_on[name] = answers[2 * i:2 * i + 2]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    sides = engine_support.Sides(tmp_path_factory.mktemp("checkpoint"))
    yield sides
    sides.stop()


@pytest.fixture(scope="module")
def exchange(sides):
    return Exchange(sides)


def rest(trace):
    """The steps after the hand-over."""
    return {key: value[BEFORE:] for key, value in trace.items()
            if isinstance(value, list)}


def goes_on(whole, resumed, dtype):
    assert "error" not in resumed, resumed["error"]
    check_same(resumed, rest(whole), *BOUNDS[dtype])
    state = resumed["load"]
    assert state["client_state"] == CLIENT_STATE
    assert f"/global_step{BEFORE}" in state["path"]
    for key in ("global_steps", "skipped_steps", "scale"):
        assert state[key] == whole[key][BEFORE - 1], key
    # 6 samples, 2 micro batches; the ranks are those of the losses.
    assert state["global_samples"] == BEFORE * 12 * len(whole["losses"][0][0])


def same_tensors(saved, loaded):
    """Bit-equal fp32 weights, moments and weights of the module."""
    assert set(saved) == set(loaded)
    for kind, tensors in saved.items():
        assert set(tensors) == set(loaded[kind]), kind
        for name, tensor in tensors.items():
            assert torch.equal(tensor, loaded[kind][name]), (kind, name)


@pytest.mark.parametrize("name", CASES)
def test_ours_goes_on_from_python(exchange, name):
    goes_on(exchange.theirs[name], exchange.ours_on[name], CASES[name][1])
    same_tensors(final(exchange.folder("theirs", name) / "saved.safetensors"),
                 final(exchange.folder("ours", name) / "loaded.safetensors"))


@pytest.mark.parametrize("name", CASES)
def test_python_goes_on_from_ours(exchange, name):
    goes_on(exchange.ours[name], exchange.theirs_on[name], CASES[name][1])
    same_tensors(final(exchange.folder("ours", name) / "saved.safetensors"),
                 final(exchange.folder("theirs", name) / "loaded.safetensors"))


# Conversion to fp32.

SHARDED = [name for name, case in CASES.items()
           if case[2]["config"]["zero_optimization"]["stage"] > 0]


def check_converted(converted, saved, module):
    """`saved`: the fp32 weights of the engine at that step."""
    for name, tensor in saved["fp32"].items():
        assert torch.equal(converted.pop(name), tensor), name
    for name in saved["module"]:  # frozen ones
        if name in converted:
            assert torch.equal(converted.pop(name), saved["module"][name].float())
    if module.get("tied", True):
        embedding = saved["fp32"]["embed.weight"]
        assert torch.equal(converted.pop("decoder.weight"), embedding)
    assert torch.equal(
        converted.pop("offset").float(), torch.linspace(-0.5, 0.5, 7))
    assert converted.pop("version") == 3
    assert not converted


@pytest.mark.parametrize("name", SHARDED)
def test_deepspeed_converts_ours(exchange, name):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    folder = exchange.folder("ours", name)
    check_converted(
        dict(get_fp32_state_dict_from_zero_checkpoint(folder / "checkpoint")),
        final(folder / "saved.safetensors"), CASES[name][2].get("module", {}))


@pytest.mark.parametrize("name", CASES)
def test_our_program_converts_theirs(exchange, name, tmp_path):
    folder = exchange.folder("theirs", name)
    subprocess.run([BIN / "zero_to_fp32", folder / "checkpoint", tmp_path], check=True,
                   stdin=subprocess.DEVNULL, timeout=300)
    check_converted(
        torch.load(tmp_path / "pytorch_model.bin", weights_only=True),
        final(folder / "saved.safetensors"), CASES[name][2].get("module", {}))


@pytest.mark.parametrize("name", ["stage1-2-bf16", "stage2-3-fp16"])
def test_the_script_in_our_folder_converts(exchange, name, tmp_path):
    folder = exchange.folder("ours", name)
    # -I: without the peers' DeepSpeed it would do the same.
    subprocess.run(
        [sys.executable, folder / "checkpoint" / "zero_to_fp32.py",
         folder / "checkpoint", tmp_path], check=True,
        stdin=subprocess.DEVNULL, timeout=300)
    check_converted(
        torch.load(tmp_path / "pytorch_model.bin", weights_only=True),
        final(folder / "saved.safetensors"), CASES[name][2].get("module", {}))


# What DeepSpeed refuses: another number of ranks, another stage.

SOURCES = ["stage0-2-fp32", "stage1-3-fp32", "stage2-2-fp32", "stage1-2-bf16",
           "stage2-1-fp16"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_ours_loads_theirs_with_any_ranks_and_stage(exchange, sides, stage, ranks):
    jobs = []
    for name in SOURCES:
        job = CASES[name][2]
        changed = {**job, "config": {
            **job["config"], "zero_optimization": {"stage": stage}}}
        jobs.append({**loading(
            changed, exchange.folder("theirs", name) / "checkpoint",
            exchange.folder("ours", name) / f"any{stage}{ranks}.safetensors"),
            "steps": 0})
    for name, job, answer in zip(SOURCES, jobs, sides.ours_many(ranks, jobs)):
        assert "error" not in answer, answer["error"]
        same_tensors(final(exchange.folder("theirs", name) / "saved.safetensors"),
                     final(job["load"]["final"]))

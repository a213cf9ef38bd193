"""Our engine against Python DeepSpeed 0.19.8: same weights, same batches, on the CPU.

Run by pytest with the peers' python; DS_BIN as in engine_support.py. Most tests use
two ranks. Where we differ on purpose a test shows both sides.
"""
import pytest

import engine_support
from engine_support import check_same, config, difference, final, flat

engine_support.require()
import torch  # noqa: E402

import engine_toy  # noqa: E402

STEPS = 20
# Relative bounds of losses and gradient norms over 20 steps. In bf16 and fp16 the
# sides round at different places: DeepSpeed adds the gradients of micro steps and
# ranks in the compute dtype, we add them in fp32.
BOUNDS = {"fp32": (1e-5, 1e-5), "bf16": (5e-3, 2e-2), "fp16": (1e-3, 2e-3)}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    sides = engine_support.Sides(tmp_path_factory.mktemp("engine"))
    yield sides
    sides.stop()


def compare(sides, job, dtype, ranks=2, theirs=None):
    """Trains on both sides; `theirs` changes the peer's job. Their traces."""
    job = {"steps": STEPS, **job}
    mine = sides.ours(ranks, job)
    peer = sides.peer(ranks, {**job, "mend_stage0": True, **(theirs or {})})
    check_same(mine, peer, *BOUNDS[dtype])
    first, *_, last = flat(mine["losses"])
    assert last != first  # it trained
    return mine, peer


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_training(sides, stage, dtype):
    compare(sides, {"config": config(stage, dtype)}, dtype)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("stage", [0, 2])
def test_ranks(sides, stage, ranks):
    compare(sides, {"config": config(stage, "fp32")}, "fp32", ranks)


def adam(**params):
    return {"type": "Adam", "params": {"lr": 0.01, **params}}


OPTIMIZERS = {
    "adam with L2": adam(weight_decay=0.1, adam_w_mode=False),
    "adam as defined": adam(betas=[0.8, 0.95], eps=1e-3, bias_correction=False),
    "adamw of torch": {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}},
    "sgd": {"type": "SGD", "params": {"lr": 0.2}},
    "sgd with all": {"type": "SGD", "params": {
        "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}},
    "sgd dampened": {"type": "SGD", "params": {
        "lr": 0.2, "momentum": 0.8, "dampening": 0.3}},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(sides, name):
    settings = config(1, "fp32", optimizer=OPTIMIZERS[name], scheduler=None)
    compare(sides, {"config": settings}, "fp32", theirs={
        "config": {**settings, "zero_allow_untested_optimizer": True}})


WARMUP = {"warmup_num_steps": 5, "total_num_steps": 15}
SCHEDULERS = {
    "WarmupLR": {"warmup_max_lr": 0.02, "warmup_num_steps": 5,
                 "warmup_type": "linear"},
    "WarmupDecayLR": {**WARMUP, "warmup_max_lr": 0.02, "warmup_min_lr": 0.001},
    "WarmupCosineLR": {**WARMUP, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.01},
    "OneCycle": {"cycle_min_lr": 0.001, "cycle_max_lr": 0.02,
                 "cycle_first_step_size": 6, "cycle_second_step_size": 9,
                 "decay_lr_rate": 0.5, "decay_step_size": 2,
                 "cycle_min_mom": 0.8, "cycle_max_mom": 0.9},
    "LRRangeTest": {"lr_range_test_min_lr": 0.001, "lr_range_test_step_size": 4,
                    "lr_range_test_step_rate": 1.0},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(sides, name):
    compare(sides, {"config": config(
        1, "fp32", scheduler={"type": name, "params": SCHEDULERS[name]})}, "fp32")


JOBS = {
    "one group's order": lambda names: {"param_groups": [
        {"names": [n for n in names if n.endswith("weight")]},
        {"names": [n for n in names if n.endswith("bias")],
         "weight_decay": 0.0, "lr": 0.003}],
        "config": config(2, "fp32", scheduler=None)},
    "frozen": lambda names: {
        "module": {"frozen": ["layers.0.bias", "layers.1.weight"]}},
    "untied": lambda names: {"module": {"tied": False}},
    "unused": lambda names: {"module": {"spare": True}},
    "no clipping": lambda names: {"config": config(
        2, "fp32", gradient_clipping=0.0)},
    "clipping hard": lambda names: {"config": config(
        2, "fp32", gradient_clipping=0.05)},
    "no accumulation": lambda names: {"config": config(
        2, "fp32", gradient_accumulation_steps=1)},
    "accumulation": lambda names: {"config": config(
        1, "fp32", gradient_accumulation_steps=4)},
    "small buckets": lambda names: {"config": config(2, "fp32", zero_optimization={
        "stage": 2, "reduce_bucket_size": 60, "allgather_bucket_size": 50,
        "overlap_comm": True})},
    "prescale": lambda names: {"config": config(
        0, "fp32", prescale_gradients=True)},
    "predivide": lambda names: {"config": config(
        0, "fp32", gradient_predivide_factor=4.0)},
    "offload": lambda names: {"config": config(2, "fp32", zero_optimization={
        "stage": 2, "offload_optimizer": {"device": "cpu"}})},
}


@pytest.mark.parametrize("name", JOBS)
def test_models_and_settings(sides, name):
    names = list(engine_toy.initial_weights({}))
    compare(sides, {"config": config(2, "fp32"), **JOBS[name](names)}, "fp32")


@pytest.mark.parametrize("stage", [1, 2])
def test_overflow_in_fp16(sides, stage):
    """The dynamic scale, its hysteresis and what a skipped step leaves alone."""
    fp16 = {"enabled": True, "initial_scale_power": 10, "hysteresis": 2,
            "loss_scale_window": 1000}
    mine, _ = compare(sides, {
        "config": config(stage, "fp16", fp16=fp16),
        "loss_factors": {"2": 1e9, "5": 1e9, "6": 1e9, "11": 1e9}}, "fp16")
    assert mine["skipped_steps"][-1] == 4
    assert mine["scale"][-1] == 2.0**7  # the first one used up the hysteresis


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_bf16_step_with_an_infinite_loss_is_skipped(sides, stage):
    job = {"config": config(stage, "bf16"), "loss_factors": {"3": "inf", "4": "nan"}}
    if stage > 0:
        mine, _ = compare(sides, job, "bf16")
    else:  # DeepSpeed has no check there
        mine = sides.ours(2, {**job, "steps": STEPS})
    assert [s for s, applied in enumerate(mine["applied"]) if not applied] == [3, 4]


# What we do otherwise on purpose.


def one_rank(dtype, stage=1, **changes):
    """SGD with rate 1 and no clipping: the change of a weight is its gradient."""
    return config(stage, dtype, **{
        "gradient_clipping": 0.0, "gradient_accumulation_steps": 1,
        "optimizer": {"type": "SGD", "params": {"lr": 1.0}}, "scheduler": None,
        "zero_allow_untested_optimizer": None, **changes})


def weights(sides, side, job, steps):
    path = sides.name("final.safetensors")
    if side == sides.peer:
        job = {**job, "config": {
            **job["config"], "zero_allow_untested_optimizer": True}}
    side(1, {**job, "steps": steps, "final": path})
    return torch.cat([t.flatten() for _, t in sorted(final(path)["fp32"].items())])


@pytest.mark.parametrize("stage", [1, 2])
def test_differs_growing_scale_leaves_the_gradient_alone(sides, stage):
    """DeepSpeed doubles the scale before it divides the gradients by it: on every
    such step they are half of what they should be."""
    job = {"config": one_rank("fp16", stage, fp16={
        "enabled": True, "initial_scale_power": 6, "loss_scale_window": 3})}
    before = weights(sides, sides.ours, job, 3)
    mine = weights(sides, sides.ours, job, 4) - before
    theirs = weights(sides, sides.peer, job, 4) - weights(sides, sides.peer, job, 3)
    right = {**job, "config": one_rank("fp16", stage, fp16={
        "enabled": True, "loss_scale": 64.0})}
    expected = weights(sides, sides.ours, right, 4) - before
    assert (mine - expected).norm() < 1e-2 * expected.norm()
    assert (theirs - 0.5 * expected).norm() < 1e-2 * expected.norm()


def test_differs_gradients_accumulate_in_fp32(sides):
    """DeepSpeed adds bf16 gradients in bf16."""
    count = 32
    job = {"config": one_rank("bf16", gradient_accumulation_steps=count)}
    exact = mean_gradient(sides, count)
    start = torch.cat([t.flatten() for _, t in sorted(
        engine_toy.initial_weights({}).items())])
    errors = {
        side: ((start - weights(sides, side, job, 1)) - exact).norm() / exact.norm()
        for side in (sides.ours, sides.peer)}
    print("errors of the mean gradient:", *errors.values())
    assert errors[sides.ours] < 1e-5
    assert errors[sides.peer] > 1e-3


def mean_gradient(sides, count):
    """Of the first `count` micro batches, each in bf16, added in fp32."""
    import json

    model = engine_toy.Toy({})
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in engine_toy.initial_weights({}).items():
            parameters[name].copy_(value)
    for parameter in parameters.values():
        parameter.data = parameter.data.bfloat16()
    sums = {name: torch.zeros(p.shape) for name, p in parameters.items()}
    for batch in json.loads(sides.batches.read_text())[:count]:
        model.zero_grad()
        loss = model(torch.tensor(batch["tokens"]), torch.tensor(batch["targets"]))
        (loss / count).backward()
        for name, parameter in parameters.items():
            sums[name] += parameter.grad.float()
    return torch.cat([t.flatten() for _, t in sorted(sums.items())])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_differs_master_weights_keep_the_fp32_initialisation(sides, dtype):
    """DeepSpeed makes them of weights that it has rounded already."""
    job = {"representable": False, "config": one_rank(dtype, optimizer={
        "type": "SGD", "params": {"lr": 0.0}})}
    start = torch.cat([t.flatten() for _, t in sorted(
        engine_toy.initial_weights({}, representable=False).items())])
    rounded = start.to({"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]).float()
    assert torch.equal(weights(sides, sides.ours, job, 1), start)
    assert torch.equal(weights(sides, sides.peer, job, 1), rounded)


def test_differs_stage_0_scales_the_loss(sides):
    """DeepSpeed's stage 0 divides by a loss scale that backward() left out."""
    settings = config(0, "fp16", fp16={"enabled": True, "loss_scale": 1024.0})
    mine = sides.ours(2, {"config": settings, "steps": 1})["grad_norm"][0]
    theirs = sides.peer(2, {"config": settings, "steps": 1})["grad_norm"][0]
    assert difference([theirs * 1024], [mine]) < BOUNDS["fp16"][1]


def test_differs_stage_0_makes_no_step_of_its_own(sides):
    """DeepSpeed's stage 0 in bf16 decays the weights once before training."""
    job = {"config": one_rank("bf16", 0, optimizer={
        "type": "AdamW", "params": {"lr": 0.25, "weight_decay": 0.5}}),
        "loss_factors": {"0": 0.0}}
    start = torch.cat([t.flatten() for _, t in sorted(
        engine_toy.initial_weights({}).items())])
    decayed = start * (1 - 0.25 * 0.5)
    torch.testing.assert_close(weights(sides, sides.ours, job, 1), decayed)
    torch.testing.assert_close(
        weights(sides, sides.peer, job, 1), decayed * (1 - 0.25 * 0.5))

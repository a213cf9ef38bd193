"""Checkpoint folders of Python DeepSpeed against our reader and writer.

    DS_BIN=build/bin python -m pytest tests/parity/zero_checkpoint_parity.py

Makes small checkpoints with deepspeed_samples.py first (two ranks, about a
minute), or takes them from the folder DS_SAMPLES.
"""

import importlib.util
import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest
import torch

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(
    os.environ.get("DS_BIN", HERE.parent.parent / "build" / "bin")).absolute()
if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("the Python peers are not installed whole: no deepspeed "
                "(tools/peers.sh full)", allow_module_level=True)
os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")

from deepspeed.utils import zero_to_fp32 as theirs
from safetensors.torch import load_file

sys.path.insert(0, str(HERE.parent / "golden"))
import make_torch_golden as golden

DATA_ERROR = 65
SAMPLES = [f"{stage}_2_{dtype}_{variant}"
           for variant, dtypes in {
               "base": ("fp32", "bf16", "fp16"),
               "two_groups": ("fp32", "bf16", "fp16"),
               "sgd": ("fp32", "bf16"),
               "torch_adam": ("fp32", "fp16"),
               "frozen": ("fp32", "bf16"),
               "spare": ("fp32", "bf16"),
               "untied": ("bf16",),
               "offload": ("bf16", "fp16"),
               "round_robin": ("bf16",),
               "fp32_accumulation": ("bf16",),
               "skipped": ("fp16",),
               "static_scale": ("fp16",),
           }.items()
           for dtype in dtypes
           for stage in {"offload": (1, 2), "round_robin": (1, 2), "untied": (0, 2),
                         "fp32_accumulation": (1,)}.get(variant, (0, 1, 2))]

@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    folder = os.environ.get("DS_SAMPLES")
    if folder is None:
        folder = tmp_path_factory.mktemp("samples")
        subprocess.run([sys.executable, HERE / "deepspeed_samples.py", folder, "_2_"],
                       check=True, timeout=600, stdout=subprocess.DEVNULL)
    return pathlib.Path(folder)


def run(program, *args, code=0):
    done = subprocess.run([BIN / program, *map(str, args)], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done.stdout if code == 0 else done.stderr


def driver(*args, code=0):
    return run("zero_checkpoint_driver", *args, code=code)


def expected(sample):
    """kind -> name -> tensor, gathered from the running engine."""
    kinds = json.loads((sample / "expected.json").read_text())
    return {kind: {name: torch.tensor(entry["values"]).reshape(entry["shape"])
                   for name, entry in tensors.items()}
            for kind, tensors in kinds.items()}


def python_file(sample, name="mp_rank_00_model_states.pt"):
    return torch.load(sample / "checkpoint" / "global_step3" / name,
                      map_location="cpu", weights_only=False)


def groups_of(sample):
    """Names by param group: stage 0 in fp32 does not tell them."""
    names = [name for name in python_file(sample)["module"]
             if name in expected(sample)["fp32"]]
    if sample.name.endswith("two_groups"):
        return [[n for n in names if not n.endswith("bias")],
                [n for n in names if n.endswith("bias")]]
    return [names]


def ask_groups(sample):
    need = sample.name.startswith("0_") and "fp32" in sample.name
    return [json.dumps(groups_of(sample))] if need else []


def assert_same(got, want, what):
    assert set(want) <= set(got), (what, set(want) - set(got))
    for name, tensor in want.items():
        assert got[name].shape == tensor.shape, (what, name)
        assert torch.equal(got[name].float(), tensor.float()), (what, name)


def plain(value):
    """As `dump` of our library writes values."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def shape_of(value):
    """The structure of a file: keys, types and shapes."""
    if torch.is_tensor(value):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, torch.Size):
        return f"Size{list(value)}"
    if isinstance(value, dict):
        return [type(value).__name__,
                {key: shape_of(entry) for key, entry in value.items()}]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [shape_of(entry) for entry in value]]
    if type(value).__module__.startswith("deepspeed") and not hasattr(value, "name"):
        # Loss scales are int until they change, and float from then on.
        return [type(value).__name__, {
            key: "number" if type(entry) in (int, float) else shape_of(entry)
            for key, entry in vars(value).items()}]
    return type(value).__name__


@pytest.mark.parametrize("name", SAMPLES)
def test_reads_what_deepspeed_writes(samples, name, tmp_path):
    sample = samples / name
    driver("tensors", sample / "checkpoint", tmp_path / "out.safetensors",
           *ask_groups(sample))
    got = load_file(tmp_path / "out.safetensors")
    for kind, tensors in expected(sample).items():
        assert_same({key.split("/", 1)[1]: tensor for key, tensor in got.items()
                     if key.startswith(kind + "/")}, tensors, kind)


@pytest.mark.parametrize("name", SAMPLES)
def test_reads_the_rest(samples, name):
    sample = samples / name
    told = json.loads(driver("describe", sample / "checkpoint"))
    model = python_file(sample)
    stage, ranks, dtype = name.split("_")[:3]
    assert told["stage"] == int(stage) and told["ranks"] == int(ranks)
    assert told["dtype"] == {"fp32": "float32", "bf16": "bfloat16",
                             "fp16": "float16"}[dtype]
    for key in ("global_steps", "global_samples", "skipped_steps", "lr_scheduler",
                "ds_config"):
        assert told[key] == plain(model[key]), key
    assert told["client_state"] == {
        "note": "text", "checkpoint_step": 3, "ratio": 0.25, "flag": True,
        "nothing": None, "list": [1, 2.5, "x"], "nested": {"a": {"b": 1}}}
    assert told["buffers"] == model["buffer_names"]
    if int(stage) > 0:
        assert told["shared"] == model["shared_params"]
    elif "untied" not in name:
        assert told["shared"] == {"decoder.weight": "embed.weight"}
    if "frozen" in name and told["groups"]:
        assert told["frozen"] == ["layers.0.bias", "layers.1.weight"]
    if dtype == "fp16" and int(stage) > 0:
        prefix = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
        scaler = vars(python_file(sample, prefix)["optimizer_state_dict"]["loss_scaler"])
        assert told["loss_scaler"]["scale"] == scaler["cur_scale"]
        assert told["loss_scaler"]["dynamic"] == scaler["dynamic"]
        for ours, key in (("iteration", "cur_iter"), ("window", "scale_window"),
                          ("last_overflow", "last_overflow_iter"),
                          ("hysteresis_left", "cur_hysteresis")):
            if key in scaler:
                assert told["loss_scaler"][ours] == scaler[key], key


def their_weights(folder):
    return theirs.get_fp32_state_dict_from_zero_checkpoint(str(folder))


@pytest.mark.parametrize("name", SAMPLES)
def test_zero_to_fp32_on_deepspeeds_files(samples, name, tmp_path):
    sample = samples / name
    run("zero_to_fp32", sample / "checkpoint", tmp_path)
    ours = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert_same(ours, expected(sample)["fp32"], "engine")
    if name.startswith("0_") or "fp32_accumulation" in name:
        with pytest.raises((ValueError, FileNotFoundError, TypeError)):
            their_weights(sample / "checkpoint")
        return
    want = their_weights(sample / "checkpoint")
    assert_same(ours, want, "DeepSpeed's zero_to_fp32")
    # Stage 1 keeps frozen parameters in the module alone: DeepSpeed loses them.
    lost = {"layers.0.bias", "layers.1.weight"} if name.startswith("1_") else set()
    assert set(ours) - set(want) <= lost
    for key, tensor in want.items():
        assert ours[key].dtype == (
            torch.float32 if tensor.is_floating_point() else tensor.dtype), key


def run_script(monkeypatch, folder, out, *flags):
    """zero_to_fp32.py of a folder, in this process but without DeepSpeed."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "deepspeed", None)
        patch.setattr(sys, "argv", ["zero_to_fp32.py", str(folder), str(out), *flags])
        runpy.run_path(str(folder / "zero_to_fp32.py"), run_name="__main__")


# sample -> the stages and numbers of ranks that it is written for
CONVERSIONS = [
    (name, stage, ranks)
    for name in ("1_2_bf16_base", "2_2_fp16_two_groups", "0_2_bf16_base",
                 "2_2_fp32_base", "2_2_bf16_frozen", "1_2_fp32_spare")
    for stage, ranks in ((0, 2), (1, 1), (1, 3), (2, 2), (2, 4))]


@pytest.mark.parametrize("name,stage,ranks", CONVERSIONS)
def test_deepspeed_reads_what_we_write(
        samples, name, stage, ranks, tmp_path, monkeypatch):
    sample, out = samples / name, tmp_path / "out"
    driver("convert", sample / "checkpoint", out, stage, ranks, "flat")
    assert (out / "latest").read_text() == "global_step3"
    if stage > 0:
        want = {**expected(sample)["fp32"]}
        state = their_weights(out)
        assert_same(state, want, "DeepSpeed's zero_to_fp32")
        frozen = {"layers.0.bias", "layers.1.weight"} & set(state)
        assert bool(frozen) == (stage == 2 or "frozen" not in name)
        # Our own script, which must not need DeepSpeed.
        run_script(monkeypatch, out, tmp_path / "script")
        script = torch.load(tmp_path / "script" / "pytorch_model.bin",
                            weights_only=True)
        assert_same(script, state, "our zero_to_fp32.py")
    else:
        assert not (out / "zero_to_fp32.py").exists()
    # And back: the same tensors as from DeepSpeed's own files.
    driver("tensors", sample / "checkpoint", tmp_path / "a", *ask_groups(sample))
    driver("tensors", out, tmp_path / "b")
    assert_same(load_file(tmp_path / "b"), load_file(tmp_path / "a"), "tensors")


@pytest.mark.parametrize("name", [name for name in SAMPLES if any(
    part in name for part in ("base", "frozen", "two_groups", "skipped", "static"))])
def test_writes_the_structure_of_deepspeeds_files(samples, name, tmp_path):
    sample, out = samples / name, tmp_path / "out"
    stage, ranks = map(int, name.split("_")[:2])
    if ask_groups(sample) and len(groups_of(sample)) > 1 or name == "0_2_fp32_frozen":
        pytest.skip("the driver needs the names of the groups")
    driver("convert", sample / "checkpoint", out, stage, ranks, "flat")
    for path in (sample / "checkpoint" / "global_step3").iterdir():
        want = torch.load(path, weights_only=False)
        got = torch.load(out / "global_step3" / path.name, weights_only=False)
        if stage == 0:
            assert got.pop("deepspeed_cpp")["format_version"] == 1
        assert json.dumps(shape_of(got)) == json.dumps(shape_of(want)), path.name
        if stage > 0:
            # And the plain values: only tensors were compared before.
            assert values_of(got) == values_of(want), path.name


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("stage", [0, 2])
def test_client_states_of_any_kind(samples, stage, tmp_path, monkeypatch):
    """numpy, sets, times ... come back; unknown classes do not, and no code runs."""
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(samples / f"{stage}_2_bf16_base" / "checkpoint", folder)
    path = folder / "global_step3" / "mp_rank_00_model_states.pt"
    model = torch.load(path, weights_only=False)
    model.update(golden.plain(), someone=golden.someone())
    torch.save(model, path)
    driver("convert", folder, out, stage, 2, "flat")
    found = torch.load(out / "global_step3" / path.name, weights_only=False)
    for key, value in golden.plain().items():
        assert golden.describe(found[key]) == golden.describe(value), key
    assert found["someone"] == {"step": 3, "args": {"seed": 1},
                                "by_colour": {"x": 2}}
    if stage == 0:
        return
    run_script(monkeypatch, out, tmp_path / "script")
    script = torch.load(tmp_path / "script" / "pytorch_model.bin", weights_only=True)
    assert_same(script, their_weights(out), "our zero_to_fp32.py")
    # Neither program runs what a file asks for.
    mark = tmp_path / "pwned"
    (out / "global_step3" / "ds_manifest.json").unlink()
    torch.save({**found, "evil": Evil(mark)}, out / "global_step3" / path.name)
    assert "posix.system" in driver("describe", out, code=DATA_ERROR)
    run_script(monkeypatch, out, tmp_path / "script")
    assert not mark.exists()


def values_of(value):
    if torch.is_tensor(value):
        return None
    if isinstance(value, dict):
        return {key: values_of(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [values_of(entry) for entry in value]
    if type(value).__module__.startswith("deepspeed") and not hasattr(value, "name"):
        return values_of(vars(value))
    return value


@pytest.mark.parametrize("flags", [[], ["--safe_serialization"]])
def test_shards_and_index_are_those_of_deepspeed(samples, flags, tmp_path):
    sample = samples / "2_2_bf16_untied"
    run("zero_to_fp32", sample / "checkpoint", tmp_path / "ours",
        "--max_shard_size", "0.5KB", *flags)
    theirs.convert_zero_checkpoint_to_fp32_state_dict(
        str(sample / "checkpoint"), str(tmp_path / "theirs"), max_shard_size="0.5KB",
        safe_serialization=bool(flags))
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    for name in names:
        ours, want = tmp_path / "ours" / name, tmp_path / "theirs" / name
        if name.endswith(".json"):
            assert ours.read_text() == want.read_text()
            continue
        load = load_file if flags else torch.load
        ours, want = load(ours), load(want)
        assert list(sorted(ours)) == list(sorted(want)), name
        assert_same(ours, want, name)


def test_tied_weights_in_safetensors(samples, tmp_path):
    from safetensors import safe_open
    sample = samples / "1_2_bf16_base"
    run("zero_to_fp32", sample / "checkpoint", tmp_path, "--safe_serialization")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "decoder.weight" not in file.keys()
        assert file.metadata()["decoder.weight"] == "embed.weight"


def test_a_flipped_bit_in_deepspeeds_file_is_refused(samples, tmp_path):
    shutil.copytree(samples / "1_2_bf16_base" / "checkpoint", tmp_path / "c")
    path = tmp_path / "c" / "global_step3" / "mp_rank_00_model_states.pt"
    data = bytearray(path.read_bytes())
    embed = torch.load(path, weights_only=False)["module"]["embed.weight"]
    at = data.find(embed.view(torch.uint8).numpy().tobytes())
    assert at > 0
    data[at + 5] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=False)  # which does not notice
    message = driver("describe", tmp_path / "c", code=DATA_ERROR)
    assert "checksum" in message and "mp_rank_00_model_states.pt" in message


def test_other_kinds_are_refused_by_name(samples, tmp_path):
    for name, word in (("zero_pp_rank_0_mp_rank_00_model_states.pt", "stage 3"),
                       ("mp_rank_01_model_states.pt", "in parts"),
                       ("layer_0_expert_0_mp_rank_00_model_states.pt", "experts")):
        shutil.copytree(samples / "1_2_bf16_base" / "checkpoint", tmp_path / word)
        (tmp_path / word / "global_step3" / name).write_bytes(b"")
        assert word in driver("describe", tmp_path / word, code=78)

"""The files of an experiment, read by the Python programs they are made for.

usage: PEERS_PYTHON -m pytest tests/parity/report_parity.py
  DS_BIN  folder of the built programs, default build/bin

PEERS_PYTHON has the PyPI packages tensorboard and pytest.
"""
import datetime
import json
import math
import os
import re
import subprocess
import time

import pytest

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="the Python peers are not installed: no tensorboard",
)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("DS_BIN", os.path.join(ROOT, "build", "bin"))
DRIVER = os.path.join(BIN, "report_driver")

if not os.path.exists(DRIVER):
    pytest.skip(f"{DRIVER} is not there: make build", allow_module_level=True)


def loss_at(step):
    return 6 + 5 * math.exp(-0.01 * step)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "deep" / "experiments"
    result = subprocess.run(
        [DRIVER, str(folder)], check=True, capture_output=True, text=True, timeout=60
    )
    return result.stdout.strip()


@pytest.fixture(scope="module")
def events(experiment):
    folder = os.path.join(experiment, "tb_dir")
    accumulator = event_accumulator.EventAccumulator(
        folder, size_guidance={event_accumulator.SCALARS: 0}
    )
    accumulator.Reload()
    return accumulator


def test_event_files_have_the_names_of_summary_writer(experiment):
    names = sorted(os.listdir(os.path.join(experiment, "tb_dir")))
    assert len(names) == 2, names  # one for the run, one for its resumption
    for name in names:
        assert re.fullmatch(r"events\.out\.tfevents\.\d{10}\..+\.\d+\.\d", name)


def test_tensorboard_reads_all_scalars(events):
    assert sorted(events.Tags()["scalars"]) == ["Eval/loss", "Train/loss", "Train/lr"]
    losses = events.Scalars("Train/loss")
    assert [event.step for event in losses] == list(range(1, 301))
    for event in losses:
        assert event.value == pytest.approx(loss_at(event.step), rel=1e-6)
        assert abs(event.wall_time - time.time()) < 600
    evaluations = events.Scalars("Eval/loss")
    assert evaluations[0].value == 1.5
    assert math.isnan(evaluations[1].value)


def test_hparams_equal_json_dump(experiment):
    path = os.path.join(experiment, "hparams.json")
    with open(path, encoding="ascii") as handle:
        text = handle.read()
    hparams = json.loads(text)
    assert json.dumps(hparams, indent=2) == text
    assert list(hparams)[:13] == [
        "mask_prob", "random_replace_prob", "unmask_replace_prob",
        "max_seq_length", "tokenizer", "num_layers", "num_heads", "ff_dim",
        "h_dim", "dropout", "batch_size", "num_iterations", "checkpoint_every",
    ]  # fmt: skip
    assert hparams["dataset"] == 'déjà "vu"\n👍\x7f'
    assert hparams["learning_rate"] == 1 / 3
    assert hparams["weight_decay"] == 1e22
    assert hparams["seed"] == 2**63 - 1


def test_metrics_are_json_lines(experiment):
    with open(os.path.join(experiment, "metrics.jsonl")) as handle:
        records = [json.loads(line) for line in handle]
    losses = {r["step"]: r["loss"] for r in records if "loss" in r}
    assert losses == {step: loss_at(step) for step in range(1, 301)}
    assert [r["eval_loss"] for r in records if "eval_loss" in r] == [1.5, None]


def test_folder_name_is_pacific_time(experiment):
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        zone = zoneinfo.ZoneInfo("US/Pacific")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no time zone database")
    name = os.path.basename(experiment)
    match = re.fullmatch(r"bert_pretrain((?:\.\d+){6})\.[a-z0-9]{8}", name)
    assert match, name
    fields = [int(part) for part in match.group(1)[1:].split(".")]
    assert match.group(1) == "".join(f".{field}" for field in fields)
    made = datetime.datetime(*fields, tzinfo=zone)
    age = datetime.datetime.now(zone) - made
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=10)

"""Runs the same jobs with Python DeepSpeed and with our engine.

deepspeed_peer.py explains a job. DS_BIN is the folder of the built programs.
"""
import copy
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ.get("DS_BIN", HERE.parent.parent / "build" / "bin")).absolute()
DRIVER = BIN / "engine_driver"


def require():
    """Skips a test file on a machine without DeepSpeed or our programs."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("the Python peers are not installed whole: no deepspeed "
                    "(make peers)", allow_module_level=True)
    if not DRIVER.exists():
        pytest.skip(f"{DRIVER} is not there: make build", allow_module_level=True)


class Peer:
    """A running group of Python DeepSpeed processes, started anew after an error."""

    def __init__(self, ranks, log):
        self.ranks, self.log, self.process = ranks, log, None

    def start(self):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "deepspeed_peer.py", "--ranks",
                 str(self.ranks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.log.open("a"), text=True)

    def run(self, job):
        self.start()
        # A hang inside DeepSpeed must not hang the tests.
        timer = threading.Timer(400, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {
            "error": "the peer ended: " + self.log.read_text()[-2000:],
            "broken": True}
        if "broken" in answer:
            self.stop()
        return answer

    def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class Sides:
    """Runs jobs on both sides; a job needs no `weights` and `batches`."""

    def __init__(self, folder):
        import engine_toy

        self.folder, self.toy = folder, engine_toy
        self.peers, self.count, self.weight_files = {}, 0, {}
        self.batches = engine_toy.write_batches(folder / "batches.json", 400)

    def name(self, what):
        self.count += 1
        return str(self.folder / f"{self.count}_{what}")

    def weights(self, job):
        """The file of the initial weights; one for each model."""
        spec = job.get("module", {})
        settings = {"representable": job.get("representable", True),
                    "seed": job.get("seed", 1)}
        key = json.dumps([spec, settings], sort_keys=True)
        if key not in self.weight_files:
            from safetensors.torch import save_file

            path = self.folder / f"weights_{len(self.weight_files)}.safetensors"
            save_file(self.toy.initial_weights(spec, **settings), path)
            self.weight_files[key] = str(path)
        return self.weight_files[key]

    def complete(self, job, ranks):
        job = copy.deepcopy(job)
        job.setdefault("weights", self.weights(job))
        job.setdefault("batches", str(self.batches))
        job["ranks"] = ranks
        return job

    def start_peers(self, *counts):
        """At once, as imports take most of the time of a start."""
        for ranks in counts:
            if ranks not in self.peers:
                self.peers[ranks] = Peer(ranks, self.folder / f"peer_{ranks}.log")
            self.peers[ranks].start()

    def peer(self, ranks, job):
        answer = self.peer_or_error(ranks, job)
        assert "error" not in answer, answer["error"]
        return answer

    def peer_or_error(self, ranks, job):
        self.start_peers(ranks)
        return self.peers[ranks].run(self.complete(job, ranks))

    def ours(self, ranks, job, **environment):
        (answer,) = self.ours_many(ranks, [job], **environment)
        assert "error" not in answer, answer["error"]
        return answer

    def ours_many(self, ranks, jobs, **environment):
        """One start of the driver for all jobs."""
        from deepspeed_peer import free_port

        name = self.name("ours")
        Path(name + ".jobs").write_text("".join(
            json.dumps(self.complete(job, ranks)) + "\n" for job in jobs))
        port = str(free_port())
        processes = [
            subprocess.Popen(
                [DRIVER, name + ".jobs", name + ".answers"],
                env=dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank),
                         WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
                         MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                         CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", **environment),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in range(ranks)]
        try:
            outputs = [process.communicate(timeout=400)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        for process, output in zip(processes, outputs):
            assert process.returncode == 0, output
        return [json.loads(line) for line
                in Path(name + ".answers").read_text().splitlines()]

    def stop(self):
        for peer in self.peers.values():
            peer.stop()


def config(stage, dtype, **changes):
    """A ds_config for the toy; keys of `changes` replace whole sections."""
    result = {
        "train_micro_batch_size_per_gpu": 6,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "Adam", "params": {"lr": 0.02, "weight_decay": 0.1}},
        "scheduler": {"type": "WarmupLR", "params": {
            "warmup_min_lr": 0.001, "warmup_max_lr": 0.02, "warmup_num_steps": 6}},
        "zero_optimization": {"stage": stage},
    }
    if dtype == "bf16":
        result["bf16"] = {"enabled": True}
    if dtype == "fp16":
        result["fp16"] = {"enabled": True, "loss_scale": 128}
    result.update(changes)
    return {key: value for key, value in result.items() if value is not None}


def flat(losses):
    return [value for step in losses for micro in step for value in micro]


def difference(ours, theirs):
    """The largest relative difference of two lists of numbers. What is not finite
    differs from what is; inf and nan are alike."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = float(a), float(b)
        if math.isfinite(a) and math.isfinite(b):
            worst = max(worst, abs(a - b) / max(abs(b), 1e-12))
        elif math.isfinite(a) != math.isfinite(b):
            return math.inf
    return worst


def check_same(ours, theirs, loss, norm):
    """Traces agree within relative bounds, and in all that is counted."""
    worst_loss = difference(flat(ours["losses"]), flat(theirs["losses"]))
    # DeepSpeed has no norm in fp32 at stage 0.
    pairs = [(a, b) for a, b in zip(ours["grad_norm"], theirs["grad_norm"])
             if a is not None and b is not None]
    worst_norm = difference([a for a, _ in pairs], [b for _, b in pairs])
    print(f"largest relative difference: loss {worst_loss:.1e}, norm {worst_norm:.1e}")
    assert worst_loss <= loss, (ours["losses"], theirs["losses"])
    assert worst_norm <= norm, (ours["grad_norm"], theirs["grad_norm"])
    for key in ("scale", "applied", "global_steps", "skipped_steps"):
        assert ours[key] == theirs[key], key
    lr = difference(sum(ours["lr"], []), sum(theirs["lr"], []))
    assert lr < 1e-12, (ours["lr"], theirs["lr"])


def final(path):
    """{"fp32": {name: tensor}, "exp_avg": ...} of a job's `final`."""
    from safetensors.torch import load_file

    result = {}
    for key, tensor in load_file(path).items():
        kind, name = key.split(".", 1)
        result.setdefault(kind, {})[name] = tensor
    return result

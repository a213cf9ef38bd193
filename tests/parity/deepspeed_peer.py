#!/usr/bin/env python3
"""Runs jobs with the real Python DeepSpeed, on the CPU.

usage: deepspeed_peer.py --ranks N     reads jobs from stdin, one line of JSON each,
                                       and answers each with one line of JSON
       deepspeed_peer.py JOB.json      one job; the number of ranks stands in it

A job, where only the first three keys are required:
  weights   safetensors file with the initial fp32 weights by name
  batches   JSON file of micro batches (engine_toy.py)
  config    DeepSpeed's configuration
  module    description of the model (engine_toy.DEFAULTS)
  ranks     number of processes
  steps     optimizer steps to do, 0 by default
  first_step     number of the first step, for the choice of batches
  loss_factors   {step: factor}: multiplies the losses of that step
  param_groups   [{"names": [...], ...hyperparameters}]; all in one if absent
  load      {"dir": D, "tag": T, "client_keys": [those to answer], "final": F,
            ...arguments of load_checkpoint}
  save      [{"after": step, "dir": D, "tag": T, "client_state": {...}, "final": F}]
  mend_stage0    true: see Job.mend_stage0
  final     safetensors file to write: "fp32.NAME" is the fp32 weight,
            "exp_avg.NAME" a state of the optimizer, "module.NAME" the weight that
            the module computes with
The answer: losses [step][micro step][rank], and per step grad_norm, lr [group],
scale, applied, global_steps, skipped_steps; client_state and path of a load; or
{"error": text}. engine_driver.cpp does the same jobs with our engine.
"""
import argparse
import json
import math
import os
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ranks:
    """The processes of one group, fed with the same lines."""

    def __init__(self, count):
        port = str(free_port())
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, env=self.environment(
                    count, rank, port))
            for rank in range(count)]

    @staticmethod
    def environment(count, rank, port):
        tools = str(Path(sys.executable).parent)  # ninja, for DeepSpeed's operators
        return dict(
            os.environ, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count),
            LOCAL_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
            CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1",
            PATH=tools + os.pathsep + os.environ["PATH"])

    def answer(self, line):
        """Rank 0's answer, or the first error of any rank. "broken": a rank has
        ended or hangs, so that this group can do no more."""
        lines = [None] * len(self.processes)

        def ask(rank):
            process = self.processes[rank]
            try:
                process.stdin.write(line.strip() + "\n")
                process.stdin.flush()
                lines[rank] = process.stdout.readline()
            except OSError:
                lines[rank] = ""
            if not lines[rank] or '"error"' in lines[rank][:9]:
                failed.set()

        failed = threading.Event()
        threads = [threading.Thread(target=ask, args=(rank,), daemon=True)
                   for rank in range(len(self.processes))]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if failed.wait(0.01):
                # The others may wait for the failed rank without end.
                for thread in threads:
                    thread.join(5)
                break
        errors = [line for line in lines if line and line.startswith('{"error"')]
        if errors and all(lines):
            return errors[0].strip()
        if errors or not all(lines):
            text = json.loads(errors[0])["error"] if errors else str(lines)
            return json.dumps({"error": text, "broken": True})
        return lines[0].strip()

    def stop(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def number(value):
    """A float for JSON, which has no inf and nan: those become text."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else str(value)


class Job:
    def __init__(self, deepspeed, job):
        import torch
        from safetensors.torch import load_file

        import engine_toy

        self.torch, self.deepspeed, self.job = torch, deepspeed, job
        self.rank = torch.distributed.get_rank()
        self.ranks = torch.distributed.get_world_size()
        self.batches = json.loads(Path(job["batches"]).read_text())
        model = engine_toy.Toy(job.get("module", {}))
        self.parameters = dict(model.named_parameters())
        weights = load_file(job["weights"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        self.engine, *_ = deepspeed.initialize(
            model=model, model_parameters=self.groups(), config=job["config"])

        if job.get("mend_stage0"):
            self.mend_stage0()

    def mend_stage0(self):
        """Undoes two faults of DeepSpeed's stage 0 in bf16 and fp16: its optimizer
        makes a step with zero gradients before training (so Adam counts one step
        too many, and weight decay acts once too often), and backward() forgets the
        loss scale that step() divides by."""
        wrapper = self.engine.optimizer
        if hasattr(wrapper, "fp32_groups_flat"):  # FP16_Optimizer
            masters = list(zip(wrapper.fp32_groups_flat, wrapper.fp16_groups))
        elif hasattr(wrapper, "fp32_groups"):  # FP16_UnfusedOptimizer
            masters = [(high, [low]) for pair in zip(
                wrapper.fp32_groups, wrapper.fp16_groups) for high, low in zip(*pair)]
        else:
            return
        with self.torch.no_grad():
            for master, lows in masters:
                master.copy_(self.torch.cat(
                    [low.flatten() for low in lows]).view_as(master))
        wrapper.optimizer.state.clear()
        backward, wrapper_scale = self.engine.backward, self.scale
        self.engine.backward = lambda loss: backward(loss * (wrapper_scale() or 1.0))

    def groups(self):
        groups = self.job.get("param_groups")
        if groups is None:
            return [p for p in self.parameters.values() if p.requires_grad]
        return [
            {**{k: v for k, v in group.items() if k != "names"},
             "params": [self.parameters[name] for name in group["names"]]}
            for group in groups]

    def run(self):
        torch, engine, job = self.torch, self.engine, self.job
        answer = {"losses": [], "grad_norm": [], "lr": [], "scale": [], "applied": [],
                  "global_steps": [], "skipped_steps": []}
        if "load" in job:
            arguments = dict(job["load"])
            keys = arguments.pop("client_keys", [])
            final = arguments.pop("final", None)
            path, state = engine.load_checkpoint(
                arguments.pop("dir"), arguments.pop("tag", None), **arguments)
            answer["load"] = {
                "path": path, "client_state":
                {k: state[k] for k in keys if state and k in state},
                "global_steps": engine.global_steps,
                "skipped_steps": engine.skipped_steps,
                "global_samples": engine.global_samples,
                "lr": engine.get_lr(), "scale": self.scale()}
            if final:
                self.write_final(final)
        engine.train()
        first = job.get("first_step", 0)
        for step in range(first, first + job.get("steps", 0)):
            answer["losses"].append(self.step(step))
            norm = engine.get_global_grad_norm()
            answer["grad_norm"].append(number(norm))
            answer["lr"].append(engine.get_lr())
            answer["scale"].append(self.scale())
            answer["applied"].append(bool(engine.was_step_applied()))
            answer["global_steps"].append(engine.global_steps)
            answer["skipped_steps"].append(engine.skipped_steps)
            for save in job.get("save", []):
                if save["after"] == step + 1:
                    engine.save_checkpoint(
                        save["dir"], save.get("tag"),
                        client_state=save.get("client_state", {}))
                    if "final" in save:
                        self.write_final(save["final"])
        if "final" in job:
            self.write_final(job["final"])
        torch.distributed.barrier()
        engine.destroy()
        return answer

    def step(self, step):
        engine, torch = self.engine, self.torch
        accumulation = engine.gradient_accumulation_steps()
        factor = self.job.get("loss_factors", {}).get(str(step))
        losses = []
        for micro in range(accumulation):
            batch = self.batches[
                (step * accumulation + micro) * self.ranks + self.rank]
            loss = engine(torch.tensor(batch["tokens"]), torch.tensor(batch["targets"]))
            losses.append(loss.item())
            if factor is not None:
                loss = loss * float(factor)
            engine.backward(loss)
            engine.step()
        gathered = [None] * self.ranks
        torch.distributed.all_gather_object(gathered, losses)
        return [[number(of_rank[micro]) for of_rank in gathered]
                for micro in range(accumulation)]

    def scale(self):
        scale = getattr(self.engine.optimizer, "loss_scale", None)
        return 1.0 if scale is None else number(scale)

    def write_final(self, path):
        """All ranks take part; rank 0 writes."""
        from safetensors.torch import save_file

        tensors = {}
        for name, parameter in self.engine.module.named_parameters():
            tensors[f"module.{name}"] = parameter.detach().cpu().clone()
        for name, fp32, states in self.masters():
            tensors[f"fp32.{name}"] = fp32.detach().float().clone()
            for key, value in states.items():
                tensors[f"{key}.{name}"] = value.detach().float().clone()
        if self.rank == 0:
            save_file({k: v.contiguous() for k, v in tensors.items()}, path)

    def masters(self):
        """(name, whole fp32 weight, its whole optimizer states) of each trained
        parameter, whatever wrapper DeepSpeed has chosen."""
        names = {id(p): name for name, p in self.engine.module.named_parameters()}
        optimizer = self.engine.optimizer
        kind = type(optimizer).__name__
        if kind == "DeepSpeedZeroOptimizer":
            for i, flat in enumerate(optimizer.single_partition_of_fp32_groups):
                yield from self.cut(
                    names, optimizer.round_robin_bit16_groups[i], self.whole(flat),
                    {key: self.whole(value) for key, value
                     in optimizer.optimizer.state.get(flat, {}).items()
                     if self.is_state(value) and value.numel() == flat.numel()})
        elif kind == "BF16_Optimizer":
            for i, flat in enumerate(optimizer.fp32_groups_flat_partition):
                yield from self.cut(
                    names, optimizer.bf16_groups[i], self.whole(flat),
                    {key: self.whole(value) for key, value
                     in optimizer.optimizer.state.get(flat, {}).items()
                     if self.is_state(value) and value.numel() == flat.numel()})
        elif kind == "FP16_Optimizer":
            for i, flat in enumerate(optimizer.fp32_groups_flat):
                yield from self.cut(
                    names, optimizer.fp16_groups[i], flat,
                    {key: value for key, value
                     in optimizer.optimizer.state.get(flat, {}).items()
                     if self.is_state(value) and value.numel() == flat.numel()})
        elif kind == "FP16_UnfusedOptimizer":
            for low, high in zip(optimizer.fp16_groups, optimizer.fp32_groups):
                for parameter, master in zip(low, high):
                    yield names[id(parameter)], master, self.states_of(
                        optimizer.optimizer, master)
        else:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield names[id(parameter)], parameter, self.states_of(
                        optimizer, parameter)

    def is_state(self, value):
        return self.torch.is_tensor(value) and value.dim() > 0

    def states_of(self, optimizer, parameter):
        return {key: value for key, value
                in optimizer.state.get(parameter, {}).items()
                if self.is_state(value)}

    def whole(self, partition):
        parts = [self.torch.empty_like(partition) for _ in range(self.ranks)]
        self.torch.distributed.all_gather(parts, partition.detach().contiguous())
        return self.torch.cat(parts)

    @staticmethod
    def cut(names, parameters, flat, states):
        offset = 0
        for parameter in parameters:
            end = offset + parameter.numel()
            yield (names[id(parameter)], flat[offset:end].view(parameter.shape),
                   {key: value[offset:end].view(parameter.shape)
                    for key, value in states.items()})
            offset = end


def plain_operators():
    """Stand-ins for DeepSpeed's compiled Adam, which it would build for minutes:
    the same arithmetic in torch. What calls them stays DeepSpeed's own."""
    from types import SimpleNamespace

    import torch

    from deepspeed.ops.op_builder import CPUAdamBuilder
    from deepspeed.ops.op_builder.cpu import FusedAdamBuilder

    @torch.no_grad()
    def adam(p, g, m, v, lr, beta1, beta2, eps, step, decoupled, correct, decay):
        g = g.float()
        if not decoupled:
            g = g + decay * p
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        first = 1 - beta1**step if correct else 1.0
        second = 1 - beta2**step if correct else 1.0
        update = (m / first) / ((v / second).sqrt() + eps)
        if decoupled:
            update += decay * p
        p.sub_(lr * update)

    def multi_tensor_adam(chunk, overflow, lists, lr, beta1, beta2, eps, step,
                          decoupled, correct, decay):
        for g, p, m, v in zip(*lists):
            adam(p, g, m, v, lr, beta1, beta2, eps, step, decoupled, correct, decay)

    modes = {}

    def create_adam(number, lr, beta1, beta2, eps, decay, decoupled, log):
        modes[number] = decoupled

    def adam_update(number, step, lr, beta1, beta2, eps, decay, correct, p, g, m, v):
        adam(p, g, m, v, lr, beta1, beta2, eps, step, modes[number], correct, decay)

    FusedAdamBuilder.load = lambda self, verbose=True: SimpleNamespace(
        multi_tensor_adam=multi_tensor_adam)
    CPUAdamBuilder.load = lambda self, verbose=True: SimpleNamespace(
        create_adam=create_adam, adam_update=adam_update, destroy_adam=modes.pop)
    # The attribute deepspeed.comm.torch is torch itself.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None


def worker():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what DeepSpeed prints is no answer
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import torch

    import deepspeed
    from deepspeed.accelerator import get_accelerator

    # DeepSpeed asks for processors with instructions for fp16; libtorch computes
    # the same without them.
    get_accelerator().is_fp16_supported = lambda: True
    plain_operators()
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo", verbose=False)
    for line in sys.stdin:
        try:
            answer = Job(deepspeed, json.loads(line)).run()
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("job", nargs="?")
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--worker", action="store_true")
    args = parser.parse_args()
    if args.worker:
        worker()
        return 0
    if args.job:
        job = json.loads(Path(args.job).read_text())
        ranks = Ranks(job.get("ranks", 1))
        answer = ranks.answer(json.dumps(job))
        print(answer)
        ranks.stop()
        return 1 if "error" in json.loads(answer) else 0
    ranks = Ranks(args.ranks)
    for line in sys.stdin:
        print(ranks.answer(line), flush=True)
    ranks.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

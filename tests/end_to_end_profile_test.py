#!/usr/bin/env python3
"""--profile N: the trace that train_bert and train_bert_ds leave, its table, the
speed they tell, and the memory plan against what they took."""

import json
import re
import resource
import socket
import unittest
from pathlib import Path

from ds_support import DsTest
from end_to_end_support import ROOT, metrics, steps_of

LAYERS = 2  # of the small model


class Trace:
    """profile.json, as a viewer reads it."""

    def __init__(self, folder):
        document = json.loads((folder / "profile.json").read_text())
        self.threads = {}  # (pid, tid): name
        self.spans = []  # (name, pid, tid, begin, end), microseconds
        for event in document["traceEvents"]:
            if event["ph"] == "M":
                if event["name"] == "thread_name":
                    self.threads[event["pid"], event["tid"]] = (
                        event["args"]["name"])
                continue
            assert event["ph"] == "X" and event["dur"] >= 0, event
            self.spans.append((
                event["name"], event["pid"], event["tid"], event["ts"],
                event["ts"] + event["dur"]))
        self.ranks = sorted({pid for pid, _ in self.threads})

    def named(self, pattern, rank=0, thread="main"):
        """Those spans in the order of their begin."""
        return sorted(
            (span for span in self.spans if span[1] == rank
             and self.threads[span[1], span[2]] == thread
             and re.fullmatch(pattern, span[0])), key=lambda span: span[3])

    def inside(self, outer, pattern, thread="main"):
        return [span[0] for span in self.named(pattern, outer[1], thread)
                if lies_in(span, outer)]


def lies_in(inner, outer):
    rounding = 0.002  # three decimals
    return (inner[3] >= outer[3] - rounding
            and inner[4] <= outer[4] + rounding)


class ProfileTest(DsTest):
    def assert_nests(self, trace):
        """Spans of a thread lie inside each other or apart."""
        for key in trace.threads:
            spans = sorted((span for span in trace.spans if span[1:3] == key),
                           key=lambda span: (span[3], -span[4]))
            open_spans = []
            for span in spans:
                while open_spans and open_spans[-1][4] <= span[3] + 0.002:
                    open_spans.pop()
                if open_spans:
                    self.assertTrue(lies_in(span, open_spans[-1]),
                                    (span, open_spans[-1]))
                open_spans.append(span)

    def assert_blocks(self, trace, step):
        """Forward and backward of each block, once, in their order."""
        blocks = ["embedding", *(f"layer {i}" for i in range(LAYERS)), "head"]
        self.assertEqual(trace.inside(step, "forward .*"),
                         [f"forward {block}" for block in blocks])
        self.assertEqual(trace.inside(step, "backward .+"),
                         [f"backward {block}" for block in reversed(blocks)])


class TrainBert(ProfileTest):
    def test_spans(self):
        validation = self.folder / "validation.txt"
        validation.write_text("The river runs through Paris and London.\n" * 9)
        run = self.run_program("train_bert", *self.new_flags(
            "--num_iterations=7", "--profile=3", "--checkpoint_every=4",
            "--eval_every=4", "--validation_file", validation))
        folder = self.folder_of(run)
        trace = Trace(folder)
        self.assertEqual(trace.ranks, [0])
        self.assert_nests(trace)
        steps = trace.named(r"step \d+")
        self.assertEqual([span[0] for span in steps],
                         ["step 3", "step 4", "step 5"])
        for step in steps:
            self.assert_blocks(trace, step)
            self.assertEqual(trace.inside(step, "update"), ["update"])
        for name in ("checkpoint", "evaluation"):
            [span] = trace.named(name)
            self.assertGreaterEqual(span[3], steps[1][4] - 0.002)
            self.assertLessEqual(span[4], steps[2][3] + 0.002)
        self.assertTrue(trace.named("make batch", thread="prefetch"))
        self.assertRegex(
            run.err, r"profile of 3 steps from step 3 on: [\d.]+ ms a step, "
            r"[\d,]+ tokens/s, [\d.]+ % of the \d+ GFLOP/s")
        self.assertRegex(
            run.err, rf"(?m)^ +forward layer +{3 * LAYERS} +[\d.]+ +[\d.]+ %$")
        self.assertRegex(run.err, r"Speed +[\d,]+ tokens/s, [\d.]+ % of the")
        self.assertIn("FLOPs utilization", (folder / "report.html").read_text())

    def test_no_step_waits_for_data(self):
        # The default width: its steps leave the prefetch thread time even where
        # other programs have the processor. The first two steps are not traced.
        trace = Trace(self.train(
            "--num_iterations=10", "--profile=8", "--num_layers=6",
            "--num_heads=8", "--ff_dim=512", "--h_dim=256"))
        self.assertEqual(len(trace.named(r"step \d+")), 8)
        self.assertEqual(trace.named("wait for data"), [])

    def test_short_runs_are_taken_from_the_start(self):
        for steps, names in ((9, ["step 1", "step 2", "step 3"]),
                             (2, ["step 2", "step 3"])):
            trace = Trace(self.train("--num_iterations=3", f"--profile={steps}"))
            self.assertEqual(
                [span[0] for span in trace.named(r"step \d+")], names)

    def test_it_changes_nothing_else(self):
        flags = ("--num_iterations=4", "--dtype=bf16")
        plain = self.train(*flags)
        profiled = self.train(*flags, "--profile=2")
        self.assertEqual(metrics(plain), metrics(profiled))
        self.assertFalse((plain / "profile.json").exists())
        self.assertEqual((plain / "hparams.json").read_text(),
                         (profiled / "hparams.json").read_text())

    def test_resume(self):
        folder = self.train("--num_iterations=3", "--profile=1")
        before = (folder / "profile.json").read_bytes()
        run = self.resume(folder, "--num_iterations=6")
        self.assertNotIn("profile of", run.err)
        self.assertRegex(run.err, r"(?m)Speed +[\d,]+ tokens/s$")
        self.assertEqual((folder / "profile.json").read_bytes(), before)
        self.resume(folder, "--num_iterations=9", "--profile=1")
        self.assertEqual(
            [span[0] for span in Trace(folder).named(r"step \d+")], ["step 9"])

    def test_a_file_that_cannot_be_written(self):
        folder = self.train("--num_iterations=1")
        (folder / "profile.json").mkdir()
        (folder / "profile.json" / "file").touch()
        run = self.resume(folder, "--num_iterations=3", "--profile=1")
        self.assertIn("no profile was written", run.err)
        self.assertEqual(steps_of(folder), [1, 3])

    def test_dry_run_writes_nothing(self):
        run = self.run_program(
            "train_bert", *self.new_flags("--dry_run", "--profile=5"))
        self.assertIn("profile of 1 step from step 1 on", run.err)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_values_out_of_range(self):
        self.assert_fails(78, ["profile", "-1"], "train_bert",
                          *self.new_flags("--profile=-1"))

    def test_the_reference_has_no_blocks_in_backward(self):
        trace = Trace(self.train(
            "--num_iterations=2", "--profile=1", "--implementation=reference"))
        [step] = trace.named(r"step \d+")
        self.assertEqual(len(trace.inside(step, "forward .*")), LAYERS + 2)
        self.assertEqual(trace.named("backward .*"), [])


class TrainBertDs(ProfileTest):
    def test_two_ranks(self):
        config = self.folder / "ds_config.json"
        config.write_text(json.dumps({
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "optimizer": {"type": "Adam", "params": {"lr": 1e-4}},
            "bf16": {"enabled": True},
            # The decoder, which is the words' embedding too, is one by itself.
            "zero_optimization": {"stage": 1, "reduce_bucket_size": 100_000}}))
        run = self.run_ranks(2, *self.new_flags(
            "--num_iterations=5", "--profile=2", "--deepspeed_config", config,
            "--gradient_accumulation_steps=2"))
        trace = Trace(self.folder_of(run))
        self.assertEqual(trace.ranks, [0, 1])
        self.assert_nests(trace)
        for rank in trace.ranks:
            steps = trace.named(r"step \d+", rank)
            self.assertEqual([span[0] for span in steps], ["step 3", "step 4"])
            for step in steps:
                self.assertEqual(
                    trace.inside(step, "backward"), ["backward"] * 2)
                for name in ("wait for reductions", "gradient norm", "update",
                             "gather"):
                    self.assertEqual(trace.inside(step, name), [name])
                reductions = trace.inside(
                    step, r"reduce bucket \d+", "communication")
                self.assertEqual(
                    reductions,
                    [f"reduce bucket {i}" for i in range(len(reductions))])
                self.assertGreater(len(reductions), 2)
                self.assert_order(trace, step)
        self.assertRegex(
            run.err, r"reduction: [\d.]+ ms a step, \d+ % of it while backward")

    def assert_order(self, trace, step):
        """Reductions begin in the last backward, and are waited for."""
        rank = step[1]
        last = [span for span in trace.named("backward", rank)
                if lies_in(span, step)][-1]
        [wait] = [span for span in trace.named("wait for reductions", rank)
                  if lies_in(span, step)]
        for span in trace.named(r"reduce bucket \d+", rank, "communication"):
            if lies_in(span, step):
                self.assertGreaterEqual(span[3], last[3])
                self.assertLessEqual(span[3], wait[4])

    def test_ranks_must_agree(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = self.environment
        ranks = []
        for rank in (0, 1):
            self.environment = dict(
                shared, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port))
            ranks.append(self.launch("train_bert_ds", *self.new_flags(
                "--num_iterations=2", f"--profile={rank + 1}")))
        run = self.finish(ranks[0], code=78)
        self.assertIn("ranks differ in the settings", run.err)
        self.finish(ranks[1], code=78)


class MemoryPlan(DsTest):
    """The default model on the packaged text. Peaks are those of ten steps."""

    TEXT = ROOT / "data" / "encyclopedia" / "train.txt"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        maker = cls()
        maker.folder = cls.shared
        maker.run_program(  # the token cache: tokenizing takes memory, too
            "train_bert", "--dry_run", "--num_layers=1", "--h_dim=8",
            "--ff_dim=8", "--dataset", cls.TEXT)
        maker.doCleanups()

    def plan_and_peak(self, run):
        """Bytes that were planned, and the most that the process has had."""
        plan = re.search(r"memory plan: .* total (\d+) MB", run.err)
        record = json.loads((self.folder_of(run) / "metrics.jsonl")
                            .read_text().splitlines()[-1])
        return int(plan.group(1)) * 1e6, record["peak_memory_bytes"]

    def flags(self, *flags):
        return ("--checkpoint_dir", self.folder / "runs", "--dataset", self.TEXT,
                "--num_iterations=10", "--log_every=10", *flags)

    def assert_right(self, name, plan, peak, tolerance):
        print(f"{name}: planned {plan / 1e6:.0f} MB, took {peak / 1e6:.0f} MB",
              flush=True)
        self.assertLess(abs(plan - peak) / peak, tolerance, name)

    @staticmethod
    def bf16_tolerance():
        """libtorch multiplies bf16 itself where the CPU can, with buffers of its
        own that the plan knows nothing of."""
        flags = Path("/proc/cpuinfo").read_text().split()
        return 0.2 if {"avx512_bf16", "amx_bf16"} & set(flags) else 0.1

    def test_train_bert(self):
        for dtype, tolerance in (("fp32", 0.1), ("bf16", self.bf16_tolerance())):
            run = self.run_program(
                "train_bert", *self.flags(f"--dtype={dtype}"))
            plan, peak = self.plan_and_peak(run)
            self.assert_right(dtype, plan, peak, tolerance)
            # What is logged is what the system counts.
            most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            self.assertLess(peak, most * 1.01)

    def test_train_bert_ds(self):
        for stage in (0, 1, 2):
            run = self.run_ranks(2, *self.flags(f"--zero_stage={stage}"))
            self.assert_right(f"2 ranks, stage {stage}", *self.plan_and_peak(run),
                              self.bf16_tolerance())

    def test_larger_batch(self):
        run = self.run_program("train_bert", *self.flags(
            "--batch_size=32", "--num_iterations=4", "--log_every=4"))
        self.assert_right("batch 32", *self.plan_and_peak(run), 0.15)

    def test_small_model(self):
        run = self.run_program("train_bert", *self.flags(
            "--num_layers=2", "--num_heads=4", "--ff_dim=64", "--h_dim=64"))
        self.assert_right("small", *self.plan_and_peak(run), 0.25)


if __name__ == "__main__":
    unittest.main(verbosity=2)

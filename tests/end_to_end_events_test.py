#!/usr/bin/env python3
"""What TensorBoard shows of a run that was killed and went on: each point once,
whoever writes the event files."""

import json
import signal
import struct
import subprocess
import unittest

from ds_support import FP32, DsTest, latest
from end_to_end_support import ROOT, metrics, steps_of

PEERS = ROOT / ".peers" / "bin" / "python"
READ_EVENTS = """
import sys
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator)
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
print([point.step for point in events.Scalars(sys.argv[2])])
"""


def fields(message):
    """{number: value} of a message of protocol buffers."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at += 1
            if message[at - 1] < 128:
                return value, at
            shift += 7
    found, at = {}, 0
    while at < len(message):
        key, at = varint(at)
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            found[key >> 3], at = varint(at)
            continue
        if size is None:
            size, at = varint(at)
        found[key >> 3] = message[at:at + size]
        at += size
    return found


def points(folder, tag):
    """The steps of a curve as TensorBoard reads them: file by file; at a
    SessionLog START it drops what it has of that step and later ones."""
    steps = []
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at + 16 <= len(data):
            [length] = struct.unpack_from("<Q", data, at)
            event = fields(data[at + 12:at + 12 + length])
            at += 16 + length
            step = event.get(2, 0)
            if 7 in event and fields(event[7]).get(1) == 1:
                steps = [other for other in steps if other < step]
            value = fields(fields(event.get(5, b"")).get(1, b""))
            if value.get(1) == tag.encode():
                steps.append(step)
    return steps


class EventsTest(DsTest):
    def assert_once(self, folder, tag, steps):
        self.assertEqual(points(folder, tag), steps)
        if PEERS.exists():
            shown = subprocess.run(
                [PEERS, "-c", READ_EVENTS, folder, tag], text=True,
                capture_output=True, check=True)
            self.assertEqual(shown.stdout.strip(), str(steps))

    def test_train_bert_killed_after_a_checkpoint(self):
        process, folder = self.launch_train(
            "--num_iterations=100000", "--checkpoint_every=10")
        self.wait(process, lambda: steps_of(folder)
                  and max(metrics(folder), default=0) >= max(steps_of(folder)) + 3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        saved = max(steps_of(folder))
        before = points(folder / "tb_dir", "Train/loss")
        self.assertGreater(max(before), saved)
        self.resume(folder, f"--num_iterations={saved + 5}")
        self.assert_once(
            folder / "tb_dir", "Train/loss", list(range(1, saved + 6)))

    def monitored(self):
        path = self.folder / "ds_config.json"
        path.write_text(json.dumps({
            "train_micro_batch_size_per_gpu": "auto",
            "tensorboard": {"enabled": True, "output_path": str(self.folder),
                            "job_name": "curves"}}))
        return f"--deepspeed_config={path}"

    def test_the_engines_monitor_after_a_kill(self):
        curves, tag = self.folder / "curves", "Train/Samples/lr"
        process, folder = self.launch_new(
            1, *FP32, self.monitored(), "--num_iterations=100000",
            "--checkpoint_every=10")
        self.wait(process, lambda: (folder / "latest").exists() and max(
            metrics(folder), default=0) >= saved_step(folder) + 3)
        self.end_all()
        process.communicate()
        saved = saved_step(folder)
        batch = points(curves, tag)[0]
        self.assertGreater(points(curves, tag)[-1], saved * batch)
        self.resume_ranks(1, folder, f"--num_iterations={saved + 5}")
        self.assert_once(
            curves, tag, [batch * step for step in range(1, saved + 6)])

    def test_the_engines_monitor_before_a_checkpoint(self):
        curves, tag = self.folder / "curves", "Train/Samples/lr"
        process, folder = self.launch_new(
            1, *FP32, self.monitored(), "--num_iterations=100000",
            "--checkpoint_every=100000")
        self.wait_for_step(process, folder, 3)
        self.end_all()
        process.communicate()
        batch = points(curves, tag)[0]
        self.train_ranks(1, *FP32, self.monitored(), "--num_iterations=2")
        self.assert_once(curves, tag, [batch, 2 * batch])


def saved_step(folder):
    return int(latest(folder).removeprefix("global_step"))


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""The sequences of a step are dealt to its micro batches by their lengths, the
same way for every division into ranks and accumulation; experiments of before
that go on as they began."""

import array
import json
import operator
import struct
import unittest

from ds_support import FP32, DsTest, losses, metrics

FOUR = (*FP32, "--num_iterations=4", "--checkpoint_every=2")


def weights(folder):
    """All numbers of an exported model."""
    data = (folder / "model.safetensors").read_bytes()
    numbers = array.array("f")
    numbers.frombytes(data[8 + struct.unpack("<Q", data[:8])[0]:])
    return numbers


def make_older(folder):
    """hparams.json of before balance_batches."""
    path = folder / "hparams.json"
    stored = json.loads(path.read_text())
    del stored["as_written"], stored["as_written_crc32c"]
    del stored["balance_batches"]
    path.write_text(json.dumps(stored, indent=2))


class Divisions(DsTest):
    def train(self, ranks, accumulation):
        exported = self.folder / f"exported_{ranks}_{accumulation}"
        folder = self.train_ranks(
            ranks, *FOUR, "--batch_size=2",
            f"--gradient_accumulation_steps={accumulation}",
            "--export", exported)
        return losses(folder), weights(exported)

    def check(self, *divisions):
        """Dropout is on."""
        expected, expected_weights = self.train(*divisions[0])
        for division in divisions[1:]:
            found, found_weights = self.train(*division)
            self.assert_close(found, expected)
            self.assertLess(
                max(map(abs, map(
                    operator.sub, found_weights, expected_weights))), 1e-5)

    def test_two_micro_batches(self):
        self.check((1, 2), (2, 1))

    def test_three_micro_batches(self):
        self.check((1, 3), (3, 1))

    def test_four_micro_batches(self):
        self.check((1, 4), (2, 2), (4, 1))


class OlderExperiments(DsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.train_shared(2, *FOUR, "--no_balance_batches")

    def test_go_on_in_their_order(self):
        folder = self.rewound(self.whole, 2)
        make_older(folder)
        run = self.resume_ranks(2, folder)
        self.assertIn("in the order of the samples", run.out + run.err)
        self.assertNotIn("changed", run.err)
        self.assert_same_run(self.whole, folder, 4)
        stored = json.loads((folder / "hparams.json").read_text())
        self.assertIs(stored["balance_batches"], False)

    def test_go_on_balanced_if_they_are_told_to(self):
        folder = self.rewound(self.whole, 2)
        make_older(folder)
        run = self.resume_ranks(2, folder, "--balance_batches")
        self.assertIn("changed: balance_batches false -> true", run.err)
        self.assertIn("balanced by tokens", run.out + run.err)
        balanced = metrics(folder)
        for step, record in metrics(self.whole).items():
            check = self.assertNotEqual if step > 2 else self.assertEqual
            check(balanced[step]["loss"], record["loss"])

    def test_new_ones_are_balanced(self):
        folder = self.train_ranks(2, *FOUR)
        stored = json.loads((folder / "hparams.json").read_text())
        self.assertIs(stored["balance_batches"], True)
        self.assertNotEqual(losses(folder), losses(self.whole))

    def test_one_micro_batch_is_the_same_either_way(self):
        one = self.train_ranks(1, *FOUR)
        other = self.train_ranks(1, *FOUR, "--no_balance_batches")
        self.assert_same_run(one, other, 4)


if __name__ == "__main__":
    unittest.main()

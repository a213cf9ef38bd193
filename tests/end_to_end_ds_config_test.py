#!/usr/bin/env python3
"""train_bert_ds with a ds_config.json: what the file decides, what contradicts
it, and what is refused by name."""

import json
import unittest

from ds_support import FP32, DsTest, losses, metrics, shards
from end_to_end_support import ROOT

BATCH = {"train_micro_batch_size_per_gpu": 8}
ADAM = {"optimizer": {"type": "Adam", "params": {"lr": 1e-4}}}


class ConfigTest(DsTest):
    def config(self, text):
        path = self.folder / "ds_config.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text, indent=1))
        return f"--deepspeed_config={path}"

    def refused(self, code, words, *flags, ranks=1):
        """Before a folder is made."""
        run = self.assert_error(code, words, ranks, *self.new_flags(*flags))
        self.assertFalse((self.folder / "runs").exists())
        return run


class Files(ConfigTest):
    def test_hellodeepspeeds_dictionary_is_the_default(self):
        flag = self.config({
            **BATCH, **ADAM, "bf16": {"enabled": True},
            "zero_optimization": {
                "stage": 1, "offload_optimizer": {"device": "cpu"}}})
        with_file = self.train_ranks(2, flag, "--num_iterations=3")
        without = self.train_ranks(2, "--num_iterations=3")
        self.assertEqual(metrics(with_file), metrics(without))

    def test_auto_is_what_the_flags_say(self):
        flag = self.config("""{
            // Comments and a last comma may be there.
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "optimizer": {"type": "AdamW", "params": {
                "lr": "auto", "betas": "auto", "eps": "auto",
                "weight_decay": "auto"}},
            "fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"},
        }""")
        folder = self.train_ranks(
            2, flag, "--num_iterations=2", "--batch_size=3",
            "--gradient_accumulation_steps=2", "--learning_rate=0.002",
            "--max_grad_norm=0.5")
        hparams = json.loads((folder / "hparams.json").read_text())
        expected = {
            "batch_size": 3, "gradient_accumulation_steps": 2,
            "learning_rate": 0.002, "max_grad_norm": 0.5, "zero_stage": 2,
            "dtype": "bf16"}
        self.assertEqual({key: hparams[key] for key in expected}, expected)
        self.assertEqual(metrics(folder)[1]["lr"], 0.002)

    def test_a_public_file_for_transformers(self):
        """tests/ds_configs holds more, which pretrain_test reads."""
        path = ROOT / "tests" / "ds_configs" / "trainer_zero2.json"
        folder = self.train_ranks(
            2, f"--deepspeed_config={path}", "--num_iterations=4",
            "--dtype=fp16", "--warmup_steps=3", "--learning_rate=0.01")
        rates = [record["lr"] for _, record in sorted(metrics(folder).items())]
        self.assertEqual(rates[0], 0)
        self.assertEqual(rates[-1], 0.01)

    def test_the_file_decides(self):
        flag = self.config({
            "train_batch_size": 12, "train_micro_batch_size_per_gpu": 2,
            "optimizer": {"type": "SGD", "params": {"lr": 0.5}}})
        folder = self.train_ranks(2, flag, "--num_iterations=2")
        hparams = json.loads((folder / "hparams.json").read_text())
        self.assertEqual(
            [hparams[key] for key in (
                "batch_size", "gradient_accumulation_steps", "dtype",
                "zero_stage", "learning_rate")],
            [2, 3, "fp32", 0, 0.5])
        [shard] = list(folder.glob("global_step2/*.pt"))
        self.assertEqual(shard.name, "mp_rank_00_model_states.pt")

    def test_scheduler(self):
        flag = self.config({
            **BATCH, **ADAM, "scheduler": {"type": "WarmupLR", "params": {
                "warmup_min_lr": 0, "warmup_max_lr": 0.01,
                "warmup_num_steps": 4, "warmup_type": "linear"}}})
        folder = self.train_ranks(2, flag, "--num_iterations=6")
        rates = [record["lr"] for _, record in sorted(metrics(folder).items())]
        self.assertEqual(rates[0], 0)
        self.assertEqual(rates, sorted(rates))
        self.assertAlmostEqual(rates[-1], 0.01)
        self.refused(
            78, ["lr_scheduler_type", "scheduler"], flag,
            "--lr_scheduler_type=linear", "--checkpoint_dir",
            self.folder / "runs")

    def refused(self, code, words, *flags, ranks=1):
        return self.assert_error(code, words, ranks, *self.new_flags(*flags))

    def test_resume_keeps_the_file(self):
        flag = self.config({**BATCH, **ADAM, "gradient_clipping": 0.25})
        folder = self.train_ranks(2, flag, "--num_iterations=2")
        whole = self.train_ranks(2, flag, "--num_iterations=4")
        self.resume_ranks(2, folder, "--num_iterations=4")
        self.assertEqual(losses(folder), losses(whole))


class Refused(ConfigTest):
    def test_contradiction_with_a_flag(self):
        flag = self.config({**BATCH, **ADAM})
        self.refused(
            78, ["--batch_size 4", "says 8", "ds_config.json", "auto"], flag,
            "--batch_size=4")
        for name, value, other in (("dtype", "bf16", "fp32"),
                                   ("zero_stage", "2", "0"),
                                   ("offload_optimizer", "cpu", "none")):
            self.refused(
                78, [f"--{name} {value}, but the configuration says {other}"],
                flag, f"--{name}={value}")

    def test_unknown_key(self):
        flag = self.config(
            '{\n "train_micro_batch_size_per_gpu": 8,\n'
            ' "gradient_acumulation_steps": 2\n}')
        self.refused(
            78, ["gradient_acumulation_steps", "gradient_accumulation_steps",
                 "ds_config.json:3"], flag)

    def test_what_comes_later(self):
        stage_3 = {"zero_optimization": {"stage": 3}}
        self.refused(
            78, ["stage 3", "not implemented yet"], self.config({**BATCH, **ADAM, **stage_3}))
        self.refused(78, ["stage 3", "not implemented yet"], "--zero_stage=3")
        nvme = {"zero_optimization": {
            "stage": 1, "offload_optimizer": {
                "device": "nvme", "nvme_path": "/tmp"}}}
        self.refused(
            78, ["NVMe", "not implemented yet"], self.config({**BATCH, **ADAM, **nvme}))
        self.refused(78, ["offload_optimizer", "nvme"], "--offload_optimizer=nvme")

    def test_out_of_range(self):
        self.refused(78, ["zero_stage", "4"], "--zero_stage=4")
        self.refused(78, ["zero_stage", "-1"], "--zero_stage=-1")

    def test_batch_equation(self):
        flag = self.config({
            "train_batch_size": 10, "train_micro_batch_size_per_gpu": 4, **ADAM})
        self.refused(78, ["10", "4", "2", "ds_config.json"], flag, ranks=2)

    def test_broken_files(self):
        for text, words in (
                ("{", ["ds_config.json"]),
                ("[]", ["ds_config.json"]),
                ('{"train_batch_size": 8, "train_batch_size": 8}',
                 ["duplicate", "train_batch_size"]),
                ('{"train_batch_size": "8"}', ["train_batch_size"]),
                ('{"train_batch_size": -8}', ["train_batch_size", "-8"]),
                ('{"gradient_clipping": NaN}', ["ds_config.json:1"]),
                ('{"gradient_clipping": 1e400}', ["ds_config.json:1"])):
            with self.subTest(text):
                self.refused(78, words, self.config(text))
        missing = self.folder / "missing.json"
        self.refused(66, [missing], f"--deepspeed_config={missing}")

    def test_an_error_of_all_ranks_is_told_once(self):
        for flag, code in (("--zero_stage=7", 78), ("--h_dim=66", 78),
                           ("--dataset=nowhere", 66), ("--nonsense=1", 64)):
            # The others wait for rank 0's end, on a busy machine in vain.
            counts = [self.errors_told(flag, code)]
            while counts[-1] > 1 and len(counts) < 4:
                counts.append(self.errors_told(flag, code))
            self.assertEqual(counts[-1], 1, flag)

    def errors_told(self, flag, code):
        run = self.run_ranks(3, *self.new_flags(flag), code=code)
        # The launcher does not repeat what stands right above.
        self.assertNotIn("last lines", run.err)
        return sum(line.startswith("error: ")
                   and not line.startswith("error: rank ")
                   for line in run.err.splitlines())

    def test_ranks_that_disagree(self):
        """Row 28: another configuration on one of the ranks."""
        script = self.folder / "disagree.sh"
        script.write_text(
            '#!/bin/sh\nprogram=$1; shift\n'
            '[ "$RANK" = 1 ] && set -- "$@" --learning_rate=0.5\n'
            'exec "$program" "$@"\n')
        script.chmod(0o755)
        from end_to_end_support import BIN
        run = self.run_program(
            "deepspeed", "--num_gpus", 2, "--no_local_rank", script,
            BIN / "train_bert_ds", *self.new_flags(*FP32), code=78)
        self.assertIn("learning_rate", run.err)
        self.assertRegex(run.err, "ranks? .*1")
        self.assertFalse((self.folder / "runs").exists())

    def test_nccl_without_a_gpu(self):
        """CUDA_VISIBLE_DEVICES hides GPUs where there are some."""
        self.environment["DS_COMM"] = "nccl"
        for ranks in (1, 2):
            self.refused(
                78, ["error: ", "NCCL is asked for, but libtorch", "DS_COMM=nccl",
                     "hint: ", "summed in host memory"], ranks=ranks)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Tests of tools/setup.sh with stand-ins for apt-get, sudo and pip: no network."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Each stand-in writes its command line to $CALLS.
STAND_INS = {
    "dpkg-query": """
for name in "$@"; do
  case $name in -*|'$'*) ;; "$MISSING") ;; *) echo "ii $name" ;; esac
done""",
    "apt-get": 'echo "apt-get $*" >>"$CALLS"; [ "$BROKEN" != apt ]',
    "sudo": 'echo sudo >>"$CALLS"; exec "$@"',
    "id": "echo 1000",
    # 'python3 -m venv --clear DIR' makes DIR/bin/python, which plays pip.
    "python3": """
echo "python3 $*" >>"$CALLS"
mkdir -p "$4/bin"
cp "$BIN/pip" "$4/bin/python"
""",
    "pip": """
echo "pip $*" >>"$CALLS"
[ "$BROKEN" != pip ] || { echo "no route to the index"; exit 1; }
while [ $# -gt 0 ] && [ "$1" != --target ]; do shift; done
[ $# -gt 0 ] || exit 0
for name in torch-2.15.0.dist-info nvidia_cuda_runtime-13.2.86.dist-info \
    nvidia_cuda_cupti-13.2.86.dist-info torch/lib; do
  mkdir -p "$2/$name"
  touch "$2/$name/RECORD"
done
touch "$2/torch/lib/libtorch_cpu.so"
mkdir -p "$2/nvidia/nccl/include" "$2/nvidia/nccl/lib"
touch "$2/nvidia/nccl/include/nccl.h" "$2/nvidia/nccl/lib/libnccl.so.2"
""",
}


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "setup.sh", self.root / "tools")
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for name, body in STAND_INS.items():
            (self.bin / name).write_text("#!/bin/sh\n" + body + "\n")
            (self.bin / name).chmod(0o755)
        self.site = self.root / ".deps" / "site"

    def setup(self, *options, **variables):
        """Runs the script; returns (exit code, its output, calls of stand-ins)."""
        calls = self.root / "calls"
        calls.write_text("")
        environment = {
            "PATH": "%s:%s" % (self.bin, os.environ["PATH"]),
            "BIN": str(self.bin),
            "CALLS": str(calls),
            "MISSING": "",
            "BROKEN": "",
            **variables,
        }
        result = subprocess.run(
            [str(self.root / "tools" / "setup.sh"), *options],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=60,
        )  # fmt: skip
        return result.returncode, result.stdout, calls.read_text()

    def test_all_is_installed_once(self):
        code, _, calls = self.setup()
        self.assertEqual(code, 0)
        self.assertIn("torch==2.15.0", calls)
        self.assertNotIn("apt-get", calls)
        self.assertTrue((self.site / "torch/lib/libtorch_cpu.so").exists())
        self.assertEqual(self.setup(), (0, "setup: all is there\n", ""))

    def test_missing_packages_are_installed_through_sudo(self):
        code, output, calls = self.setup(MISSING="cmake")
        self.assertEqual(code, 0)
        self.assertIn("installing Debian packages: cmake\n", output)
        self.assertRegex(calls, r"sudo\napt-get .*update\nsudo\napt-get .* cmake\n")

    def test_options_add_packages(self):
        self.assertNotIn("apt-get", self.setup(MISSING="clang")[2])
        self.assertIn(" clang\n", self.setup("--with-fuzz", MISSING="clang")[2])
        self.assertIn("clang-tidy", self.setup("--with-lint", MISSING="clang-tidy")[2])
        code, output, _ = self.setup("--with-everything")
        self.assertEqual(code, 64)
        self.assertIn("--with-everything", output)

    def test_headers_of_cuda_only_when_asked_for(self):
        self.assertNotIn("nccl", self.setup()[2])
        code, output, calls = self.setup("--with-cuda")
        self.assertEqual(code, 0)
        self.assertRegex(output, r"headers of CUDA 13\.2 and NCCL 2\.30\.7")
        self.assertIn("nvidia-nccl-cu13==2.30.7", calls)
        headers = self.root / ".deps/cuda/nvidia/nccl"
        self.assertTrue((headers / "include/nccl.h").exists())
        self.assertFalse((headers / "lib").exists())
        self.assertEqual(
            self.setup("--with-cuda"), (0, "setup: all is there\n", ""))

    def test_no_network(self):
        code, output, _ = self.setup(MISSING="cmake", BROKEN="apt")
        self.assertEqual(code, 69)
        self.assertIn("apt-get update failed\nsetup: is there a network?", output)
        code, output, _ = self.setup(BROKEN="pip")
        self.assertEqual(code, 69)
        self.assertIn("no route to the index", output)
        self.assertFalse(self.site.exists())
        self.assertEqual(self.setup()[0], 0)
        self.assertTrue(self.site.exists())

    def test_a_half_finished_installation_is_repaired(self):
        self.setup()
        (self.site / "torch-2.15.0.dist-info/RECORD").unlink()
        (self.root / ".deps/site.new").mkdir()
        (self.root / ".deps/site.new/half").touch()
        code, _, calls = self.setup()
        self.assertEqual(code, 0)
        self.assertIn("torch==2.15.0", calls)
        self.assertTrue((self.site / "torch-2.15.0.dist-info/RECORD").exists())
        self.assertFalse((self.root / ".deps/site.new").exists())
        self.assertFalse((self.site / "half").exists())

    def test_torch_that_is_there_already_is_taken(self):
        self.setup()
        (self.root / ".deps/stamp").unlink()
        code, _, calls = self.setup()
        self.assertEqual(code, 0)
        self.assertNotIn("torch==", calls)

    def test_own_libtorch(self):
        code, output, _ = self.setup(TORCH_ROOT=str(self.root))
        self.assertEqual(code, 66)
        self.assertIn(str(self.root), output)
        (self.root / "lib").mkdir()
        (self.root / "lib/libtorch_cpu.so").touch()
        code, _, calls = self.setup(TORCH_ROOT=str(self.root))
        self.assertEqual(code, 0)
        self.assertNotIn("torch==", calls)


if __name__ == "__main__":
    unittest.main()

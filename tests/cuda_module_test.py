#!/usr/bin/env python3
"""Whether libdeepspeed_cuda.so will find every symbol once a program has loaded
libtorch_cuda.so, checked without a GPU and without the libraries of CUDA.

usage: cuda_module_test.py MODULE TORCH_ROOT

The object is opened after libtorch_cuda.so, which brings libcudart and libnccl.
What libtorch_cuda.so itself asks those for is there, then; of the C and C++
libraries all is there. Anything else would fail on a user's machine.
"""

import pathlib
import subprocess
import sys
import unittest

ENTRY = "deepspeed_cuda_module"
SYSTEM = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1",
          "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")


def symbols(path, kind):
    """Names of the dynamic symbols, without versions: {name: types}."""
    output = subprocess.run(
        ["nm", "--dynamic", "--" + kind, str(path)],
        check=True, capture_output=True, text=True).stdout
    found = {}
    for line in output.splitlines():
        *_, type_, name = line.split()
        found.setdefault(name.split("@")[0], set()).add(type_)
    return found


def system_libraries():
    for name in SYSTEM:
        path = subprocess.run(
            ["c++", "-print-file-name=" + name],
            check=True, capture_output=True, text=True).stdout.strip()
        if pathlib.Path(path).is_absolute():
            yield path


class CudaModuleTest(unittest.TestCase):
    def test_every_symbol_will_be_found(self):
        there = set()
        for library in system_libraries():
            there |= set(symbols(library, "defined-only"))
        self.assertIn("memcpy", there)
        asked = symbols(LIBTORCH_CUDA, "undefined-only")
        there |= {name for name in asked if name.startswith(("nccl", "cuda"))}
        self.assertIn("ncclSend", there)
        wanted = symbols(MODULE, "undefined-only")
        self.assertEqual(
            [name for name, types in wanted.items()
             if "U" in types and name not in there], [])
        self.assertIn("ncclSend", wanted)

    def test_it_offers_its_entry_alone(self):
        self.assertEqual(
            [name for name, types in symbols(MODULE, "defined-only").items()
             if types & {"T", "D", "B"}], [ENTRY])

    def test_it_is_linked_to_nothing_of_cuda(self):
        output = subprocess.run(
            ["readelf", "--dynamic", "--wide", str(MODULE)],
            check=True, capture_output=True, text=True).stdout
        for line in output.splitlines():
            if "(NEEDED)" in line:
                self.assertTrue(any(name in line for name in SYSTEM), line)


if __name__ == "__main__":
    LIBTORCH_CUDA = pathlib.Path(sys.argv.pop()) / "lib" / "libtorch_cuda.so"
    MODULE = pathlib.Path(sys.argv.pop())
    unittest.main()

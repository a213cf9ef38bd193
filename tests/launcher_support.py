"""What the tests of the launcher share: ranks made of small scripts, runs of
`deepspeed`, and a look at which processes are left.

The program is taken from the folder in DS_BIN, or from build/bin.
"""

import os
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("DS_BIN", ROOT / "build" / "bin")).resolve()
PATIENCE = 60  # seconds

# As ssh does: the words behind the host go to a shell of that host, in a clean
# environment. What is asked of some hosts fails in well-known ways.
SSH = """
echo "$@" >> "{folder}/ssh.log"
while [ "$1" != -- ]; do shift; done
host=$2
shift 2
case $host in
denied) echo "$host: Permission denied (publickey)." >&2; exit 255;;
key) echo "Host key verification failed." >&2; exit 255;;
slow) exec sleep 1000;;
down) if [ -e "{folder}/is_down" ]; then
  echo "$host: no route to host" >&2; exit 255
fi;;
greets) printf "Welcome to $host";;
cut) cd /; exec env -i TEST_MARK=$TEST_MARK DS_ACCELERATOR=cpu PATH=/usr/bin:/bin \
  TEST_HOST=$host python3 "{folder}/network.py" sh -c "$*";;
empty) exec env -i TEST_MARK=$TEST_MARK sh -c 'no_such_program';;
esac
cd /
exec env -i HOME=/ TEST_MARK=$TEST_MARK DS_ACCELERATOR=cpu PATH=/usr/bin:/bin \\
  TEST_HOST=$host sh -c "$*"
"""


class LauncherTest(unittest.TestCase):
    """self.folder is new for each test. Every process of a test carries a mark
    in its environment, by which it is found wherever it went."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="launcher.")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.mark = uuid.uuid4().hex
        self.environment = {
            name: value for name, value in os.environ.items()
            if name not in ("OMP_NUM_THREADS", "DS_ENV_FILE")}
        self.environment |= {"TEST_MARK": self.mark, "DS_ACCELERATOR": "cpu",
                             "HOME": str(self.folder)}
        self.addCleanup(self.end_all)

    def end_all(self):
        for pid in self.processes():
            os.kill(pid, 9)

    def processes(self):
        """The processes of this test that are alive."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (f"TEST_MARK={self.mark}".encode()
                        in (path / "environ").read_bytes().split(b"\0")):
                    found.append(int(path.name))
            except OSError:
                pass
        return found

    def assert_all_gone(self, seconds=0.0):
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        left = [pathlib.Path(f"/proc/{pid}/cmdline").read_text()
                for pid in self.processes()]
        self.assertEqual(left, [])

    def script(self, name, text):
        """An executable sh script; `name` may have folders."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path

    def python(self, name, text):
        path = self.folder / name
        path.write_text("import os, signal, sys, time\n"
                        "rank = int(os.environ['RANK'])\n" + text)
        return path

    def start(self, *arguments, program=BIN / "deepspeed", **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                   "stdin": subprocess.DEVNULL, "cwd": self.folder,
                   "env": self.environment} | options
        process = subprocess.Popen(
            [str(program), *map(str, arguments)], text=True, **options)
        self.addCleanup(self.close, process)
        return process

    @staticmethod
    def close(process):
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None:
                stream.close()

    def finish(self, process, code=0, gone_within=0.0):
        """Waits for the end; process.out and process.err are what it printed,
        process.seconds how long this took. Nothing may be left running, or
        only for so many seconds."""
        start = time.monotonic()
        process.out, process.err = process.communicate(timeout=PATIENCE)
        process.seconds = time.monotonic() - start
        self.assertEqual(
            process.returncode, code, f"{process.out}\n{process.err}")
        self.assert_all_gone(gone_within)
        return process

    def run_launcher(self, *arguments, code=0, **options):
        return self.finish(self.start(*arguments, **options), code)

    def wait_for_files(self, *names):
        """Until ranks have made these files in the folder of the test."""
        deadline = time.monotonic() + PATIENCE
        while not all((self.folder / name).exists() for name in names):
            self.assertLess(time.monotonic(), deadline, f"no {names}")
            time.sleep(0.005)

    def assert_error(self, code, words, *arguments, **options):
        """One error of the launcher itself; no rank has run."""
        run = self.run_launcher(*arguments, code=code, **options)
        self.assertTrue(run.err.count("error: ") == 1, run.err)
        for word in words:
            self.assertIn(str(word), run.err)
        self.assertEqual(run.out, "")
        return run


class HostsTest(LauncherTest):
    def setUp(self):
        super().setUp()
        self.script("path/ssh", SSH.format(folder=self.folder))
        self.environment["PATH"] = f"{self.folder}/path:" + os.environ["PATH"]
        self.hosts("w0 slots=1", "w1 slots=2")

    def hosts(self, *lines):
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")

    def finish(self, process, code=0, gone_within=3.0):
        """What runs on other hosts ends a moment after the launcher."""
        return super().finish(process, code, gone_within)

    def on_hosts(self, *arguments):
        return ("-H", "hosts", *arguments)

    @staticmethod
    def other_port():
        with socket.create_server(("", 0)) as server:
            return server.getsockname()[1]

#!/usr/bin/env python3
"""`deepspeed` when something of it is lost, cut off, paused or not there yet:
the other side notices, restarts wait, nothing is left behind."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest

from launcher_support import BIN, HostsTest, LauncherTest

READY = "open(f'ready{rank}', 'w').close()\n"
SLEEP = READY + "time.sleep(1000)\n"
# A connection that can be cut: when the file `cut` is there, nothing comes
# through any more, and no end of a stream either. It does not belong to the
# process that stands for ssh, which the launcher may kill.
NETWORK = """
import os, select, subprocess, sys
cut = os.path.join(os.path.dirname(sys.argv[0]), 'cut')
if os.fork():
    for fd in (0, 1, 2):
        os.close(fd)
    select.select([], [], [])
os.setsid()
agent = subprocess.Popen(sys.argv[1:], stdin=-1, stdout=-1, stderr=-1,
                         start_new_session=True)
routes = {0: agent.stdin.fileno(), agent.stdout.fileno(): 1,
          agent.stderr.fileno(): 2}
while agent.poll() is None:
    if os.path.exists(cut):
        agent.wait()
        break
    for fd in select.select(list(routes), [], [], 0.05)[0]:
        if os.path.exists(cut):
            break
        data = os.read(fd, 65536)
        if data:
            os.write(routes[fd], data)
        else:
            os.close(routes.pop(fd)) if fd == 0 else routes.pop(fd)
"""
# Rank 0 says what it finds in DS_RESUME_FILE, and writes its own.
NOTE = """
count = int(os.environ['DS_RESTART_COUNT'])
note = os.environ['DS_RESUME_FILE']
if rank == 0:
    print('start', count, 'after', open(note).read() or 'nothing', flush=True)
    if count == 0:
        open(note, 'w').write('experiment 0')
"""


class LostTest(HostsTest):
    def pid_of(self, host, name, of_rank=False):
        for pid in self.processes():
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            if (f"TEST_HOST={host}" in environment and f"({name})" in stat
                    and ("RANK=" in environment) == of_rank):
                return pid
        return None

    def states_of_ranks(self):
        states = []
        for pid in self.processes():
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            if "RANK=" in environment:
                states.append(stat.rpartition(")")[2].split()[0])
        return states

    def wait_until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def read_until(self, run, words):
        """Lines of standard error up to one that holds the words."""
        lines = []
        while not lines or words not in lines[-1]:
            lines.append(run.stderr.readline())
            self.assertTrue(lines[-1], lines)
        return lines


class Lost(LostTest):
    def test_network_is_cut(self):
        """No stream ends. Both sides notice, and an agent that hears nothing
        at all ends as well."""
        (self.folder / "network.py").write_text(NETWORK)
        self.hosts("w0 slots=1", "cut slots=1")
        script = self.python("train.py", "signal.signal(15, signal.SIG_IGN)\n"
                             + SLEEP)
        alone = self.start("--node-agent", stdin=subprocess.PIPE)
        stopped = self.start_and_stop()
        run = self.start(*self.on_hosts("--grace_period=2", script))
        self.wait_for_files("ready0", "ready1")
        rank = self.pid_of("cut", "python3", of_rank=True)
        self.assertIsNotNone(rank)
        time.sleep(1.5)
        (self.folder / "cut").write_text("")
        start = time.monotonic()
        self.wait_until(lambda: not os.path.exists(f"/proc/{rank}"), 12)
        self.assertLess(time.monotonic() - start, 10)
        run.out, run.err = run.communicate(timeout=20)
        self.assertEqual(run.returncode, 69, run.err)
        self.assertLess(time.monotonic() - start, 13)
        self.assertIn("error: host cut was silent for 7 seconds", run.err)
        self.assertIn("process there could not say why", run.err)
        self.assertNotIn("its own report", run.err)
        self.assertEqual(alone.wait(20), 69)
        # A launcher that goes on later reads what became of its hosts.
        stopped.send_signal(signal.SIGCONT)
        self.finish(stopped, 143)
        self.assertIn("error: the launcher was silent for 7 seconds",
                      stopped.err)

    def start_and_stop(self):
        """A job of one host, whose launcher is stopped."""
        (self.folder / "one").write_text("w7 slots=1\n")
        run = self.start(
            "-H", "one", "--force_multi", f"--master_port={self.other_port()}",
            "--no_local_rank", "sh", "-c", "touch stopped; exec sleep 1000")
        self.wait_for_files("stopped")
        time.sleep(1.5)
        run.send_signal(signal.SIGSTOP)
        return run

    def test_first_agent_is_killed(self):
        """What rank 0 wrote has reached the launcher before."""
        script = self.python("train.py", NOTE + """
if count == 0:
    time.sleep(1.5)
""" + READY + """
if count == 0:
    time.sleep(1000)
""")
        run = self.start(*self.on_hosts("--max_restarts=1", script))
        self.wait_for_files("ready0", "ready1", "ready2")
        os.kill(self.pid_of("w0", "deepspeed"), signal.SIGKILL)
        self.finish(run)
        self.assertEqual(run.out.splitlines(), ["start 0 after nothing",
                                                "start 1 after experiment 0"])
        self.assertIn("process there could not say why", run.err)

    def test_pause(self):
        """Ctrl-Z stops the ranks of all hosts, for longer than a silence may
        last."""
        self.hosts("w0 slots=1", "w1 slots=1")
        script = self.python("train.py", READY + """
while not os.path.exists('go'):
    time.sleep(0.01)
""")
        run = self.start(*self.on_hosts(script))
        self.wait_for_files("ready0", "ready1")
        run.send_signal(signal.SIGTSTP)
        self.wait_until(lambda: self.states_of_ranks() == ["T", "T"])
        time.sleep(8)
        (self.folder / "go").write_text("")
        self.assertEqual(self.states_of_ranks(), ["T", "T"])
        run.send_signal(signal.SIGCONT)
        self.finish(run)


class Messages(HostsTest):
    def test_greeting_without_line_end(self):
        self.hosts("greets slots=1", "w1 slots=1")
        run = self.run_launcher(*self.on_hosts(
            "--no_local_rank", "sh", "-c", "echo rank $RANK"))
        self.assertEqual(sorted(run.out.splitlines()),
                         ["Welcome to greets", "rank 0", "rank 1"])

    def test_host_that_was_not_waited_for(self):
        self.hosts("denied slots=1", "slow slots=1")
        run = self.run_launcher(*self.on_hosts("true"), code=69)
        self.assertLess(run.seconds, 5)
        self.assertIn("slow: had not answered yet, and was not waited for",
                      run.err)
        self.assertNotIn("10 seconds", run.err)

    def test_mistake_of_one_host(self):
        """Rank 0 tells it and ends first: it is not to blame."""
        self.hosts("w0 slots=1", "w1 slots=1")
        script = self.python("train.py", """
if rank == 0:
    print('error: rank 1 on w1: no such file')
else:
    time.sleep(0.2)
sys.exit(66)
""")
        run = self.run_launcher(*self.on_hosts(script), code=66)
        self.assertIn("error: host w0 was the first to end, with exit code 66; "
                      "the reason stands above", run.err)


class Restarts(LostTest):
    def test_hosts_are_waited_for(self):
        """They cost no restart."""
        self.hosts("w0 slots=1", "down slots=1")
        script = self.python("train.py", NOTE + """
if rank == 1 and count == 0:
    time.sleep(0.3)
    open('is_down', 'w').close()
    sys.exit(9)
if count == 0:
    time.sleep(1000)
""")
        run = self.start(*self.on_hosts("--max_restarts=1", script))
        self.read_until(run, "not all hosts can be used, trying for 10 minutes")
        time.sleep(2.5)  # another try
        (self.folder / "is_down").unlink()
        self.finish(run)
        self.assertEqual(run.out.splitlines(), ["start 0 after nothing",
                                                "start 1 after experiment 0"])

    def test_stopped_while_waiting(self):
        self.hosts("down slots=1", "w1 slots=1")
        script = self.python("train.py", "open('is_down', 'w').close()\n"
                             "sys.exit(9)\n")
        run = self.start(*self.on_hosts("--max_restarts=1", script))
        self.read_until(run, "trying for 10 minutes")
        run.send_signal(signal.SIGTERM)
        self.finish(run, 143)
        self.assertLess(run.seconds, 3)

    def test_port_is_waited_for(self):
        """Its owner is named."""
        port = self.other_port()
        script = self.python("train.py", NOTE + READY + """
while not os.path.exists('go'):
    time.sleep(0.01)
sys.exit(0 if count else 9)
""")
        run = self.start("--max_restarts=1", f"--master_port={port}", script)
        self.wait_for_files("ready0")
        with socket.create_server(("", port)):
            (self.folder / "go").write_text("")
            line = self.read_until(run, "is in use")[-1]
        self.finish(run)
        self.assertIn(f"by pid {os.getpid()} (", line)
        self.assertIn("python", line)
        self.assertIn("waiting for up to 30 seconds", line)
        self.assertEqual(run.out.splitlines(), ["start 0 after nothing",
                                                "start 1 after experiment 0"])


class NothingBehind(LauncherTest):
    def test_pid_file_of_a_killed_launcher(self):
        """Its number may come again, and does at once in a container."""
        run = self.run_launcher(
            "-c", "echo x > /tmp/$$.deepspeed; exec \"$@\"", "sh",
            BIN / "deepspeed", "--save_pid", "--no_local_rank", "sh", "-c",
            "cat /tmp/$PPID.deepspeed; echo =$PPID", program="/bin/sh")
        told, _, pid = run.out.strip().partition("=")
        self.assertEqual(told, pid)
        self.assertFalse(os.path.exists(f"/tmp/{pid}.deepspeed"))

    def test_hostfile_that_is_no_file(self):
        self.assert_error(66, ["hostfile", "regular"], "-H", "/dev/null",
                          "true")

    def test_no_folder_of_a_killed_launcher(self):
        """There is none while it runs, either."""
        temporary = self.folder / "tmp"
        temporary.mkdir()
        self.environment["TMPDIR"] = str(temporary)
        script = self.python("train.py", NOTE + SLEEP)
        run = self.start("--num_gpus=2", script)
        self.wait_for_files("ready0", "ready1")
        self.assertEqual(os.listdir(temporary), [])
        run.kill()
        self.assert_all_gone(3)
        self.assertEqual(os.listdir(temporary), [])

    def test_without_a_temporary_folder(self):
        self.environment["TMPDIR"] = "/nowhere"
        script = self.python("train.py", NOTE)
        self.assertEqual(self.run_launcher(script).out,
                         "start 0 after nothing\n")


class Streams(LauncherTest):
    def test_streams_that_are_closed(self):
        """The launcher ends, and what can be said is said."""
        script = self.python("train.py", """
print('out', flush=True)
print('err', file=sys.stderr, flush=True)
sys.stdin.read()
open(f'done{rank}', 'w').close()
""")
        for closed in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
            with self.subTest(closed):
                run = self.start(
                    "-c", f'exec "$@" {closed}', "sh", BIN / "deepspeed",
                    "--num_gpus=2", script, program="/bin/sh")
                self.finish(run)
                self.assertEqual(run.out.count("out"), 2 * (">&-" not in (
                    closed.replace("2>&-", ""))))
                self.assertEqual(run.err.count("err\n"), 2 * (
                    "2>&-" not in closed))
                for rank in range(2):
                    (self.folder / f"done{rank}").unlink()


@unittest.skipUnless((BIN / "train_bert").exists(), "built without libtorch")
class SingleProcess(LauncherTest):
    def test_train_bert_is_no_rank(self):
        """Not under our launcher, nor under others."""
        (self.folder / "d.txt").write_text("a line of text\n" * 50)
        flags = ("--checkpoint_dir", "e", "--dataset", "d.txt")
        run = self.run_launcher("--num_gpus=2", "train_bert", *flags, code=78)
        self.assertEqual(run.err.count("error: train_bert is a single"), 1)
        self.assertIn("train_bert_ds", run.err)
        torchrun = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": "1"}
        mpi = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2",
               "OMPI_COMM_WORLD_LOCAL_RANK": "0",
               "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "MASTER_PORT": "1"}
        srun = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
                "SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_PORT": "1",
                "SLURM_STEP_NODELIST": "here"}
        for variables in (torchrun, mpi, srun):
            run = self.start(*flags, program=BIN / "train_bert",
                             env=self.environment | variables)
            self.finish(run, 78)
            self.assertIn("train_bert_ds", run.err)
        self.assertFalse((self.folder / "e").exists())


if __name__ == "__main__":
    unittest.main(argv=sys.argv)

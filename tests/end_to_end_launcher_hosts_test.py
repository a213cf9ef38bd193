#!/usr/bin/env python3
"""`deepspeed` on several hosts: a script stands for ssh (or srun) and runs the
other side here; with an ssh server installed, the real one does."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

from launcher_support import BIN, HostsTest, LauncherTest

PRINT_ALL = ("import json\n"
             "print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))\n")
READY = "open(f'ready{rank}', 'w').close()\n"
SLEEP = READY + "time.sleep(1000)\n"


class Ssh(HostsTest):
    def test_environment_and_arguments(self):
        script = self.python("train.py", PRINT_ALL)
        hostile = "a'b\"c$(touch pwned)`id`\\ \n;\t" + "x" * 100_000
        arguments = ["$(touch pwned)", "a b", "", "'", "new\nline", "*"]
        self.environment |= {
            "NCCL_TEST": hostile, "WANDB_API_KEY": "secret", "UNLISTED": "1"}
        (self.folder / ".deepspeed_env").write_text("FROM_FILE='c d'\n")
        run = self.run_launcher(
            *self.on_hosts("--ssh_port=2222", "--launcher_args=-o 'A B'"),
            script, *arguments)
        ranks = {}
        for line in run.out.splitlines():
            argv, environment, folder = json.loads(line)
            self.assertEqual(folder, str(self.folder))
            ranks[int(environment["RANK"])] = argv, environment
        self.assertEqual(sorted(ranks), [0, 1, 2])
        jobs, addresses = set(), set()
        for rank, (argv, environment) in ranks.items():
            local = 0 if rank == 0 else rank - 1
            self.assertEqual(argv, [f"--local_rank={local}", *arguments])
            self.assertEqual(environment["NCCL_TEST"], hostile)
            expected = {
                "TEST_HOST": "w0" if rank == 0 else "w1",
                "WORLD_SIZE": "3", "LOCAL_RANK": str(local),
                "LOCAL_SIZE": "1" if rank == 0 else "2",
                "CROSS_RANK": "0" if rank == 0 else "1", "CROSS_SIZE": "2",
                "MASTER_PORT": "29500", "FROM_FILE": "c d",
                "PYTHONPATH": str(self.folder)}
            self.assertLessEqual(expected.items(), environment.items())
            for name in ("WANDB_API_KEY", "UNLISTED", "DS_MASTER_LISTEN_FD"):
                self.assertNotIn(name, environment)
            jobs.add(environment["DS_JOB_ID"])
            addresses.add(environment["MASTER_ADDR"])
        self.assertEqual((len(jobs), len(addresses)), (1, 1))
        self.assertFalse((self.folder / "pwned").exists())
        # Nothing but the name of the program is on ssh's command line.
        log = (self.folder / "ssh.log").read_text().splitlines()
        self.assertEqual(len(log), 2)
        for host in ("w0", "w1"):
            self.assertEqual(sum(line.endswith(
                f" -p 2222 -o A B -- {host} {BIN}/deepspeed --node-agent")
                for line in log), 1, log)
        self.assertIn("BatchMode=yes", log[0])

    def test_filters_and_flags_reach_the_hosts(self):
        script = self.python(
            "train.py", "print(rank, sys.argv[1:], os.environ['TEST_HOST'], "
            "os.environ['MASTER_ADDR'], os.environ['MASTER_PORT'])\n")
        port = self.other_port()
        self.hosts("w0 slots=4", "w1 slots=4", "w2 slots=4")
        run = self.run_launcher(*self.on_hosts(
            "--include=w2:1@w0:3", "--no_local_rank", "--master_addr=10.0.0.9",
            f"--master_port={port}", "--enable_each_rank_log=logs", script, "x"))
        self.assertEqual(run.out, "")
        text = sorted(path.read_text()
                      for path in (self.folder / "logs").iterdir())
        self.assertEqual(text, [f"0 ['x'] w0 10.0.0.9 {port}\n",
                                f"1 ['x'] w2 10.0.0.9 {port}\n"])

    def test_a_single_host(self):
        self.hosts("w7 slots=1")
        command = ("--no_local_rank", "sh", "-c", "echo on $TEST_HOST")
        run = self.run_launcher(*self.on_hosts(*command))
        self.assertEqual(run.out, "on\n")  # DeepSpeed's rule: it is this one
        self.assertIn("warning: a single host runs here", run.err)
        run = self.run_launcher(*self.on_hosts("--force_multi", *command))
        self.assertEqual(run.out, "on w7\n")

    def test_hosts_that_cannot_be_used(self):
        """All are tried at once; nothing is started on the good ones."""
        self.hosts("w0 slots=1", "denied slots=1", "key slots=1",
                   "empty slots=1", "w1 slots=1")
        run = self.run_launcher(
            *self.on_hosts("touch", "started"), code=69)
        self.assertLess(run.seconds, 5)
        for words in ("denied: denied: Permission denied (publickey).",
                      "key: Host key verification failed.",
                      f"empty: no {BIN}/deepspeed on that host"):
            self.assertIn("  " + words + "\n", run.err)
        self.assertNotIn("  w0: ", run.err)
        self.assertFalse((self.folder / "started").exists())

    def test_host_that_does_not_answer(self):
        self.hosts("w0 slots=1", "slow slots=1")
        run = self.run_launcher(*self.on_hosts("true"), code=69)
        self.assertGreater(run.seconds, 9)
        self.assertLess(run.seconds, 11)
        self.assertIn("slow: no answer in 10 seconds", run.err)
        # The launcher was not silent for the host that waited.
        self.assertNotIn("w0: ", run.err)

    def test_ctrl_c_while_waiting(self):
        self.hosts("w0 slots=1", "slow slots=1")
        run = self.start(*self.on_hosts("--no_ssh_check", "true"))
        self.wait_for_files("ssh.log")
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        self.finish(run, 130)
        self.assertLess(run.seconds, 3)

    def test_no_ssh_program(self):
        self.environment["PATH"] = "/nowhere"
        self.assert_error(69, ["no ssh in PATH"], *self.on_hosts("true"))

    def test_failure_on_one_host_stops_all(self):
        script = self.python("train.py", "print(f'said by {rank}')\n" + READY
                             + """
sys.stdout.flush()
while not os.path.exists('go'):
    time.sleep(0.01)
if rank == 2:
    os.kill(os.getpid(), 9)
time.sleep(1000)
""")
        run = self.start(*self.on_hosts(script))
        self.wait_for_files("ready0", "ready1", "ready2")
        (self.folder / "go").write_text("")
        self.finish(run, 137)
        self.assertLess(run.seconds, 3)
        self.assertIn("error: rank 2 (host", run.err)
        self.assertIn("    said by 2\n", run.err)
        self.assertIn("error: host w1 ended with exit code 137", run.err)
        self.assertNotIn("error: host w0", run.err)

    def test_ranks_that_ignore_sigterm(self):
        script = self.python("train.py", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
""" + READY + """
while rank != 0 or not all(os.path.exists(f'ready{r}') for r in range(3)):
    time.sleep(0.01)
os._exit(7)
""")
        run = self.run_launcher(
            *self.on_hosts("--grace_period=1", script), code=7)
        self.assertLess(run.seconds, 1 + 3)

    def test_agent_is_killed(self):
        """Its ranks die with it, and the other hosts stop."""
        script = self.python("train.py", SLEEP)
        run = self.start(*self.on_hosts("--grace_period=1", script))
        self.wait_for_files("ready0", "ready1", "ready2")
        for pid in self.processes():
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
            if ("TEST_HOST=w1" in environment and "RANK" not in environment
                    and "(deepspeed)" in stat):
                os.kill(pid, 9)
                break
        self.finish(run, 137)
        self.assertLess(run.seconds, 4)
        self.assertIn("error: host w1", run.err)

    def test_launcher_is_killed(self):
        script = self.python("train.py", SLEEP)
        run = self.start(*self.on_hosts(script))
        self.wait_for_files("ready0", "ready1", "ready2")
        run.kill()
        self.assert_all_gone(3)

    def test_signals_reach_all_hosts(self):
        script = self.python("train.py", """
seen = []
for number in (2, 15):
    signal.signal(number, lambda number, frame: seen.append(number))
""" + READY + """
while not seen:
    time.sleep(0.01)
time.sleep(0.3)
print(rank, seen)
sys.exit(75)
""")
        for number in (signal.SIGTERM, signal.SIGINT):
            run = self.start(*self.on_hosts(script))
            self.wait_for_files("ready0", "ready1", "ready2")
            run.send_signal(number)
            self.finish(run, 75)
            self.assertEqual(sorted(run.out.splitlines()),
                             [f"{rank} [{int(number)}]" for rank in range(3)])
            for rank in range(3):
                (self.folder / f"ready{rank}").unlink()

    def test_restarts(self):
        script = self.python("train.py", """
count = int(os.environ['DS_RESTART_COUNT'])
note = os.environ['DS_RESUME_FILE']
if rank == 0:
    before = open(note).read() or 'nothing'
    print('start', count, 'after', before)
    open(note, 'w').write(f'experiment {count}')
elif rank == 2 and count < 2:
    time.sleep(0.3)
    sys.exit(9)
if count < 2:
    time.sleep(1000)
""")
        run = self.run_launcher(*self.on_hosts("--max_restarts=4", script))
        self.assertEqual(
            run.out.splitlines(),
            ["start 0 after nothing", "start 1 after experiment 0",
             "start 2 after experiment 1"])

    def test_errors_name_the_host(self):
        run = self.run_launcher(*self.on_hosts("no_such_program"), code=66)
        self.assertIn("host w0", run.err)
        self.assertIn("no such program: no_such_program", run.err)

    def test_agent_is_not_for_people(self):
        run = self.start("--node-agent", stdin=subprocess.PIPE)
        run.stdin.write("hello\n")
        run.stdin.flush()
        self.finish(run, 64)
        run = self.start("--node-agent", stdin=subprocess.PIPE)
        run.stdin.write("5\nhello")
        run.stdin.flush()
        self.finish(run, 65)
        self.assertIn("same version", run.err)


# As srun 22.05 does, tried with a real one: SIGUSR1 goes to the ranks, and with
# --disable-status so does SIGINT; for SIGTERM, SIGHUP and SIGQUIT it says
# "forcing job termination" and kills them, which makes 137.
SRUN = """#!/usr/bin/env python3
import os, signal, subprocess, sys
ranks = []
def forward(number, frame):
    for rank in ranks:
        rank.send_signal(number)
def terminate(number, frame):
    forward(signal.SIGKILL, frame)
for number in (signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, forward)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, terminate)
program = next(i for i in range(1, len(sys.argv)) if sys.argv[i][0] != '-')
for rank in range(2):
    ranks.append(subprocess.Popen(
        sys.argv[program:], start_new_session=True,
        env=os.environ | {'RANK': str(rank)}))
codes = [rank.wait() for rank in ranks]
sys.exit(max(128 - code if code < 0 else code for code in codes))
"""


class Slurm(HostsTest):
    def setUp(self):
        super().setUp()
        self.script("path/srun", 'echo "$@"; env | grep -E "^(MASTER|DS_JOB)"\n')

    def test_command(self):
        self.script("prog", "")
        self.hosts("w0 slots=2", "w1 slots=2")
        run = self.run_launcher(*self.on_hosts(
            "--launcher=slurm", "--launcher_args=-p 'a b'", "./prog", "x"))
        lines = run.out.splitlines()
        self.assertEqual(
            lines[0], "--kill-on-bad-exit=1 --disable-status --nodelist=w0,w1 "
            "--nodes=2 --ntasks=4 --ntasks-per-node=2 -p a b ./prog x")
        self.assertIn("MASTER_ADDR=w0", lines)
        self.assertIn("MASTER_PORT=29500", lines)
        run = self.run_launcher(
            "--launcher=slurm", "--num_nodes=3", "--num_gpus=8", "./prog")
        self.assertEqual(
            run.out.splitlines()[0], "--kill-on-bad-exit=1 --disable-status "
            "--nodes=3 --ntasks-per-node=8 ./prog")
        self.assertNotIn("MASTER_ADDR", run.out)

    def test_what_srun_cannot_do(self):
        slurm = "--launcher=slurm"
        self.assert_error(64, ["w0 has 1, w1 has 2"],
                          *self.on_hosts(slurm, "true"))
        self.assert_error(64, ["slots of w1"],
                          *self.on_hosts(slurm, "--include=w1:1", "true"))
        self.assert_error(64, ["--include"], slurm, "--include=w0", "true")
        self.assert_error(64, ["--max_restarts"], slurm, "--max_restarts=1",
                          "true")
        self.environment["PATH"] = "/nowhere"
        self.assert_error(69, ["no srun"], slurm, "true")

    def test_exit_code_and_signals(self):
        self.script("path/srun", "exit 7\n")
        run = self.run_launcher("--launcher=slurm", "true", code=7)
        self.assertIn("error: srun ended with exit code 7", run.err)

    def start_ranks(self, *flags, handler="lambda number, frame: "
                    "seen.append(number)"):
        path = self.script("path/srun", "")
        path.write_text(SRUN)
        script = self.python("train.py", f"""
seen = []
for number in (1, 2, 3, 10, 15):
    signal.signal(number, {handler})
""" + READY + """
while not seen:
    time.sleep(0.01)
time.sleep(0.2)
print(rank, seen)
sys.exit(75)
""")
        run = self.start("--launcher=slurm", *flags, script)
        self.wait_for_files("ready0", "ready1")
        return run

    def test_signals_let_the_ranks_save(self):
        for number, arrives in ((signal.SIGTERM, 10), (signal.SIGHUP, 10),
                                (signal.SIGINT, 2)):
            run = self.start_ranks()
            run.send_signal(number)
            self.finish(run, 75)
            self.assertEqual(sorted(run.out.splitlines()),
                             [f"{rank} [{arrives}]" for rank in range(2)])
            for rank in range(2):
                (self.folder / f"ready{rank}").unlink()

    def test_ranks_that_do_not_stop(self):
        run = self.start_ranks("--grace_period=1", handler="signal.SIG_IGN")
        run.send_signal(signal.SIGTERM)
        self.finish(run, 143)
        self.assertLess(run.seconds, 4)

    def test_launcher_is_killed(self):
        """srun is told to end, as its ranks would outlive its own kill."""
        run = self.start_ranks()
        run.kill()
        self.assert_all_gone(3)


@unittest.skipUnless(shutil.which("sshd", path="/usr/sbin:/usr/bin"),
                     "no ssh server: apt install openssh-server")
class RealSsh(LauncherTest):
    def setUp(self):
        super().setUp()
        port = HostsTest.other_port()
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f",
                            self.folder / name], check=True)
        (self.folder / "authorized").write_text(
            (self.folder / "user_key.pub").read_text())
        (self.folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nStrictModes no\n"
            f"HostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized\n")
        (self.folder / "ssh_config").write_text(
            "Host w0 w1\n  HostName 127.0.0.1\n"
            f"  IdentityFile {self.folder}/user_key\n"
            "  StrictHostKeyChecking no\n"
            f"  UserKnownHostsFile {self.folder}/known\n")
        os.makedirs("/run/sshd", exist_ok=True)
        server = subprocess.Popen(
            [shutil.which("sshd", path="/usr/sbin:/usr/bin"), "-D", "-e", "-f",
             self.folder / "sshd_config"], stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.wait_for_server(port)
        (self.folder / "hosts").write_text("w0 slots=1\nw1 slots=1\n")
        self.flags = ("-H", "hosts", f"--ssh_port={port}", "--grace_period=1",
                      f"--launcher_args=-F {self.folder}/ssh_config")

    @staticmethod
    def wait_for_server(port):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                return socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)

    def start_sleeping_ranks(self):
        """The launcher, and the pids of its ranks, which carry no mark."""
        script = self.python("train.py", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
open(f'pid{rank}.new', 'w').write(str(os.getpid()))
os.rename(f'pid{rank}.new', f'pid{rank}')
time.sleep(1000)
""")
        run = self.start(*self.flags, script)
        self.wait_for_files("pid0", "pid1")
        return run, [int((self.folder / f"pid{rank}").read_text())
                     for rank in range(2)]

    def assert_pids_gone(self, pids, seconds):
        deadline = time.monotonic() + seconds
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            self.assertLess(time.monotonic(), deadline, pids)
            time.sleep(0.02)

    def test_two_ranks(self):
        script = self.python("train.py", "print(rank, sys.argv[1:])\n")
        run = self.run_launcher(*self.flags, script, "a $(id)'b")
        self.assertEqual(sorted(run.out.splitlines()),
                         ["0 ['--local_rank=0', \"a $(id)'b\"]",
                          "1 ['--local_rank=0', \"a $(id)'b\"]"])

    def test_launcher_is_killed(self):
        """The hosts stop their ranks when standard input ends."""
        run, ranks = self.start_sleeping_ranks()
        run.kill()
        self.assert_pids_gone(ranks, 1 + 3)

    def test_lost_connection(self):
        """ssh of one host dies: both hosts stop."""
        run, ranks = self.start_sleeping_ranks()
        connection = next(
            pid for pid in self.processes()
            if b"w1\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(connection, signal.SIGKILL)
        self.finish(run, 137)
        self.assertIn("error: host w1 was killed", run.err)
        self.assert_pids_gone(ranks, 3)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)

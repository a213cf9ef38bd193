#!/usr/bin/env python3
"""`deepspeed` starts ranks on this host: what they find, what they print."""

import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import time
import unittest

from launcher_support import BIN, LauncherTest

PRINT_ALL = ("import json\n"
             "print(json.dumps([sys.argv[1:], dict(os.environ)]))\n")


class Ranks(LauncherTest):
    def ranks(self, *arguments, **options):
        """{rank: (arguments, environment)} of a script that prints them."""
        run = self.run_launcher(*arguments, **options)
        found = {}
        for line in run.out.splitlines():
            argv, environment = json.loads(line)
            found[int(environment["RANK"])] = (argv, environment)
        return found

    def test_environment(self):
        script = self.python("train.py", PRINT_ALL)
        ranks = self.ranks(
            "--include", "localhost:2,3,4", script, "--flag", "a b",
            env=self.environment | {"RANK": "7", "CUSTOM": "x\ny"})
        self.assertEqual(sorted(ranks), [0, 1, 2])
        ports, jobs = set(), set()
        for rank, (argv, environment) in ranks.items():
            self.assertEqual(argv, [f"--local_rank={rank}", "--flag", "a b"])
            expected = {
                "LOCAL_RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_SIZE": "3",
                "LOCAL_WORLD_SIZE": "3", "CROSS_RANK": "0", "CROSS_SIZE": "1",
                "MASTER_ADDR": "127.0.0.1", "DS_RESTART_COUNT": "0",
                "CUSTOM": "x\ny"}
            self.assertLessEqual(expected.items(), environment.items())
            self.assertNotIn("CUDA_VISIBLE_DEVICES", environment)
            self.assertEqual("DS_MASTER_LISTEN_FD" in environment, rank == 0)
            self.assertGreaterEqual(int(environment["OMP_NUM_THREADS"]), 1)
            ports.add(environment["MASTER_PORT"])
            jobs.add(environment["DS_JOB_ID"])
        self.assertEqual((len(ports), len(jobs)), (1, 1))

    def test_cores_are_shared(self):
        script = self.python("train.py", PRINT_ALL)
        cores = len(os.sched_getaffinity(0))
        for ranks in (1, cores, cores + 1):
            found = self.ranks(f"--num_gpus={ranks}", script)
            self.assertEqual(found[0][1]["OMP_NUM_THREADS"],
                             str(max(1, cores // ranks)))
        self.environment["OMP_NUM_THREADS"] = "5"
        self.assertEqual(
            self.ranks(script)[0][1]["OMP_NUM_THREADS"], "5")

    def test_more_ranks_than_cores_are_one_warning(self):
        cores = len(os.sched_getaffinity(0))
        run = self.run_launcher("--num_gpus", cores + 1, "true")
        self.assertEqual(run.err.count("warning: "), 1, run.err)
        self.assertIn(f"{cores + 1} ranks share", run.err)
        run = self.run_launcher("-q", "--num_gpus", cores + 1, "true")
        self.assertEqual(run.err, "")

    def test_default_is_a_rank_for_each_numa_node(self):
        script = self.python("train.py", PRINT_ALL)
        nodes = 0
        usable = os.sched_getaffinity(0)
        for folder in os.listdir("/sys/devices/system/node"):
            if re.fullmatch(r"node\d+", folder):
                cores = os.listdir(f"/sys/devices/system/node/{folder}")
                nodes += any(f"cpu{core}" in cores for core in usable)
        self.assertEqual(len(self.ranks(script)), nodes)

    def test_local_rank_is_left_out(self):
        script = self.python("train.py", PRINT_ALL)
        ranks = self.ranks("--no_local_rank", script, "x")
        self.assertEqual(ranks[0][0], ["x"])

    def test_environment_files(self):
        script = self.python("train.py", PRINT_ALL)
        here = self.folder / "here"
        here.mkdir()
        (self.folder / ".deepspeed_env").write_text("A=home\n\n# x\nB='c d'\n")
        (here / ".deepspeed_env").write_text("A=here\nRANK=9\n")
        run = self.run_launcher(script, cwd=here)
        environment = json.loads(run.out)[1]
        self.assertEqual(
            (environment["A"], environment["B"], environment["RANK"]),
            ("here", "c d", "0"))
        self.assertIn("current folder", run.err)
        (here / ".deepspeed_env").write_text("\nbad line\n")
        self.assert_error(65, [".deepspeed_env:2", "bad line"], script,
                          cwd=here)

    def test_standard_input_goes_to_rank_0(self):
        run = self.start(
            "--num_gpus=2", "--no_local_rank", "sh", "-c",
            'read line; echo "$RANK:$line"', stdin=subprocess.PIPE)
        run.stdin.write("hello\n")
        run.stdin.flush()
        self.finish(run)
        self.assertEqual(sorted(run.out.split()), ["0:hello", "1:"])


class Programs(LauncherTest):
    """Where a program is looked for, and by what it is run."""

    def test_places(self):
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        launcher = bin_folder / "deepspeed"
        shutil.copy(BIN / "deepspeed", launcher)
        self.environment["PATH"] = f"{self.folder}/path:" + os.environ["PATH"]
        for place in ("path/prog", "bin/prog", "prog"):
            self.script(place, f"echo {place} $1\n")
            run = self.run_launcher("prog", program=launcher)
            self.assertEqual(run.out, f"{place} --local_rank=0\n")
        run = self.run_launcher(self.folder / "path/prog")
        self.assertEqual(run.out, "path/prog --local_rank=0\n")

    def test_missing_program(self):
        self.assert_error(66, ["no such program: nothing_there", "PATH"],
                          "nothing_there")
        self.assert_error(66, ["./nothing"], "./nothing")

    def test_python(self):
        (self.folder / "module.py").write_text(
            "import sys; print('module', sys.argv[1:])")
        for arguments in (["module.py"], ["--module", "module"]):
            run = self.run_launcher("--no_local_rank", *arguments, "x")
            self.assertEqual(run.out, "module ['x']\n")
        # A text that is not executable, as DeepSpeed runs it.
        (self.folder / "text").write_text("print('text')")
        self.assertEqual(self.run_launcher("text").out, "text\n")

    def test_no_python(self):
        script = self.script("train.py", "echo shell\n")
        run = self.run_launcher("--no_python", script)
        self.assertEqual(run.out, "shell\n")
        script.chmod(0o644)
        self.assert_error(66, ["train.py", "ermission"], "--no_python", script)

    def test_not_a_program(self):
        path = self.folder / "garbage"
        path.write_bytes(b"\0\1\2")
        path.chmod(0o755)
        self.assert_error(66, ["garbage"], "--num_gpus=2", path)

    def test_environment_that_is_too_large(self):
        (self.folder / ".deepspeed_env").write_text("A=" + "x" * 200000)
        self.assert_error(66, ["rgument list too long"], "true")


class Output(LauncherTest):
    def test_lines_of_8_ranks_stay_whole(self):
        script = self.python("train.py", """
for i in range(200):
    text = f'<{rank}:{i}:' + str(rank) * (i * 37 % 5000) + '>'
    stream = sys.stdout if i % 3 else sys.stderr
    for part in (text[:len(text) // 2], text[len(text) // 2:] + '\\n'):
        stream.write(part)
        stream.flush()
""")
        run = self.start("-q", "--num_gpus=8", script,
                         stderr=subprocess.STDOUT)
        self.finish(run)
        lines = run.out.splitlines()
        self.assertEqual(len(lines), 1600)
        for line in lines:
            match = re.fullmatch(r"<(\d):(\d+):(\d*)>", line)
            self.assertTrue(match, line[:200])
            rank, i, rest = match.groups()
            self.assertEqual(rest, rank * (int(i) * 37 % 5000))

    def test_streams_stay_apart(self):
        run = self.run_launcher(
            "-q", "--no_local_rank", "sh", "-c", "echo out; printf err >&2")
        self.assertEqual((run.out, run.err), ("out\n", "err\n"))

    def test_a_line_that_never_ends_is_broken(self):
        script = self.python("train.py", "sys.stdout.write('x' * 3_000_000)\n")
        run = self.run_launcher(script)
        self.assertEqual(run.out.count("x"), 3_000_000)
        self.assertLessEqual(max(map(len, run.out.splitlines())), 1_200_000)

    def test_nobody_reads(self):
        """Neither a closed nor a stuck reader ends a run or hides a failure."""
        script = self.python("train.py", """
for i in range(20000):
    print('x' * 100)
open('done', 'w')
""")
        run = self.start(script)
        run.stdout.close()
        self.assertEqual(run.wait(30), 0)
        self.wait_for_files("done")

        reader, writer = os.pipe()
        script = self.python("fail.py", """
if rank == 1:
    time.sleep(0.3)
    os.kill(os.getpid(), 9)
while True:
    print('x' * 1000)
""")
        run = self.start("--num_gpus=2", "--grace_period=1", script,
                         stdout=writer)
        os.close(writer)
        # The ranks end although nobody has read a byte; two processes are left:
        # the launcher and its watcher.
        deadline = time.monotonic() + 10
        while len(self.processes()) != 2:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        with open(reader) as text:
            text.read()
        self.assertEqual(run.wait(10), 137)

    def test_log_files(self):
        run = self.run_launcher(
            "--enable_each_rank_log=logs/deep", "--num_gpus=2",
            "--no_local_rank", "sh", "-c",
            "echo out $RANK; echo err >&2; sleep 0.2; exit $RANK", code=1)
        self.assertEqual(run.out, "")
        files = sorted((self.folder / "logs/deep").iterdir())
        self.assertEqual(len(files), 2)
        for rank, file in enumerate(files):
            self.assertRegex(file.name, rf"^\d{{14}}_rank{rank}\.log$")
            self.assertEqual(file.read_text(), f"out {rank}\nerr\n")
        self.assertIn("out 1", run.err)
        self.assertIn(files[1].name, run.err)
        (self.folder / "file").write_text("")
        self.assert_error(73, ["file"], "--enable_each_rank_log=file", "true")

    def test_terminal(self):
        """Rank 0 sees a terminal; its progress line stays the last line, and
        lines of other ranks stand above it."""
        script = self.python("train.py", """
if rank == 0:
    print('terminal', sys.stdout.isatty(), sys.stderr.isatty(),
          os.get_terminal_size(2).columns, flush=True)
    for i in range(6):
        sys.stderr.write(f'\\rstep {i}')
        sys.stderr.flush()
        time.sleep(0.1)
else:
    time.sleep(0.35)
    print('other', sys.stdout.isatty())
""")
        master, slave = pty.openpty()
        import fcntl, struct, termios
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 30, 77, 0, 0))
        run = self.start("--num_gpus=2", script, stdin=slave, stdout=slave,
                         stderr=slave)
        os.close(slave)
        text = b""
        try:
            while part := os.read(master, 4096):
                text += part
        except OSError:
            pass
        os.close(master)
        self.assertEqual(run.wait(30), 0)
        text = text.decode()
        self.assertIn("terminal True True 77\r\n", text)
        self.assertRegex(
            text, "\rstep (\\d)\r\x1b\\[Kother False\r\n\rstep \\1")
        self.assertTrue(text.endswith("\rstep 5\r\n"), repr(text[-60:]))


class Ports(LauncherTest):
    LISTEN = """
import socket
if rank == 0:
    {listen}
    server.settimeout(20)
    for _ in range(2):
        print(server.accept()[0].recv(10).decode())
else:
    while True:
        try:
            peer = socket.create_connection(
                (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])))
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    peer.sendall(b'hello')
"""

    def test_rank_0_listens_at_the_inherited_socket(self):
        script = self.python("train.py", self.LISTEN.format(listen="""
    server = socket.socket(fileno=int(os.environ['DS_MASTER_LISTEN_FD']))
    server.listen()
    assert server.getsockname() == ('127.0.0.1',
                                    int(os.environ['MASTER_PORT']))
"""))
        run = self.run_launcher("--num_gpus=3", script)
        self.assertEqual(run.out, "hello\n" * 2)

    def test_a_program_that_binds_the_port_itself(self):
        """As Python's DeepSpeed does: the reserved socket is not in its way."""
        script = self.python("train.py", self.LISTEN.format(listen="""
    server = socket.create_server(('', int(os.environ['MASTER_PORT'])))
"""))
        run = self.run_launcher("--num_gpus=3", script)
        self.assertEqual(run.out, "hello\n" * 2)

    def test_two_jobs_have_two_ports(self):
        runs = [self.start("--no_local_rank", "sh", "-c",
                           "echo $MASTER_PORT; sleep 0.5") for _ in range(4)]
        ports = set()
        for run in runs:
            ports.add(run.communicate()[0])
        self.assertEqual(len(ports), 4)

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.assert_error(
                69, [f"port {port} of 127.0.0.1 is in use by pid "
                     f"{os.getpid()} ("], f"--master_port={port}", "true")
        run = self.run_launcher(
            f"--master_port={port}", "--no_local_rank", "sh", "-c",
            "echo $MASTER_PORT")
        self.assertEqual(run.out, f"{port}\n")


class Cores(LauncherTest):
    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one core only")
    def test_ranks_are_bound(self):
        script = self.python(
            "train.py", "print(rank, sorted(os.sched_getaffinity(0)), "
            "os.environ['OMP_NUM_THREADS'])\n")
        first, second = sorted(os.sched_getaffinity(0))[:2]
        self.environment["OMP_NUM_THREADS"] = "7"
        run = self.run_launcher(
            "--bind_cores_to_rank", f"--bind_core_list={first},{second}",
            "--num_gpus=2", script)
        self.assertEqual(sorted(run.out.splitlines()),
                         [f"0 [{first}] 1", f"1 [{second}] 1"])
        run = self.run_launcher(
            "--bind_cores_to_rank", f"--bind_core_list={first}-{second}",
            script)
        self.assertEqual(run.out, f"0 [{first}, {second}] 2\n")

    def test_errors(self):
        cores = len(os.sched_getaffinity(0))
        bind = "--bind_cores_to_rank"
        self.assert_error(78, [f"{cores + 1} ranks"], bind, "-q",
                          f"--num_gpus={cores + 1}", "true")
        self.assert_error(78, ["core 4000"], bind, "--bind_core_list=4000",
                          "true")
        self.assert_error(64, ["rising"], bind, "--bind_core_list=1,0", "true")
        self.assert_error(64, ["rising"], bind, "--bind_core_list=0-1,1",
                          "true")
        self.environment["KMP_AFFINITY"] = "compact"
        self.assert_error(78, ["KMP_AFFINITY=compact"], bind, "true")


class CommandLine(LauncherTest):
    def test_help_is_quick_and_loads_no_libtorch(self):
        times = []
        for _ in range(5):
            start = time.monotonic()
            run = self.run_launcher("--help")
            times.append(time.monotonic() - start)
        self.assertIn("usage: deepspeed", run.out)
        self.assertEqual(run.err, "")
        self.assertLess(min(times), 0.05)
        libraries = subprocess.run(
            ["ldd", BIN / "deepspeed"], capture_output=True, text=True)
        self.assertNotIn("libtorch", libraries.stdout)

    def test_errors(self):
        self.assert_error(64, ["--num_gpu", "--num_gpus?"], "--num_gpu=2",
                          "true")
        self.assert_error(64, ["no program"])
        self.assert_error(64, ["'w2'"], "--include=w2:0", "true")
        (self.folder / "hosts").write_text("# a\nw0 slots=x\n")
        self.assert_error(64, ["hosts:2"], "-H", "hosts", "true")

    def test_a_hostfile_that_is_not_there(self):
        run = self.run_launcher("-H", "nothing", "--no_local_rank", "sh", "-c",
                                "echo $WORLD_SIZE")
        self.assertIn("warning: no hostfile nothing", run.err)

    def test_nodes_by_hand(self):
        (self.folder / "hosts").write_text("w0 slots=1\nw1 slots=2\n")
        flags = ("-H", "hosts", "--no_ssh", "--no_local_rank")
        command = ("sh", "-c", "echo $RANK $LOCAL_RANK $CROSS_RANK $MASTER_ADDR"
                   ":$MASTER_PORT $WORLD_SIZE $CROSS_SIZE")
        run = self.run_launcher(
            *flags, "--node_rank=1", "--master_addr=10.0.0.1", *command)
        self.assertEqual(
            sorted(run.out.splitlines()),
            ["1 0 1 10.0.0.1:29500 3 2", "2 1 1 10.0.0.1:29500 3 2"])
        self.assert_error(64, ["--node_rank 2"], *flags, "--node_rank=2",
                          "--master_addr=10.0.0.1", *command)
        self.assert_error(64, ["--master_addr"], *flags, "--node_rank=0",
                          *command)

    def test_pid_file(self):
        script = self.script("rank", "cat /tmp/$PPID.deepspeed\n")
        run = self.start("--save_pid", script)
        self.finish(run)
        self.assertEqual(run.out, f"{run.pid}\n")
        self.assertFalse(os.path.exists(f"/tmp/{run.pid}.deepspeed"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv)

#!/usr/bin/env python3
"""`deepspeed` when ranks fail, hang or are stopped: all go within the grace
period and three seconds, the right rank is named, nothing is left running."""

import os
import pathlib
import signal
import sys
import time
import unittest

from launcher_support import BIN, LauncherTest

# All ranks say when they are ready.
READY = "open(f'ready{rank}', 'w').close()\n"
SLEEP = READY + "time.sleep(1000)\n"
LIMIT = 3  # seconds, beyond the grace period
# Notes each signal; ends with CODE after the first.
TRAP = """
seen = []
def trap(number, frame):
    seen.append(number)
for number in (1, 2, 3, 10, 15):
    signal.signal(number, trap)
open(f'ready{rank}', 'w').close()
while not seen:
    time.sleep(0.01)
time.sleep(0.3)
print(rank, seen, flush=True)
sys.exit(CODE)
"""


def ready(ranks):
    return [f"ready{rank}" for rank in range(ranks)]


class Failures(LauncherTest):
    def rank_pid(self, run, rank):
        for pid in self.processes():
            environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
            if f"RANK={rank}" in environment.split("\0"):
                return pid
        self.fail("no such rank")

    def test_rank_is_killed(self):
        script = self.python(
            "train.py", "print(f'a line of rank {rank}', flush=True)\n" + SLEEP)
        run = self.start("--num_gpus=4", script)
        self.wait_for_files(*ready(4))
        pid = self.rank_pid(run, 2)
        os.kill(pid, signal.SIGKILL)
        self.finish(run, 137)
        self.assertLess(run.seconds, LIMIT)
        report = run.err[run.err.rindex("error: rank"):]
        self.assertRegex(
            report, rf"^error: rank 2 \(host \S+, pid {pid}\) was killed by "
            r"signal 9 \(SIGKILL\)\n")
        self.assertIn("    a line of rank 2\n", report)
        self.assertNotIn("a line of rank 1", report)
        self.assertIn("hint: probably out of memory", report)

    def test_rank_ends_with_3(self):
        script = self.python("train.py", """
if rank == 1:
    for i in range(30):
        print('line', i)
    sys.exit(3)
time.sleep(1000)
""")
        run = self.run_launcher("--num_gpus=3", script, code=3)
        self.assertLess(run.seconds, LIMIT)
        report = run.err[run.err.rindex("error: rank"):]
        self.assertIn("rank 1 (host", report)
        self.assertIn("ended with exit code 3", report)
        self.assertIn("    line 29\n", report)
        self.assertIn("    line 10\n", report)
        self.assertNotIn("    line 9\n", report)

    def test_other_signals(self):
        for number, code, words in ((11, 139, "SIGSEGV"), (6, 134, "SIGABRT"),
                                    (7, 135, "/dev/shm"), (15, 143, "somebody")):
            script = self.python(
                "train.py", f"os.kill(os.getpid(), {number})\n")
            run = self.run_launcher(script, code=code)
            self.assertIn(words, run.err)

    def test_code_of_a_process_below(self):
        run = self.run_launcher("--no_local_rank", "sh", "-c",
                                "sh -c 'kill -9 $$'; exit $?", code=137)
        self.assertIn("ended by SIGKILL", run.err)

    def test_ranks_that_ignore_sigterm(self):
        script = self.python("train.py", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f'ready{rank}', 'w').close()
while rank != 5 or not all(os.path.exists(f'ready{r}') for r in range(8)):
    time.sleep(0.01)
os._exit(7)
""")
        run = self.run_launcher(
            "--num_gpus=8", "--grace_period=1", script, code=7)
        self.assertGreater(run.seconds, 1)
        # One grace period for all, not one for each.
        self.assertLess(run.seconds, 1 + LIMIT)
        self.assertIn("error: rank 5 (host", run.err)
        self.assertEqual(run.err.count("did not stop in time"), 7)

    def test_rank_that_is_stopped(self):
        """SIGTERM reaches a rank that stands still (SIGSTOP)."""
        script = self.python("train.py", READY + """
if rank == 0:
    while not os.path.exists('go'):
        time.sleep(0.01)
    sys.exit(4)
time.sleep(1000)
""")
        run = self.start("--num_gpus=2", script)
        self.wait_for_files(*ready(2))
        os.kill(self.rank_pid(run, 1), signal.SIGSTOP)
        (self.folder / "go").write_text("")
        self.finish(run, 4)
        self.assertLess(run.seconds, LIMIT)

    def test_lost_peer_is_not_the_reason(self):
        """Ranks that see their peer die end with 69, often before it."""
        script = self.python("train.py", READY + """
while not all(os.path.exists(f'ready{r}') for r in range(3)):
    time.sleep(0.01)
if rank == 2:
    time.sleep(0.25)
    raise ValueError('the reason')
sys.exit(69)
""")
        run = self.run_launcher("--num_gpus=3", script, code=1)
        self.assertIn("error: rank 2 (host", run.err)
        self.assertIn("    ValueError: the reason", run.err)
        # Without a better reason it is one.
        run = self.run_launcher("--no_local_rank", "sh", "-c", "exit 69",
                                code=69)
        self.assertIn("exit code 69", run.err)

    def test_what_ranks_leave_behind(self):
        script = self.script("rank", """
(trap '' TERM; sleep 1000) &
setsid sh -c 'sleep 1000 & exec sleep 1000' &
sleep 0.2
exit $RANK
""")
        run = self.run_launcher("--num_gpus=1", script)
        self.assertIn("left behind", run.err)
        run = self.run_launcher("--num_gpus=2", script, code=1)
        self.assertLess(run.seconds, LIMIT)


class LauncherKilled(LauncherTest):
    def test_kill_9(self):
        """No rank, and nothing that a rank has started, lives on."""
        script = self.script("rank", """
trap '' TERM HUP
(trap '' TERM HUP; sleep 1000) &
setsid sh -c 'trap "" TERM HUP; sleep 1000 & sleep 1000' &
touch ready$RANK
sleep 1000
""")
        run = self.start("--num_gpus=2", script)
        self.wait_for_files(*ready(2))
        self.assertGreater(len(self.processes()), 8)
        run.kill()
        self.assert_all_gone(LIMIT)
        # Nothing holds the output open.
        start = time.monotonic()
        run.communicate(timeout=LIMIT)
        self.assertLess(time.monotonic() - start, 1)

    def test_its_watcher_is_killed_before(self):
        """The kernel ends the ranks by itself."""
        script = self.python("train.py", "signal.signal(15, signal.SIG_IGN)\n"
                             + SLEEP)
        run = self.start("--num_gpus=2", script)
        self.wait_for_files(*ready(2))
        for pid in self.processes():
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            if name == "ds_watcher":
                os.kill(pid, signal.SIGKILL)
        run.kill()
        self.assert_all_gone(LIMIT)

    def test_during_the_start(self):
        script = self.python("train.py", SLEEP)
        for delay in (0, 0.005, 0.01, 0.02, 0.03, 0.05):
            run = self.start("--num_gpus=4", script)
            time.sleep(delay)
            run.kill()
            self.assert_all_gone(LIMIT)


class Signals(LauncherTest):
    def signalled(self, code, *signals, ranks=3, flags=(), own_code=75,
                  text=TRAP):
        script = self.python("train.py", text.replace("CODE", str(own_code)))
        run = self.start(f"--num_gpus={ranks}", *flags, script)
        self.wait_for_files(*ready(ranks))
        for number in signals:
            run.send_signal(number)
            time.sleep(0.05)
        return self.finish(run, code)

    def test_each_rank_gets_it_once_and_75_is_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                       signal.SIGQUIT, signal.SIGUSR1):
            run = self.signalled(75, number)
            self.assertEqual(
                sorted(run.out.splitlines()),
                [f"{rank} [{int(number)}]" for rank in range(3)])
            self.assertNotIn("error", run.err)
            for rank in range(3):
                (self.folder / f"ready{rank}").unlink()

    def test_clean_end(self):
        run = self.signalled(0, signal.SIGTERM, own_code=0)
        self.assertNotIn("error", run.err)

    def test_ranks_without_a_handler(self):
        run = self.signalled(143, signal.SIGTERM, text=SLEEP)
        self.assertNotIn("error", run.err)
        for rank in range(3):
            (self.folder / f"ready{rank}").unlink()
        run = self.signalled(130, signal.SIGINT, text=SLEEP)
        self.assertNotIn("error", run.err)
        self.assertLess(run.seconds, LIMIT)

    def test_rank_is_killed_while_it_stops(self):
        """As by the kernel, out of memory in a save."""
        run = self.signalled(143, signal.SIGTERM, text="""
signal.signal(15, lambda *_: os.kill(os.getpid(), 9) if rank == 1 else sys.exit(75))
""" + SLEEP)
        self.assertEqual(
            [line for line in run.err.splitlines() if "killed" in line],
            ["warning: rank 1 was killed by signal 9 (SIGKILL) while it was to "
             "stop: what was not saved yet is lost"])

    def test_ranks_that_ignore_it(self):
        ignore = "signal.signal(15, signal.SIG_IGN)\n" + SLEEP
        run = self.signalled(143, signal.SIGTERM, text=ignore,
                             flags=["--grace_period=1"])
        self.assertGreater(run.seconds, 0.8)
        self.assertLess(run.seconds, 1 + LIMIT)

    def test_second_ctrl_c_kills(self):
        ignore = "signal.signal(2, signal.SIG_IGN)\n" + SLEEP
        run = self.signalled(130, signal.SIGINT, signal.SIGINT, text=ignore)
        self.assertLess(run.seconds, LIMIT)

    def test_sigusr1_stops_nothing(self):
        script = self.python("train.py", """
seen = []
signal.signal(10, lambda *_: seen.append(1))
""" + READY + """
while not seen:
    time.sleep(0.01)
time.sleep(0.3)
sys.exit(5 if rank == 1 else 0)
""")
        run = self.start("--num_gpus=2", script)
        self.wait_for_files(*ready(2))
        run.send_signal(signal.SIGUSR1)
        self.finish(run, 5)
        self.assertIn("error: rank 1", run.err)  # a failure like any other

    def test_ignored_signals_stay_ignored(self):
        """As under nohup."""
        script = self.python("train.py", """
signal.signal(signal.SIGHUP, lambda *_: open('hup', 'w').close())
""" + READY + """
while not os.path.exists('go'):
    time.sleep(0.01)
""")
        run = self.start("-c", 'trap "" HUP; exec "$@"', "sh",
                         BIN / "deepspeed", script, program="/bin/sh")
        self.wait_for_files("ready0")
        run.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        (self.folder / "go").write_text("")
        self.finish(run, 0)
        self.assertFalse((self.folder / "hup").exists())

    def test_job_control(self):
        """Ctrl-Z stops all, and all go on with the launcher."""
        script = self.python("train.py", READY + """
while not os.path.exists('go'):
    time.sleep(0.01)
""")
        run = self.start("--num_gpus=2", script)
        self.wait_for_files(*ready(2))
        run.send_signal(signal.SIGTSTP)
        self.wait_for_state("T", 3)
        run.send_signal(signal.SIGCONT)
        (self.folder / "go").write_text("")
        self.finish(run, 0)

    def wait_for_state(self, state, count):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            states = [pathlib.Path(f"/proc/{pid}/stat").read_text()
                      .rpartition(")")[2].split()[0]
                      for pid in self.processes()]
            if states.count(state) == count:
                return
            time.sleep(0.01)
        self.fail(f"states {states}")


class Restarts(LauncherTest):
    SCRIPT = """
count = int(os.environ['DS_RESTART_COUNT'])
note = os.environ['DS_RESUME_FILE']
if rank == 0:
    before = open(note).read() or 'nothing'
    print('start', count, 'after', before, flush=True)
    open(note, 'w').write(f'experiment {count}')
    time.sleep(0.1)
    sys.exit(0 if count == 2 else CODE)
time.sleep(0.1 if count == 2 else 1000)
"""

    def run_restarts(self, flags, exit_code, code):
        script = self.python(
            "train.py", self.SCRIPT.replace("CODE", str(exit_code)))
        return self.run_launcher("--num_gpus=2", *flags, script, code=code)

    def test_until_it_goes_well(self):
        run = self.run_restarts(["--max-restarts=5"], 9, 0)
        self.assertEqual(run.out.splitlines(), [
            "start 0 after nothing", "start 1 after experiment 0",
            "start 2 after experiment 1"])
        self.assertIn("restart 2 of 5", run.err)
        self.assertEqual(run.err.count("error: rank 0 (host"), 2)

    def test_until_the_limit(self):
        run = self.run_restarts(["--max-restarts=1"], 9, 9)
        self.assertEqual(len(run.out.splitlines()), 2)
        self.assertEqual(len(self.run_restarts([], 9, 9).out.splitlines()), 1)

    def test_mistakes_are_not_repeated(self):
        for code in (64, 66, 78):
            run = self.run_restarts(["--max-restarts=3"], code, code)
            self.assertEqual(len(run.out.splitlines()), 1)

    def test_a_stop_is_no_failure(self):
        script = self.python("train.py", SLEEP)
        run = self.start("--max_restarts=3", script)
        self.wait_for_files("ready0")
        run.send_signal(signal.SIGTERM)
        self.finish(run, 143)
        self.assertNotIn("starting again", run.err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)

"""Jobs that a real Slurm starts again: they go on where they were.

Slurm's daemons run in namespaces of their own, which end with the test. It
takes about 40 seconds, most of them Slurm's: only with DS_SLURM_TEST=1.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("DS_BIN", ROOT / "build" / "bin")).resolve()
PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol", "unshare"]

CONFIG = """
ClusterName=test
SlurmctldHost=node1({address})
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=node1 NodeAddr={address} CPUs=8
PartitionName=all Nodes=node1 Default=YES
"""

# Slurm resolves no address where the loopback has only 127.0.0.1.
SESSION = """
hostname node1
ip link set lo up
ip address add {address}/32 dev lo
export SLURM_CONF={folder}/slurm.conf
munged --force --key-file={folder}/key --socket={folder}/munge.sock \\
  --pid-file={folder}/munged.pid --log-file={folder}/munged.log \\
  --seed-file={folder}/seed
slurmctld -c
slurmd
until sinfo -h -o %t | grep -q idle; do sleep 0.1; done
for job in {jobs}; do
  sbatch --parsable $job.sh > $job.id || exit 3
done
for job in {jobs}; do
  until ls $job/*/latest > $job.names 2> /dev/null; do sleep 0.05; done
  scontrol requeue $(cat $job.id) || exit 4
done
for job in {jobs}; do
  until grep -q '^END' $job.out; do
    scontrol update JobId=$(cat $job.id) StartTime=now 2> /dev/null
    sleep 0.2
  done
done
"""

JOB = """#!/bin/bash
#SBATCH --requeue --ntasks=2 --output={folder}/{job}.out --open-mode=append
{command} {program} {flags}
echo END $?
"""

# Long enough to be found before its end.
FLAGS = ("--num_layers=2 --num_heads=4 --ff_dim=64 --h_dim=64 --log_every=100 "
         "--num_iterations=240 --checkpoint_every=20 --keep_last=2")


def missing():
    if os.environ.get("DS_SLURM_TEST") != "1":
        return "takes long: DS_SLURM_TEST=1 runs it"
    lacking = [name for name in PROGRAMS if not shutil.which(
        name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")]
    if lacking:
        return "no " + ", ".join(lacking)
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if subprocess.run(["unshare", "--net", "--uts", "--pid", "--fork", "true"],
                      capture_output=True).returncode != 0:
        return "no namespaces"
    return None


class Requeued(unittest.TestCase):
    @unittest.skipIf(missing(), missing())
    def test_goes_on_where_it_was(self):
        temporary = tempfile.TemporaryDirectory(prefix="slurm.")
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        words = {"address": "10.77.0.1", "folder": folder}
        (folder / "data.txt").write_text("".join(
            f"line {i} of a text for a job that is started twice\n"
            for i in range(400)))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        (folder / "slurm.conf").write_text(CONFIG.format(**words))
        launcher = f"{BIN}/deepspeed --num_gpus 2"
        jobs = {"srun": ("srun", ""),
                "launcher": (launcher + " --master_port 29611",
                             "--experiment mine")}
        for job, (command, more) in jobs.items():
            (folder / job).mkdir()
            (folder / f"{job}.sh").write_text(JOB.format(
                folder=folder, job=job, command=command,
                program=BIN / "train_bert_ds",
                flags=f"{FLAGS} --dataset {folder}/data.txt "
                      f"--checkpoint_dir {folder}/{job} {more}"))
        environment = dict(os.environ, DS_ACCELERATOR="cpu")
        environment["PATH"] += ":/usr/sbin:/sbin"
        with open(folder / "session.log", "w") as log:
            code = subprocess.run(
                ["unshare", "--net", "--uts", "--pid", "--fork",
                 "--kill-child", "--mount-proc", "bash", "-c",
                 SESSION.format(jobs=" ".join(jobs), **words)],
                cwd=folder, env=environment, stdout=log, stderr=log,
                timeout=120).returncode
        said = (folder / "session.log").read_text()
        self.assertEqual(code, 0, said)
        for job in jobs:
            with self.subTest(job):
                out = (folder / f"{job}.out").read_text(errors="replace")
                latest = (folder / f"{job}.names").read_text().strip()
                experiment = os.path.dirname(latest)
                self.assertIn("REQUEUE", out)
                self.assertIn(f"going on with {folder}/{experiment}", out)
                self.assertRegex(out, r"resuming after step [1-9]\d* of 240")
                self.assertIn("END 0", out)
                visible = [path.name for path in (folder / job).iterdir()
                           if not path.name.startswith(".")]
                self.assertEqual(visible, [os.path.basename(experiment)])
                self.assertEqual((folder / latest).read_text().strip(),
                                 "global_step240")


if __name__ == "__main__":
    unittest.main()

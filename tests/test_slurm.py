"""The README's batch script for SLURM, as bash reads it and with stand-ins for what SLURM brings:
its `srun` runs a node's command on this machine, its `scontrol` writes down what it is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.decisions import read_log
from search.run import main
from search.study import read_trials
from tests.cluster_cases import MARK, STORE, end_marked, free_port, token
from tests.run_cases import ROOT, write

SRUN = """#!/bin/bash
echo "$@" >> "$PLACE/srun"
while [ "$1" != ray ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$PLACE/scontrol"
"""
HOSTNAME = """#!/bin/bash
echo 127.0.0.1
"""
RAY = f"""#!/bin/bash
exec {sys.executable} -m ray.scripts.scripts "$@" --object-store-memory {STORE}
"""
PYTHON = f"""#!/bin/bash
exec {sys.executable} "$@"
"""


def script() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(#!/bin/bash\n#SBATCH.*?)^```", text, re.M | re.S)[0]


def test_the_script_is_right_bash(tmp_path: Path):
    (tmp_path / "job.sh").write_text(script(), encoding="utf-8")
    read = subprocess.run(["bash", "-n", "job.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


def laid_out(place: Path, space: Path) -> dict[str, str]:
    """The script for this machine, and its environment."""
    text = script().replace("6379", str(free_port()))
    own = f"{space} --results {place / 'results'}"
    assert "spaces/gated.yaml" in text
    (place / "job.sh").write_text(text.replace("spaces/gated.yaml", own), encoding="utf-8")
    stand_ins = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ray": RAY}
    (place / "bin").mkdir(exist_ok=True)
    for name, body in (stand_ins | {"python": PYTHON}).items():
        (path := place / "bin" / name).write_text(body, encoding="utf-8")
        path.chmod(0o755)
    job = {"NUM_NODES": "2", "ID": "17"}
    return {
        **os.environ,
        **{f"SLURM_JOB_{name}": value for name, value in job.items()},
        "SLURM_CPUS_PER_TASK": "1",
        "SLURMD_NODENAME": "first",
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PLACE": str(place),
        MARK: str(place),
        "PYTHONPATH": str(ROOT),
    }


def submitted(place: Path, space: Path) -> subprocess.Popen[bytes]:
    with (place / "job.out").open("ab") as out:
        return subprocess.Popen(
            ["bash", str(place / "job.sh")],
            env=laid_out(place, space),
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )


@pytest.mark.slow
def test_a_job_that_is_stopped_is_queued_again_and_goes_on(tmp_path: Path):
    space, folder = write(tmp_path, trials=12, epochs=6), tmp_path / "results" / "rings"
    with token(tmp_path):
        try:
            job = submitted(tmp_path, space)
            while job.poll() is None and not any(x["what"] == "run" for x in read_log(folder)):
                time.sleep(0.1)
            job.send_signal(signal.SIGTERM)
            assert job.wait() == 143, (tmp_path / "job.out").read_text()
            told = (tmp_path / "job.out").read_text()
            assert "stopped; what has ended is kept" in told and "Traceback" not in told
            assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
            srun = (tmp_path / "srun").read_text()
            assert srun.startswith("--nodes 1 --ntasks 1 --exclude first ray start --address 127.")
            end_marked(tmp_path)  # as SLURM does when the script has ended
            before = [t for t in read_trials(folder) if t.state == "complete"]
            job = submitted(tmp_path, space)
            assert job.wait() == 0, (tmp_path / "job.out").read_text()
        finally:
            end_marked(tmp_path)
    after = read_trials(folder)
    assert before and all(trial in after for trial in before)
    complete = [t for t in after if t.state == "complete"]
    assert len([t for t in complete if t.origin == "search"]) == 12
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    assert main(["--check", str(folder), "--dry-run"]) == 0

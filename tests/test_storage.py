"""Studies on a database server: URLs, passwords, who may write, and what is kept of them."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest

from search.database.storage import POINTER, expanded, url_problem
from search.environment import environment_variables
from search.errors import SpaceError, StudyError
from search.orphans import descendants
from search.space.space import load_space
from search.study import open_study, read_trials

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hush/h@sh:1"

YAML = f"""
name: stored
task: {ROOT / "tests" / "toy_task.py"}
recipe: {{epochs: 2}}
activation:
  F:
    - x * sigmoid(s * x) where s in log[0.5, 2]
baselines: [relu, silu]
learning_rate: {{grid: [0.03, 0.3], default: 0.3, extend: false}}
search: {{sampler: random, trials: 6, seed: 0}}
batching: 4
"""


def write(folder: Path) -> Path:
    path = folder / "stored.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def begun(folder: Path, url: str, *settings: str, fresh: bool = False) -> str:
    """Open a study by URL, leave a trial in it, close it; its name."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    space = load_space(write(folder), [f"storage={url}", *settings])
    study = open_study(results, space, True, fresh)
    try:
        launch = study.next_waiting()
        if launch is not None:  # one of the two baselines
            study.finish(launch.number, state="diverged", reason="a test")
        return study.name
    finally:
        study.close()


def refused(folder: Path, url: str, *settings: str) -> str:
    with pytest.raises(StudyError) as caught:
        begun(folder, url, *settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite:////tmp/study.db", ""),
        ("postgres", "not a URL; expected a database URL"),
        ("", "not a URL; expected a database URL"),
        ("nosql://host/db", "unknown kind of database"),
        ("mysql+pymysql://me:hush@host/db", "the URL holds a password"),
        ("mysql+pymysql://me@host/db?password=hush", "the URL holds a password"),
        ("mysql+pymysql://me:${PW}@host/db?password=${PW}", ""),
        ("mysql+pymysql://me:x${PW}@host/db", "the URL holds a password"),
    ],
)
def test_a_url_is_judged_without_repeating_it(url: str, problem: str):
    found = url_problem(url)
    assert found.startswith(problem) and (problem or not found)
    assert "hush" not in found


def test_a_password_in_the_space_file_is_refused_and_not_told(tmp_path: Path):
    with pytest.raises(SpaceError) as caught:
        load_space(write(tmp_path), ["storage=mysql+pymysql://me:hush@host/db"])
    (line,) = caught.value.problems
    assert "storage: the URL holds a password; expected ${NAME} in its place" in line
    assert "hush" not in line


def test_variables_are_filled_in_part_by_part():
    environment = {"U": "me", "PW": SECRET, "H": "db.example"}
    url = expanded("postgresql+psycopg://${U}:${PW}@${H}:5433/studies", environment)
    assert (url.username, url.password, url.host, url.port) == ("me", SECRET, "db.example", 5433)
    with pytest.raises(StudyError, match="the variable PW is not set"):
        expanded("postgresql://me:${PW}@host/db", {})


def test_a_study_goes_on_at_its_url_and_begins_anew_there(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'server.db'}"
    name = begun(tmp_path, url)
    results = tmp_path / "results"
    assert json.loads((results / POINTER).read_text()) == {"storage": url, "study": name}
    assert begun(tmp_path, url) == name
    states = [t.state for t in read_trials(results)]
    assert states.count("diverged") == 2 and not (results / "study.db").exists()

    (results / POINTER).unlink()  # as from another machine: the study is found by its definition
    assert begun(tmp_path, url, "search.trials=9") == name
    results.rename(tmp_path / "aside")  # as --fresh does
    assert begun(tmp_path, url, fresh=True) == f"{name}.2"
    assert len(read_trials(tmp_path / "aside")) == 2  # its pointer still finds the first

    other = begun(tmp_path / "results", url, "search.seed=5")  # another folder, another definition
    assert other not in (name, f"{name}.2")


def test_what_does_not_belong_together_is_refused_in_one_line(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'server.db'}"
    begun(tmp_path, url)
    assert "the space has changed" in refused(tmp_path, url, "search.seed=5")
    empty = f"sqlite:///{tmp_path / 'other.db'}"
    assert "holds no study stored-" in refused(tmp_path, empty)
    with pytest.raises(StudyError, match=r"begun with storage: sqlite:///.*; expected that"):
        open_study(tmp_path / "results", load_space(tmp_path / "stored.yaml"), True)
    unset = "mysql+pymysql://me:${NOT_SET_ANYWHERE}@host/db"
    (tmp_path / "new").mkdir()
    assert "the variable NOT_SET_ANYWHERE is not set" in refused(tmp_path / "new", unset)


def test_the_place_of_a_study_is_not_its_definition(tmp_path: Path):
    plain = load_space(write(tmp_path))
    stored = load_space(write(tmp_path), ["storage=sqlite:////tmp/study.db"])
    assert stored.definition() == plain.definition()
    assert stored.resolved()["storage"] == "sqlite:////tmp/study.db"


# --- PostgreSQL ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server of our own, as a user without rights."""

    data: Path
    port: int
    owner: str | None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://me:${{SEARCH_TEST_SECRET}}@127.0.0.1:{self.port}/postgres"

    def act(self, *command: str) -> None:
        # What PostgreSQL says goes into a file: a server that is started keeps a pipe open.
        with (self.data.parent / "said").open("ab") as said:
            subprocess.run(
                command, check=True, user=self.owner, stdout=said, stderr=said, cwd=self.data
            )

    def control(self, *command: str) -> None:
        self.act("pg_ctl", "-D", str(self.data), "-w", "-t", "120", *command)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.control("-o", options, "-l", str(self.data / "log"), "start")

    def kill(self) -> None:
        """With SIGKILL; its other processes end when they see that."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        below = [f"{first}:", *descendants(first)]
        os.kill(first, signal.SIGKILL)
        while any(Path(f"/proc/{each.partition(':')[0]}").exists() for each in below):
            time.sleep(0.1)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    """A server that runs; its password is in SEARCH_TEST_SECRET."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl") and find_spec("psycopg")):
        pytest.skip("needs PostgreSQL's initdb and pg_ctl on the path, and psycopg")
    owner = server_owner()
    # Not pytest's own folder: that is closed to the server's user.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data, words = Path(folder) / "data", Path(folder) / "secret"
        words.write_text(SECRET, encoding="utf-8")
        data.mkdir()
        if owner:
            Path(folder).chmod(0o755)
            shutil.chown(data, owner)
        found = Server(data, free_port(), owner)
        found.act(
            "initdb", "-D", str(data), "-U", "me", "--auth=scram-sha-256", f"--pwfile={words}"
        )
        words.unlink()
        found.start()
        with environment_variables({"SEARCH_TEST_SECRET": SECRET}):
            yield found
        found.control("-m", "immediate", "stop")


@pytest.fixture
def server(postgresql: Server) -> str:
    """Its URL."""
    return postgresql.url


def server_owner() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_server_keeps_a_study_for_one_driver(tmp_path: Path, server: str):
    name = begun(tmp_path, server)
    (tmp_path / "results").rename(tmp_path / "first")
    results = tmp_path / "results"
    results.mkdir()
    space = load_space(tmp_path / "stored.yaml", [f"storage={server}"])
    study = open_study(results, space, True)
    assert study.name == name
    assert f"another search writes study {name}" in refused(tmp_path, server)
    study.close()
    assert begun(tmp_path, server) == name
    assert holds_no_secret(tmp_path)
    with environment_variables({"SEARCH_TEST_SECRET": "wrong"}):
        told = refused(tmp_path, server)
    assert "\n" not in told and "password authentication failed" in told and "wrong@" not in told


@pytest.mark.slow
def test_a_killed_search_goes_on_from_the_server(tmp_path: Path, server: str):
    command = [sys.executable, "-m", "search.run", str(write(tmp_path)), "--set"]
    command += [f"storage={server}", "--results", str(tmp_path / "results")]
    quiet = subprocess.DEVNULL
    first = subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)
    folder = tmp_path / "results" / "stored"
    until = time.monotonic() + 240
    while time.monotonic() < until and first.poll() is None and len(finished(folder)) < 3:
        time.sleep(0.5)
    first.kill()
    first.wait()
    before = finished(folder)
    assert len(before) >= 3
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = {t.number: t for t in read_trials(folder)}
    assert sum(t.origin == "search" and t.state == "complete" for t in trials.values()) == 6
    assert all(trials[number].runs == runs for number, runs in before.items())
    assert holds_no_secret(tmp_path) and SECRET not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_killed_server_ends_the_search_in_one_line_and_it_goes_on(
    tmp_path: Path, postgresql: Server
):
    space = write(tmp_path)
    text = space.read_text(encoding="utf-8").replace("trials: 6", "trials: 40")
    space.write_text(text.replace("name: stored", "name: cut"), encoding="utf-8")
    command = [sys.executable, "-m", "search.run", str(space), "--set"]
    command += [f"storage={postgresql.url}", "--results", str(tmp_path / "results")]
    folder, pipe = tmp_path / "results" / "cut", subprocess.PIPE
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=pipe, text=True)
    while first.poll() is None and len(finished(folder)) < 3:
        time.sleep(0.5)
    before = finished(folder)
    postgresql.kill()
    _, told = first.communicate()
    try:
        assert first.returncode == 2 and 3 <= len(before) < 42, told
        assert len(told.splitlines()) == 1 and "Traceback" not in told, told
        assert told.startswith("postgresql+psycopg://me:${SEARCH_TEST_SECRET}@127.0.0.1:"), told
        with pytest.raises(StudyError, match="cannot be used: connection"):
            read_trials(folder)
    finally:
        postgresql.start()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = finished(folder)
    assert len(after) == 42
    assert all(after[number] == runs for number, runs in before.items())
    assert holds_no_secret(tmp_path) and SECRET not in told + done.stdout + done.stderr


def finished(folder: Path) -> dict[int, tuple]:
    try:
        return {t.number: t.runs for t in read_trials(folder) if t.state == "complete"}
    except (StudyError, optuna.exceptions.OptunaError):
        return {}  # not begun yet


def holds_no_secret(folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return not any(SECRET.encode() in path.read_bytes() for path in files)

"""Searches on clusters of several nodes, all of this machine: what is sent, where it runs, how many
run at once, and that nodes may come and go."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private.authentication_test_utils import reset_auth_token_state
from ray.cluster_utils import Cluster

from search.decisions import read_log
from search.environment import environment_variables
from search.errors import StudyError, TaskError
from search.plan import slots
from search.results import lasting
from search.space.settings import Resources
from search.study import read_trials
from search.training.from_space import task_of, training_of
from search.training.planner import measured
from search.tuner import on_a_worker, plan_on_a_cluster
from search.tuner.capacity import Capacity, Node, most_at_once
from search.tuner.cluster import running_ray
from search.tuner.shipping import FOLDER, JOB, Origin, runtime_env
from tests.cluster_cases import LOADS, STORE, TESTS, search, space, token


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without processors and two nodes with one each."""
    with token(tmp_path_factory.mktemp("token")):
        found = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE}
        )
        for _ in range(2):
            found.add_node(num_cpus=1, object_store_memory=STORE)
        yield found
        found.shutdown()


def test_a_search_runs_on_the_nodes_of_a_cluster(tmp_path: Path, cluster: Cluster):
    wanted = space(tmp_path / "space")
    study, _ = search(wanted, tmp_path / "results", cluster.address)
    trials = [t for t in read_trials(tmp_path / "results") if t.state == "complete"]
    assert len(trials) == 6 and study.counts()["complete"] == 4
    loads = (tmp_path / "space" / LOADS).read_text().splitlines()
    # Both files lie where the driver has them, so that is where they were read from.
    assert set(loads) == {f"{tmp_path / 'space' / 'task.py'} hello"} and len(loads) == 2
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_node_without_the_files_gets_them(tmp_path: Path, cluster: Cluster):
    wanted = space(tmp_path / "space")
    training = training_of(wanted, task_of(wanted))
    with running_ray(wanted, cluster.address) as found:
        (tmp_path / "space" / "neighbour.py").unlink()  # now it is as on a node of its own

        # Local ones: the functions of a test's module would be looked for on the node by name.
        def where(origin: Origin, task: str, folder: Path) -> str:
            return origin.task(task, folder)

        def packages() -> list[str]:
            return [each for each in sys.path if (Path(each) / "search").is_dir()]

        sent = found.origin, wanted.task, training.folder
        path = Path(ray.get(ray.remote(where).remote(*sent)))
        assert path.name == "task.py" and FOLDER in path.parts
        assert (path.parent / "neighbour.py").is_file()
        # The package too, though a node that has the driver's folder takes that one.
        assert any("_ray_pkg" in each for each in ray.get(ray.remote(packages).remote()))


@pytest.mark.slow
def test_measurements_are_taken_on_a_node(tmp_path: Path, cluster: Cluster):
    wanted = space(tmp_path)
    training = training_of(wanted, task_of(wanted))
    with running_ray(wanted, cluster.address) as joined:
        assert on_a_worker(wanted, joined, lambda _: os.getpid(), training) != os.getpid()
    plan = plan_on_a_cluster(wanted, cluster.address, training)
    assert plan.concurrent == 2 and plan.run_seconds > 0
    (tmp_path / "task.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    with (
        running_ray(wanted, cluster.address) as joined,
        pytest.raises(TaskError, match="nothing_of_this_name") as caught,
    ):
        on_a_worker(wanted, joined, measured, training)
    assert len(caught.value.problems) == 1


@pytest.mark.slow
def test_what_cannot_be_joined_or_is_too_small_gives_one_line(tmp_path: Path, cluster: Cluster):
    wanted = space(tmp_path, "resources.cpu=4")
    for address, told in {
        cluster.address: "a trial asks for 4 CPU, and no node has that; there are 3 node(s) with",
        "ray://somewhere:10001": "expected --address auto on its head node, or ray job submit",
    }.items():
        with pytest.raises(StudyError) as caught:
            search(wanted, tmp_path / "results", address)
        assert told in str(caught.value) and "\n" not in str(caught.value)
    with environment_variables({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}):
        reset_auth_token_state()
        with pytest.raises(StudyError, match="no cluster was joined") as caught:
            search(wanted, tmp_path / "results", cluster.address)
    reset_auth_token_state()
    assert "oken" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_search_grows_with_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("search.tuner.capacity.EVERY", 0.5)
    wanted = space(tmp_path, "search.trials=20", "recipe.epochs=60")
    with token(tmp_path):
        # Ended by this test: at its own exit Ray would want signals, which a thread has not.
        head = {"num_cpus": 0, "object_store_memory": STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)

        def grow() -> None:
            while not any(line["what"] == "ended" for line in read_log(tmp_path / "results")):
                time.sleep(0.1)
            cluster.add_node(num_cpus=2, object_store_memory=STORE)

        try:
            cluster.add_node(num_cpus=2, object_store_memory=STORE)
            grows = threading.Thread(target=grow)
            grows.start()
            search(wanted, tmp_path / "results", cluster.address)
            grows.join()
        finally:
            cluster.shutdown()
    told = [line["what"] for line in read_log(tmp_path / "results")]
    # At first: two slots, and one that is proposed ahead.
    assert told[: told.index("ended")].count("launched") <= 2 + 1
    workers = (tmp_path / LOADS).read_text().splitlines()
    assert len(workers) == 4  # a process for each of the four processors
    trials = [t for t in read_trials(tmp_path / "results") if t.state == "complete"]
    assert len(trials) == 22


@pytest.mark.slow
def test_the_driver_keeps_a_processor_of_its_node(tmp_path: Path):
    with token(tmp_path):
        found = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": STORE}
        )
        found.add_node(num_cpus=1, object_store_memory=STORE)
        try:
            with running_ray(space(tmp_path / "space"), found.address) as joined:
                assert joined.driver == ray.get_runtime_context().get_node_id()
                assert Capacity(Resources(), joined.driver)() == 2
                assert ray.available_resources()["CPU"] == 2
        finally:
            found.shutdown()


# --- without Ray ---------------------------------------------------------------------------------


def test_room_is_counted_node_by_node():
    nodes = [Node("head", 2, 0), Node("a", 7.5, 2), Node("b", 16, 1)]
    assert most_at_once(Resources(cpu=4), nodes) == 5  # not 25.5 / 4
    assert most_at_once(Resources(cpu=1, gpu=0.4), nodes) == 6
    assert most_at_once(Resources(cpu=1, gpu=2), nodes) == 1
    assert most_at_once(Resources(cpu=1), nodes, driver="head") == 24
    assert most_at_once(Resources(gpu=1), []) == 0
    assert most_at_once(Resources(gpu=1), [], grows=True) == 1
    assert most_at_once(Resources(), nodes, grows=True) == 50
    assert slots(Resources(cpu=0.1, gpu=0.1), cpus=2, gpus=1) == 10


def test_what_is_sent_and_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = space(tmp_path / "space")
    (tmp_path / "space" / "parts").mkdir()
    (tmp_path / "space" / "parts" / "__init__.py").touch()
    (tmp_path / "space" / "data").mkdir()
    (tmp_path / "space" / "data" / "no_module.py").touch()
    variables = {"ACTIVATION_SEARCH_CACHE": "/scratch/kernels", "PGPASSWORD": "hush"}
    folder = wanted.source.parent
    origin, brought = runtime_env([wanted.task, "digits"], folder, tmp_path / "sent", variables)
    package, files = map(Path, brought["py_modules"])
    assert package == TESTS.parent / "search" and files == tmp_path / "sent" / FOLDER
    sent = {"/".join(path.relative_to(files).parts[1:]) for path in files.rglob("*.py")}
    assert sent == {"task.py", "neighbour.py", "parts/__init__.py"}
    assert brought["env_vars"]["ACTIVATION_SEARCH_CACHE"] == "/scratch/kernels"
    assert "hush" not in str(brought)

    monkeypatch.setattr(sys, "path", [str(tmp_path / "sent"), *sys.path])
    own = str((folder / "task.py").resolve())
    assert origin.task("digits", folder) == "digits"
    assert origin.task("./task.py", folder) == own
    (folder / "neighbour.py").write_text("WORD = 'an older one'\n")
    assert origin.task("./task.py", folder) == str(files / origin.files["./task.py"])
    assert Origin().task("./task.py", folder) == "./task.py"


def test_a_job_brings_the_package_itself(tmp_path: Path):
    job = '{"runtime_env": {"working_dir": "gcs://x.zip", "env_vars": {"TRITON_CACHE_DIR": "/a"}}}'
    variables = {JOB: job, "TRITON_CACHE_DIR": "/a"}
    _, brought = runtime_env(["digits"], tmp_path, tmp_path / "sent", variables)
    assert "py_modules" not in brought and "TRITON_CACHE_DIR" not in brought["env_vars"]


def test_a_working_directory_that_is_unpacked_anew_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.chdir(folder)
    origin = Origin(os.getcwd())
    folder.rmdir()
    origin.settle()  # in between there is nothing to go to
    with pytest.raises(FileNotFoundError):
        os.getcwd()
    folder.mkdir()
    origin.settle()
    assert os.getcwd() == str(folder)


def test_results_outlast_a_job():
    job = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_0123")
    kept = lasting(Path("results"), job, Path("/home/me"))
    assert kept == Path("/home/me/activation-search/results")
    assert lasting(Path("/data/results"), job, Path("/home/me")) == Path("/data/results")
    assert lasting(Path("results"), Path("/home/me/work")) == Path("results")

"""The head of a cluster dies: the search ends with a line, and goes on elsewhere."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from books import books_of, record
from ray.cluster_utils import Cluster

from search.run import main
from search.tuner.head import LOOKS, head_watched
from tests.cluster_cases import STORE, token
from tests.run_cases import driver, words, write


def test_a_head_that_does_not_answer_ends_the_program(capsys: pytest.CaptureFixture[str]):
    codes: list[int] = []
    ended = threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1000)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with head_watched(address, end, every=0.005):
            assert not ended.wait(0.005 * LOOKS * 5), "it answered"
            server.close()
            assert ended.wait()
    assert codes == [2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"address: {address}: the head of the cluster does not answer any more")


def test_a_search_that_has_ended_is_not_watched():
    with head_watched("127.0.0.1:1", lambda _: pytest.fail("it was ended"), every=3600):
        pass


@pytest.mark.slow
def test_a_search_whose_head_dies_ends_with_a_line_and_goes_on(tmp_path: Path):
    space, folder = write(tmp_path, trials=20, epochs=6), tmp_path / "results" / "rings"
    with token(tmp_path):
        head = {"num_cpus": 0, "object_store_memory": STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
        try:
            search = driver(words(space, "--address", str(cluster.address)))
            assert search.stdout is not None
            while " at rate " not in (line := search.stdout.readline()):
                assert line, search.communicate()
            killed = time.monotonic()
            for node in [*cluster.worker_nodes, cluster.head_node]:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            out, told = search.communicate()
            seconds = time.monotonic() - killed
        finally:
            cluster.shutdown()
    assert search.returncode == 2, told
    assert "the head of the cluster does not answer any more" in told.splitlines()[-1]
    assert "Traceback" not in told + out and "state-dump" not in out
    assert main(words(space)) == 0
    found = books_of(folder)
    record("the head of a cluster killed, until the line", 1, found, [seconds])
    assert (found.lost, found.repeated, found.unended, found.trials) == (0, 0, 0, 22)

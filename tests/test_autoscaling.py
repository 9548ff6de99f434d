"""A search on a cluster that starts nodes for what waits: Ray's autoscaler, its nodes being further
processes of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.study import read_trials
from tests.cluster_cases import STORE, free_port, ray_started, search, space

pytestmark = pytest.mark.slow


def configuration(address: str) -> dict[str, object]:
    """A head without processors, and at most two nodes with one each."""
    lists = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    worker = {"CPU": 1, "object_store_memory": STORE}
    return {
        "cluster_name": "fake",
        "max_workers": 2,
        "provider": {"type": "fake_multinode", "gcs_address": address},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "trainer": {"resources": worker, "node_config": {}, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        **{f"{each}_commands": [] for each in lists},
    }


def test_nodes_are_started_for_a_search_and_train_it(tmp_path: Path):
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = tmp_path / "autoscaling.yaml"
    config.write_text(json.dumps(configuration(address)), encoding="utf-8")
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=0"]
    head += ["--include-dashboard=false", f"--object-store-memory={STORE}"]
    variables = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "f" * 51 + "00000",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with ray_started(tmp_path, *head, f"--autoscaling-config={config}", **variables):
        wanted = space(tmp_path / "space")
        study, _ = search(wanted, tmp_path / "results", address)
    trials = [t for t in read_trials(tmp_path / "results") if t.state == "complete"]
    assert len(trials) == 6 and study.counts()["complete"] == 4

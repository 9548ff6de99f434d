"""Records as TensorBoard's and MLflow's, read back with those packages' own means."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from records_cases import study_trials

from search.errors import StudyError
from search.records import Trial
from search.tracking.event_files import places, write_events
from search.tracking.mlflow_runs import write_runs


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    """Of every state."""
    return study_trials()[:12]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What an event file holds, by tag: (step, value)."""
    from tensorboardX.proto import event_pb2

    read = vars(event_pb2)["Event"].FromString  # made at import: no checker knows it
    (path,) = folder.glob("events.*")
    data, found = path.read_bytes(), dict[str, list[tuple[int, float]]]()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = read(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_every_curve_is_in_an_event_file(tmp_path: Path, trials: list[Trial]):
    runs = list(places(trials, tmp_path))
    assert write_events(trials[:-1], tmp_path, True) < len(runs)
    assert write_events(trials, tmp_path, True) == len(trials[-1].runs)
    assert write_events(trials, tmp_path, True) == 0
    for place, run in runs:
        found = scalars(place)
        assert [step for step, _ in found.get("validation/score", [])] == [
            point.step for point in run.curve
        ]
        for (_, value), point in zip(found.get("training/loss", []), run.curve, strict=True):
            assert value == pytest.approx(point.train_loss, rel=1e-6, nan_ok=True)
    assert not list(tmp_path.rglob("*.draft"))


def test_the_study_is_one_curve(tmp_path: Path, trials: list[Trial]):
    write_events(trials, tmp_path, True)
    found = scalars(tmp_path / "study")
    scored = [t for t in trials if t.origin == "search" and t.score is not None]
    assert [step for step, _ in found["study/score"]] == [trial.number for trial in scored]
    best = [value for _, value in found["study/best"]]
    assert best == sorted(best) and best[-1] == pytest.approx(max(t.score or 0 for t in scored))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy
def test_mlflow_has_every_trial_once(tmp_path: Path, trials: list[Trial]):
    pytest.importorskip("mlflow", exc_type=ImportError)
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ended = [t for t in trials if t.state in ("complete", "pruned", "diverged", "failed")]
    assert write_runs(trials[:3], "gated", uri) <= 3
    write_runs(trials, "gated", uri)
    assert write_runs(trials, "gated", uri) == 0
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("gated")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.params["expression"] for run in parents} == {t.expression for t in ended}
    assert len(parents) == len(ended)
    assert len(runs) - len(parents) == sum(len(trial.runs) for trial in ended)


@pytest.mark.parametrize("package", ["tensorboardX", "mlflow"])
def test_a_missing_package_is_told_in_one_line(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in (package, "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    extra = "tensorboard" if package == "tensorboardX" else package
    with pytest.raises(StudyError) as caught:
        if extra == "mlflow":
            write_runs([], "gated", "sqlite:///nowhere.db")
        else:
            write_events([], tmp_path, True)
    assert str(caught.value) == (
        f"--{extra} needs the package {package}; expected pip install 'activation-search[{extra}]'"
    )

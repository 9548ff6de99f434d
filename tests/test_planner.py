"""How trials share a machine: what is chosen from measured numbers, and that they are measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from search.errors import StudyError
from search.plan import room_of, side_by_side
from search.space.settings import Resources
from search.space.space import load_space
from search.training.choice import Choice, read_choice, write_choice
from search.training.planner import pays, planned, with_compile
from search.training.prepared import prepare
from search.training.side_by_side import (
    CONTEXT,
    Room,
    Way,
    fastest,
    time_ways,
    ways_on_cpu,
    ways_on_gpu,
)
from tests.batched_cases import training

GIB = 2**30
LONG = 10**8
"""Runs of a study that is worth any timing."""


def test_on_a_cpu_many_processes_stand_against_one_with_all_threads():
    shapes = [(2, 1, 10), (2, 1, 1), (1, 2, 10), (1, 2, 1)]
    assert ways_on_cpu(2, 2, 1, (10, 1)) == [Way(*shape) for shape in shapes]
    assert ways_on_cpu(8, 16, 2, (10,)) == [Way(8, 2, 10), Way(1, 16, 10)]
    assert ways_on_cpu(1, 1, 1, (10,)) == [Way(1, 1, 10)]


@pytest.mark.parametrize(
    ("most", "memory", "total", "processes"),
    [
        (4, GIB, 80 * GIB, [1, 2, 4]),  # the resources' bound
        (16, 8 * GIB, 80 * GIB, [1, 2, 4, 8]),  # eight batches, and nine would not fit
        (16, 30 * GIB, 80 * GIB, [1, 2]),
        (16, 79 * GIB, 80 * GIB, [1]),  # one is always tried: it is halved when it fails
        (1, GIB, 80 * GIB, [1]),
    ],
)
def test_on_a_gpu_as_many_processes_as_its_memory_holds(
    most: int, memory: int, total: int, processes: list[int]
):
    ways = ways_on_gpu(most, 1, 10, memory, total)
    assert [way.processes for way in ways] == processes
    for way in ways[1:]:
        assert way.processes * (memory + CONTEXT) <= 0.9 * total


def test_the_fastest_way_is_taken_and_a_tie_goes_to_the_first():
    first, second, third = Way(2, 1, 10), Way(2, 1, 1), Way(1, 2, 10)
    assert fastest({first: 100.0, second: 102.0, third: 90.0}) == first
    assert fastest({first: 100.0, second: 102.0, third: 150.0}) == third
    assert fastest({second: 100.0}) == second


def test_trials_side_by_side_follow_from_the_choice():
    cpu, shared = Resources(), Resources(gpu=0.1)
    assert side_by_side(cpu, None, cpus=4, gpus=0) == (4, 0.0)
    assert side_by_side(cpu, 1, cpus=4, gpus=0) == (1, 0.0)
    assert side_by_side(shared, None, cpus=16, gpus=1) == (10, 0.1)
    assert side_by_side(shared, 4, cpus=16, gpus=1) == (4, 0.25)
    assert side_by_side(shared, 3, cpus=16, gpus=2) == (6, 0.3333)
    assert side_by_side(shared, 8, cpus=2, gpus=1) == (2, 0.125)
    with pytest.raises(StudyError):
        side_by_side(shared, 4, cpus=4, gpus=0)


def test_compiling_must_win_back_its_seconds_and_those_of_an_extension():
    assert pays(400_000, 5_000, 10_000, spent=19)
    assert not pays(400_000, 5_000, 10_000, spent=21)
    assert not pays(10**9, 5_000, 4_000, spent=0.1)


def test_a_plain_loop_is_not_compiled_by_itself():
    made = training()
    choice = with_compile(Choice(1), prepare(made), made.grid)
    assert (choice.compile, choice.words) == (
        "off",
        "runs one by one; not compiled: runs train one by one",
    )


@pytest.mark.slow
def test_a_short_study_is_not_compiled_and_says_what_it_would_take(tmp_path: Path):
    made = training(recipe={"compile": "auto"})
    told, choice = planned(made, None, tmp_path / "batching.json")
    assert choice.compile == "off" == told.recipe["compile"]
    assert "a step as it is: inductor " in choice.words
    assert planned(made, None, tmp_path / "batching.json")[1] == choice


def test_processes_are_timed_at_the_same_time_and_the_choice_is_kept(tmp_path: Path):
    path, made, room = tmp_path / "batching.json", training(), Room(2, 2, LONG)
    told, choice = planned(made, None, path, room)
    speeds = dict(choice.ways)
    assert {(way.processes, way.threads) for way in speeds} == {(2, 1), (1, 2)}
    assert {way.at_once for way in speeds} >= {1, 4}
    assert choice.way is not None and choice.way == fastest(speeds)
    assert (told.processes, told.threads, told.at_once) == (
        choice.way.processes,
        choice.way.threads,
        choice.way.at_once,
    )
    assert choice.gain > 0 and f", {choice.way.shape}; model-steps/s: " in choice.words
    assert planned(made, None, path, room) == (told, choice)
    written = path.read_text(encoding="utf-8")
    assert planned(made, None, path, None)[1].way is None  # another question
    assert path.read_text(encoding="utf-8") != written


def test_a_short_study_and_a_single_processor_have_nothing_to_choose(tmp_path: Path):
    for room in (Room(2, 2, 10), Room(1, 1, LONG), None):
        told, choice = planned(training(), None, None, room)
        assert (choice.way, choice.ways, told.processes, told.threads) == (None, (), None, 1)


def test_a_cluster_takes_the_measurement_and_it_is_not_taken_for_this_machines(tmp_path: Path):
    path, asked = tmp_path / "batching.json", []

    def there(*given: object) -> Choice:
        asked.append(given)
        return Choice(2, ((1, 5.0), (2, 8.0)))

    told, choice = planned(training(), None, path, None, there)
    assert (told.at_once, told.processes, len(asked)) == (2, None, 1)
    assert planned(training(), None, path, None, there)[1] == choice and len(asked) == 1  # kept
    assert planned(training(), 4, path, None, there)[1].at_once == 4 and len(asked) == 1
    assert planned(training(), None, path)[1] != choice


@pytest.mark.slow
def test_batching_that_is_set_leaves_the_processes_to_be_chosen():
    told, choice = planned(training(), 2, None, Room(2, 2, LONG))
    assert {way.at_once for way, _ in choice.ways} == {2} and told.at_once == 2
    assert choice.words.startswith("2 runs in one program, ")


@pytest.mark.slow
def test_what_does_not_load_in_another_process_is_an_error_here_too(tmp_path: Path):
    missing = replace(training(), task="nowhere.py", folder=tmp_path)
    with pytest.raises(Exception, match=r"nowhere\.py"):
        time_ways(partial(prepare, missing), [Way(1, 1, 1)], [(0.1, 0)])


def test_a_choice_is_read_as_it_was_written(tmp_path: Path):
    path, way = tmp_path / "batching.json", Way(2, 1, 10)
    choice = Choice(10, ((1, 5.0), (10, 9.0)), "", way, ((way, 17.0),), "inductor", "said so")
    write_choice(path, choice, {"cpus": 2})
    assert read_choice(path, {"cpus": 2}) == choice
    assert read_choice(path, {"cpus": 4}) is None
    assert choice.gain == 17 / 2 / 5
    assert choice.words == (
        "10 runs in one program, 2 processes × 1 thread; model-steps/s: 5 one by one, 9 with 10,"
        " 17 in 2 processes × 1 thread with 10; said so"
    )


SPACE = """
name: study
task: digits
baselines: [relu, gelu]
learning_rate: {grid: [0.01, 0.1], default: 0.1}
"""


def test_a_space_that_settles_it_leaves_nothing_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    room = room_of(load_space(path))
    assert room is not None and room.runs == 2 * 2 * 2 and room.most == room.cpus
    assert room_of(load_space(path, ["resources={max_concurrent: 1}"])) is None
    assert room_of(load_space(path, ["resources={cpu: 10000}"])) is None
    assert room_of(load_space(path, ["resources={strategy: ddp, workers: 2}"])) is None
    assert room_of(load_space(path), "10.0.0.1:6379") is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert room_of(load_space(path)) is None

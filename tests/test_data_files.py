"""Data sets in their genuine formats: found, downloaded once, read without running code."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search.tasks import TASKS
from search.tasks.cifar import read_batches
from search.tasks.data_root import default_data_root, require_files
from search.tasks.fashion_mnist import DEBIAN
from search.tasks.idx import read_idx
from search.tasks.mnist import FILES, read_mnist_files
from search.tasks.models.normalise import fit_normalise
from search.tasks.splitting import fixed_permutation
from search.tasks.task import options_with
from tests.data_files import idx, python2_batch, write_cifar, write_mnist
from tests.task_cases import ROOT, problems


def test_the_cache_folder_of_each_platform(tmp_path: Path):
    home = {"HOME": str(tmp_path)}
    assert default_data_root("linux", home) == tmp_path / ".cache/activation-search/data"
    elsewhere = {**home, "XDG_CACHE_HOME": "/x"}
    assert default_data_root("linux", elsewhere) == Path("/x/activation-search/data")
    assert default_data_root("darwin", home) == tmp_path / "Library/Caches/activation-search/data"
    windows = {"LOCALAPPDATA": str(tmp_path / "local")}
    assert default_data_root("win32", windows) == tmp_path / "local/activation-search/data"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_become_splits(tmp_path: Path, packed: bool, name: str):
    layout = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    arrays = write_mnist(tmp_path / layout / "raw", 60, 20, packed)
    task = TASKS[name]
    options = options_with(task, {"validation_size": 10, "train_size": 40})
    splits = task.load(tmp_path, **options)
    order = fixed_permutation(60)
    assert splits.train.inputs.shape == (40, 1, 28, 28) and splits.train.inputs.dtype == torch.uint8
    assert np.array_equal(splits.validation.inputs[:, 0], arrays["train-images"][order[:10]])
    assert np.array_equal(splits.train.targets, arrays["train-labels"][order[10:50]])
    assert np.array_equal(splits.test.inputs[:, 0], arrays["t10k-images"])
    assert splits.test.targets.dtype == torch.int64 and splits.outputs == 10


def test_idx_is_read_as_torchvision_reads_it(tmp_path: Path):
    from torchvision.datasets.mnist import read_image_file, read_label_file

    write_mnist(tmp_path / "raw", 7, 3, packed=False)
    (images, labels), (test_images, test_labels) = read_mnist_files(
        [tmp_path / "raw" / name for name in FILES]
    )
    path = str(tmp_path / "raw")
    assert torch.equal(images[:, 0], read_image_file(f"{path}/{FILES[0]}"))
    assert torch.equal(labels, read_label_file(f"{path}/{FILES[1]}"))
    assert (len(test_images), len(test_labels)) == (3, 3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a", b"not an IDX file", "it begins with 0x6e6f7420; expected an IDX file"),
        ("a", b"", "it begins with 0x; expected an IDX file"),
        ("a", idx(np.zeros((2, 3), np.uint8)), "expected an IDX file of unsigned bytes in 1"),
        ("a", idx(np.zeros(9, np.uint8))[:-2], "7 bytes of data; expected 9"),
        ("a.gz", b"not gzip", "cannot be read: Not a gzipped file"),
        ("a.gz", b"\x1f\x8b\x08\x00", "cannot be read: "),
    ],
)
def test_idx_files_that_are_broken_give_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
):
    path = tmp_path / name
    path.write_bytes(content)
    (line,) = problems(lambda: read_idx(path, 1))
    assert line.startswith(f"{path}: ") and words in line


def test_missing_files_give_one_line_with_the_way_out(tmp_path: Path):
    def offline(folder: Path) -> None:
        raise OSError("<urlopen error [Errno -2]\nName or service not known>")

    folders = [tmp_path / "a", tmp_path / "b"]
    (line,) = problems(lambda: require_files("mnist", FILES, folders, tmp_path, offline, "do this"))
    assert line == (
        f"mnist: no train-images-idx3-ubyte (nor .gz) in {tmp_path}/a or {tmp_path}/b, and the "
        "download failed (OSError: <urlopen error [Errno -2] Name or service not known>); do this"
    )


def test_missing_files_are_downloaded_once(tmp_path: Path):
    calls = []

    def download(folder: Path) -> None:
        calls.append(folder)
        write_mnist(folder / "b", 3, 2)

    folders = [tmp_path / "a", tmp_path / "b"]
    for _ in range(2):
        found = require_files("mnist", FILES, folders, tmp_path, download, "")
        assert [path.name for path in found] == [f"{name}.gz" for name in FILES]
    assert len(calls) == 1


def test_a_download_that_breaks_off_leaves_nothing_that_looks_whole(tmp_path: Path):
    def broken(folder: Path) -> None:
        write_mnist(folder / "b", 3, 2)
        raise OSError("the line went dead")

    (line,) = problems(lambda: require_files("m", FILES, [tmp_path / "b"], tmp_path, broken, "!"))
    assert "the line went dead" in line
    assert [path.name for path in tmp_path.iterdir() if path.name != ".m.lock"] == []


_DOWNLOADER = """
import sys, time
from pathlib import Path
from search.tasks.data_root import require_files
root = Path(sys.argv[1])

def download(folder):
    with (root / "calls.txt").open("a") as log:
        log.write("call\\n")
    time.sleep(0.5)
    (folder / "set").mkdir()
    for name in "ab":
        (folder / "set" / name).write_text("whole")

print(*require_files("set", ["a", "b"], [root / "set"], root, download, ""))
"""


def test_processes_that_miss_a_data_set_together_download_it_once(tmp_path: Path):
    command = [sys.executable, "-c", _DOWNLOADER, str(tmp_path)]
    herd = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(4)]
    told = {process.communicate()[0].decode() for process in herd}
    assert told == {f"{tmp_path / 'set' / 'a'} {tmp_path / 'set' / 'b'}\n"}
    assert (tmp_path / "calls.txt").read_text() == "call\n"


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_the_real_one(tmp_path: Path):
    task = TASKS["fashion_mnist"]
    splits = task.load(tmp_path, **options_with(task, {}))
    sizes = [len(part.targets) for part in (splits.train, splits.validation, splits.test)]
    assert sizes == [55_000, 5_000, 10_000]
    assert splits.test.targets.bincount().tolist() == [1000] * 10
    both = torch.cat([splits.train.targets, splits.validation.targets])
    assert both.bincount().tolist() == [6000] * 10
    images = torch.cat([splits.train.inputs, splits.validation.inputs])
    normalise = fit_normalise(images)
    # The mean and deviation of its pixels that everybody prints.
    assert normalise.mean.item() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert normalise.std.item() / 255 == pytest.approx(0.3530, abs=5e-5)


def test_cifar_10_in_pickles_of_python_2(tmp_path: Path):
    files = {**{f"data_batch_{n}": 8 for n in range(1, 6)}, "test_batch": 6}
    images = write_cifar(tmp_path / "cifar-10-batches-py", files, "labels", 10)
    task = TASKS["cifar10"]
    splits = task.load(tmp_path, **options_with(task, {"validation_size": 10}))
    order = fixed_permutation(40)
    assert splits.train.inputs.shape == (30, 3, 32, 32) and splits.outputs == 10
    assert np.array_equal(splits.validation.inputs.flatten(1), images[order[:10]])
    assert np.array_equal(splits.test.inputs.flatten(1), images[40:])
    assert np.array_equal(splits.train.targets, order[10:] % 8)


def test_cifar_100_in_pickles_of_python_2(tmp_path: Path):
    images = write_cifar(
        tmp_path / "cifar-100-python", {"train": 30, "test": 5}, "fine_labels", 100
    )
    task = TASKS["cifar100"]
    splits = task.load(tmp_path, **options_with(task, {"validation_size": 10, "train_size": 5}))
    assert splits.outputs == 100 and len(splits.train.targets) == 5
    assert np.array_equal(splits.test.inputs.flatten(1), images[30:])
    assert splits.test.targets.tolist() == [0, 1, 2, 3, 4]


def test_a_batch_written_by_python_3_reads_the_same(tmp_path: Path):
    images = np.random.default_rng(1).integers(0, 256, (3, 3072), np.uint8)
    (tmp_path / "two").write_bytes(python2_batch(images, "labels", [1, 0, 2]))
    (tmp_path / "three").write_bytes(pickle.dumps({"data": images, "labels": [1, 0, 2]}, 2))
    two, three = (read_batches([tmp_path / name], "labels") for name in ("two", "three"))
    assert all(torch.equal(a, b) for a, b in zip(two, three, strict=True))


class Hostile:
    """A pickle of it touches a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_cannot_run_code(tmp_path: Path):
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Hostile(tmp_path / "touched")}, 2))
    (line,) = problems(lambda: read_batches([tmp_path / "batch"], "labels"))
    assert "not a CIFAR batch" in line and "it names" in line
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "EOFError"),
        (b"some text", "not a CIFAR batch in the Python format"),
        (pickle.dumps({"data": [1]}, 2), "KeyError: 'labels'"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}, 2), "uint8 (2, 5)"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 2), "float64 (2, 3072)"),
    ],
)
def test_batches_that_are_broken_give_one_line(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "batch").write_bytes(content)
    (line,) = problems(lambda: read_batches([tmp_path / "batch"], "labels"))
    assert line.startswith(f"{tmp_path / 'batch'}: ") and words in line

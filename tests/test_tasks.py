"""The tasks: data in their genuine formats, splits, models, options, recipes, a user's own."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search.activation import Activation
from search.errors import TaskError
from search.tasks import TASKS
from search.tasks.cifar import read_batches
from search.tasks.data_root import default_data_root, require_files
from search.tasks.extrapolation import BANDS, FUNCTIONS
from search.tasks.fashion_mnist import DEBIAN
from search.tasks.idx import read_idx
from search.tasks.mnist import FILES, read_mnist_files
from search.tasks.models import IMAGE_MODELS, row_of
from search.tasks.models.gpt import GPT, FeedForward, GatedFeedForward
from search.tasks.models.normalise import fit_normalise
from search.tasks.models.resnet import Block
from search.tasks.models.torchvision_models import torchvision_model
from search.tasks.splitting import carve, fixed_permutation
from search.tasks.task import Recipe, Task, find_task, options_with, recipe_with, splits_to
from tests.data_files import idx, python2_batch, write_cifar, write_mnist

ROOT = Path(__file__).resolve().parent.parent


class Counted:
    """Makes ReLUs and counts them."""

    def __init__(self) -> None:
        self.sites = 0

    def __call__(self) -> nn.Module:
        self.sites += 1
        return nn.ReLU()


def problems(call: Callable[[], object]) -> list[str]:
    """The lines of the TaskError that a call raises."""
    with pytest.raises(TaskError) as caught:
        call()
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- recipes and options -------------------------------------------------------------------------


def test_a_recipe_takes_good_values_and_converts_them():
    changed = {"weight_decay": "1e-4", "betas": [0.8, 0.9], "max_steps": None, "clip_norm": 1}
    recipe = recipe_with(Recipe(), changed)
    assert recipe == replace(Recipe(), weight_decay=1e-4, betas=(0.8, 0.9), clip_norm=1.0)


def test_every_field_of_a_recipe_can_be_set_to_its_default():
    defaults = {item.name: getattr(Recipe(), item.name) for item in fields(Recipe)}
    assert recipe_with(Recipe(epochs=77), defaults) == Recipe()


def test_all_mistakes_of_a_recipe_come_together():
    wrong = {
        "optimzer": "sgd",
        "optimizer": "adam",
        "epochs": 0,
        "momentum": 1,
        "nesterov": "yes",
        "betas": [0.9],
        "augmentation": ["flip", "corp"],
        "clip_norm": 0,
        "amp": "float32",
        "weight_decay": "much",
        "batch_size": True,
        "loss_bound": math.inf,
    }
    assert problems(lambda: recipe_with(Recipe(), wrong)) == [
        "recipe.optimzer: unknown name; did you mean 'optimizer'?",
        "recipe.optimizer: got 'adam'; expected sgd or adamw; did you mean 'adamw'?",
        "recipe.epochs: got 0; expected a whole number ≥ 1",
        "recipe.momentum: got 1; expected a number in [0, 1)",
        "recipe.nesterov: got 'yes'; expected true or false",
        "recipe.betas: got [0.9]; expected a list of 2, in square brackets",
        "recipe.augmentation: got ['flip', 'corp']; expected a list, each flip or crop; "
        "did you mean 'crop'?",
        "recipe.clip_norm: got 0; expected null or a number > 0",
        "recipe.amp: got 'float32'; expected null or bfloat16 or float16; did you mean 'float16'?",
        "recipe.weight_decay: got 'much'; expected a number ≥ 0",
        "recipe.batch_size: got True; expected a whole number ≥ 1",
        "recipe.loss_bound: got inf; expected a number > 0",
    ]


def test_nesterov_needs_momentum():
    (line,) = problems(lambda: recipe_with(Recipe(), {"nesterov": True, "momentum": 0}))
    assert line == "recipe.nesterov: got true with momentum 0; expected a momentum > 0"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_accepts_its_own_defaults(name: str):
    task = TASKS[name]
    assert task.name == name and task.title
    assert options_with(task, {}) == task.options
    assert options_with(task, task.options) == task.options
    assert task.recipe == recipe_with(task.recipe, {})


def test_options_follow_the_model():
    digits, cifar = TASKS["digits"], TASKS["cifar10"]
    assert options_with(digits, {"width": 32})["width"] == 32
    assert options_with(digits, {"model": "cnn"}) == {
        "model": "cnn",
        "train_size": 0,
        "width": 8,
        "norm": "batchnorm",
    }
    assert options_with(cifar, {"model": "torchvision:resnet18"})["image_size"] == 0
    assert options_with(cifar, {"model": "mlp"})["width"] == 512


def test_all_mistakes_of_the_options_come_together():
    wrong = {"depht": 2, "width": 0, "norm": "layer_norm", "train_size": -1, "depth": 1.5}
    assert problems(lambda: options_with(TASKS["digits"], wrong)) == [
        "options.depht: unknown name; did you mean 'depth'?",
        "options.width: got 0; expected a whole number ≥ 1",
        "options.norm: got 'layer_norm'; expected none, layernorm or batchnorm; "
        "did you mean 'layernorm'?",
        "options.train_size: got -1; expected a whole number ≥ 0",
        "options.depth: got 1.5; expected a whole number ≥ 1",
    ]


@pytest.mark.parametrize(
    ("task", "options", "line"),
    [
        ("cifar10", {"model": "resnet20", "depth": 3}, "options.depth: unknown name"),
        ("cifar10", {"model": "resnet2O"}, "options.model: unknown model 'resnet2O'; did you mean"),
        ("cifar10", {"model": 20}, "options.model: unknown model '20'"),
        ("digits", {"model": "torchvision:resnet18"}, "options.model: unknown model"),
        (
            "mnist",
            {"model": "torchvision:resnet19"},
            "options.model: unknown torchvision classifier 'resnet19'; did you mean 'resnet1",
        ),
        (
            "text",
            {"width": 30},
            "options.width: got 30 for 4 heads; expected a multiple of heads",
        ),
        (
            "extrapolation",
            {"function": "sinus"},
            "options.function: got 'sinus'; expected all, absolute, square, cubic, sine",
        ),
    ],
)
def test_options_that_do_not_fit(task: str, options: dict, line: str):
    (found,) = problems(lambda: options_with(TASKS[task], options))
    assert found.startswith(line)


def test_an_option_of_another_model_names_its_owner():
    (line,) = problems(lambda: options_with(TASKS["cifar10"], {"depth": 3}))
    assert line.endswith("; it is an option of mlp")


# --- finding a task ------------------------------------------------------------------------------


def test_built_in_tasks_are_found_by_name():
    assert find_task("digits") is TASKS["digits"]
    (line,) = problems(lambda: find_task("digit"))
    known = "task: unknown task 'digit'; did you mean 'digits'?; or a path that ends in .py"
    assert line == known


def test_a_task_of_ones_own_is_found_beside_the_file():
    task = find_task("toy_task.py", Path(__file__).parent)
    assert isinstance(task, Task) and task.name == "toy"


GOOD = """
from search.tasks.task import Split, Splits, Task
from beside_{n} import NAME

def load(data_root, size):
    return None

def build(make_activation, splits, size):
    return None

TASK = Task(name=NAME, load=load, build=build, options={{"size": 3}})
"""


def test_files_of_one_name_do_not_meet_and_may_import_their_neighbours(tmp_path: Path):
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / f"beside_{n}.py").write_text(f"NAME = 'mine {n}'")
        (folder / "my_task.py").write_text(GOOD.format(n=n))
    names = [find_task("./my_task.py", tmp_path / str(n)).name for n in (1, 2)]
    assert names == ["mine 1", "mine 2"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", "my_task.py: no TASK; expected TASK = Task("),
        ("TASK = {}", "my_task.py: TASK is a dict; expected TASK = Task("),
        (
            "import os\n\nimport no_such_thing\n",
            "my_task.py:3: error while importing: ModuleNotFoundError: No module named",
        ),
        ("def f(:\n", "my_task.py:1: error while importing: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "my_task.py:1: error while importing: SystemExit: 3"),
        (
            "from search.tasks.task import Task\n"
            "def load(data_root): ...\n"
            "def build(make_activation, splits): ...\n"
            "TASK = Task(name='mine', load=load, build=build, options={'size': 3})",
            "my_task.py: load(): got an unexpected keyword argument 'size'; "
            "expected to take every option of TASK",
        ),
    ],
)
def test_a_task_of_ones_own_that_is_wrong_gives_one_line(tmp_path: Path, source: str, words: str):
    (tmp_path / "my_task.py").write_text(source)
    (line,) = problems(lambda: find_task("my_task.py", tmp_path))
    assert words in line


def test_a_task_file_that_is_not_there(tmp_path: Path):
    (line,) = problems(lambda: find_task("./my_task.py", tmp_path))
    assert (
        line == f"{tmp_path / 'my_task.py'}: no such file; expected a Python file that defines TASK"
    )


# --- splits --------------------------------------------------------------------------------------


def test_the_permutation_is_the_same_for_ever():
    assert fixed_permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


def test_carved_parts_are_disjoint_and_nested():
    numbers = torch.arange(100)
    train, held = carve(numbers, numbers, validation_size=20, train_size=0)
    small, same = carve(numbers, numbers, validation_size=20, train_size=30)
    assert sorted(train.inputs.tolist() + held.inputs.tolist()) == list(range(100))
    assert torch.equal(held.targets, same.targets)
    assert torch.equal(small.inputs, train.inputs[:30])


@pytest.mark.parametrize(("held", "train"), [(20, 81), (100, 0), (120, 0)])
def test_more_samples_than_there_are(held: int, train: int):
    numbers = torch.arange(100)
    (line,) = problems(lambda: carve(numbers, numbers, validation_size=held, train_size=train))
    assert line.startswith("options.train_size: ") and "at most 100 samples together" in line


def test_digits_are_real_split_and_standardised():
    task = TASKS["digits"]
    splits = task.load(None, **task.options)
    again = task.load(None, **task.options)
    sizes = [len(part.targets) for part in (splits.train, splits.validation, splits.test)]
    assert sizes == [1077, 360, 360] and splits.outputs == 10
    assert splits.train.inputs.shape[1:] == (1, 8, 8)
    assert torch.equal(splits.test.inputs, again.test.inputs)
    assert abs(splits.train.inputs.mean().item()) < 1e-5
    assert abs(splits.train.inputs.std().item() - 1) < 1e-3
    assert splits.train.targets.bincount().min() > 80
    images = torch.cat([p.inputs for p in (splits.train, splits.validation, splits.test)])
    assert len(images.unique(dim=0)) == 1797


# --- files ---------------------------------------------------------------------------------------


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


# --- models --------------------------------------------------------------------------------------


def test_raw_images_are_normalised_per_channel():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2500, 3, 4, 4), generator=random, dtype=torch.uint8)
    images[:, 1] //= 7
    images[:, 2] = 9  # a constant channel
    result = fit_normalise(images)(images)
    assert result.dtype == torch.float32
    assert result.mean((0, 2, 3)).abs().max() < 1e-5
    std = result.std((0, 2, 3), correction=0)
    assert torch.allclose(std, torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "sites"),
    [
        ("mlp", {"depth": 3, "width": 16, "norm": "layernorm"}, 3),
        ("mlp", {"depth": 1, "width": 16, "norm": "none"}, 1),
        ("cnn", {"width": 4, "norm": "batchnorm"}, 3),
        ("cnn", {"width": 4, "norm": "layernorm"}, 3),
        ("cnn", {"width": 4, "norm": "none"}, 3),
        ("resnet20", {"width": 4}, 19),
        ("resnet32", {"width": 2}, 31),
        ("resnet44", {"width": 2}, 43),
        ("resnet56", {"width": 2}, 55),
        ("resnet110", {"width": 2}, 109),
    ],
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_image_model_takes_grey_and_colour(
    model: str, options: dict, sites: int, shape: tuple[int, int, int]
):
    make = Counted()
    network = row_of(model).build(make, shape, 7, **options)
    assert network(torch.zeros(2, *shape)).shape == (2, 7)
    assert make.sites == sites == sum(isinstance(m, nn.ReLU) for m in network.modules())


def test_the_small_cnn_takes_the_digits():
    network = row_of("cnn").build(nn.ReLU, (1, 8, 8), 10, width=4, norm="batchnorm")
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("model", "millions"), [("resnet20", 0.27), ("resnet56", 0.85)])
def test_resnets_weigh_what_their_paper_says(model: str, millions: float):
    network = row_of(model).build(nn.ReLU, (3, 32, 32), 10)
    assert round(trainable(network) / 1e6, 2) == millions
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert convolutions + 1 == int(model.removeprefix("resnet"))


def test_the_shortcut_of_option_a_drops_pixels_and_adds_empty_channels():
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    block = Block(nn.ReLU, 2, 4, stride=2).eval()
    nn.init.zeros_(block.convolution2.weight)
    y = block(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, 0].any() and not y[:, 3].any()


def test_torchvision_models_get_a_fresh_activation_for_every_call():
    made: list[Activation] = []

    def make() -> Activation:
        made.append(Activation("x * sigmoid(b * x) where b = 1 per channel"))
        return made[-1]

    model = torchvision_model("resnet18", make, (1, 32, 32), 7)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert len(made) == 17 and model.training
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert all(not activation.has_uninitialized() for activation in made)


def test_torchvision_models_take_images_of_another_size():
    model = torchvision_model("squeezenet1_1", nn.SiLU, (3, 8, 8), 5, image_size=32)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alexnet", "alexnet: it cannot take images of 32 × 32 (Given input size"),
        ("googlenet", "googlenet: ThreeChannels: has no ReLU or "),
    ],
)
def test_torchvision_models_that_do_not_fit(name: str, words: str):
    (line,) = problems(lambda: torchvision_model(name, nn.SiLU, (3, 32, 32), 5))
    assert line.startswith(f"options.model: torchvision:{words}")


SHAPE = {"layers": 2, "heads": 2, "width": 12, "context": 8}


@pytest.mark.parametrize("ffn", ["plain", "gated"])
def test_a_gpt_sees_the_past_alone(ffn: str):
    torch.manual_seed(0)
    make = Counted()
    model = GPT(make, 11, **SHAPE, ffn=ffn)
    x = torch.randint(11, (3, 8))
    later = x.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    y, changed = model(x), model(later)
    assert y.shape == (3, 8, 11) and make.sites == 2
    assert torch.allclose(y[:, :5], changed[:, :5], atol=1e-6)
    assert not torch.allclose(y[:, 5], changed[:, 5], atol=1e-6)


def test_a_gated_feed_forward_weighs_as_much_as_a_plain_one():
    plain, gated = trainable(FeedForward(nn.ReLU, 96)), trainable(GatedFeedForward(nn.ReLU, 96))
    assert plain == gated == 8 * 96**2


def test_an_activation_of_a_pair_gets_both_inputs():
    results = []
    for make in (nn.SiLU, lambda: Activation("x * sigmoid(x) * u")):
        torch.manual_seed(0)
        results.append(GatedFeedForward(make, 12)(torch.linspace(-3, 3, 60).reshape(1, 5, 12)))
    assert torch.allclose(*results, atol=1e-6)


# --- text and extrapolation ----------------------------------------------------------------------


def test_the_standard_text_needs_no_file():
    splits = TASKS["text"].load(None, path="", context=32)
    assert splits.train.inputs.shape[1] == 32 and len(splits.train.inputs) > 5000
    assert 60 < splits.outputs < 400


def test_a_text_is_cut_in_three_and_shifted_by_one(tmp_path: Path):
    text = "".join(chr(ord("a") + (n * n) % 7) for n in range(1000))
    (tmp_path / "text.txt").write_text(text)
    splits = TASKS["text"].load(None, path=str(tmp_path / "text.txt"), context=16)
    letters = sorted(set(text))
    start = 0
    for part, length in ((splits.train, 800), (splits.validation, 100), (splits.test, 100)):
        read = "".join(letters[n] for n in part.inputs.flatten())
        assert read == text[start : start + (length - 1) // 16 * 16]
        assert torch.equal(part.inputs[:, 1:], part.targets[:, :-1])
        assert torch.equal(part.inputs.flatten()[1:], part.targets.flatten()[:-1])
        start += length
    assert splits.outputs == len(letters)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "text.txt: No such file or directory; expected a text file"),
        (b"\xff\xfe\xfa", "text.txt: it is not UTF-8; expected a text file"),
        (b"too short", "has 9 characters; expected more than 650 for context 64"),
    ],
)
def test_a_text_that_cannot_be_used(tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(lambda: TASKS["text"].load(None, path=str(path), context=64))
    assert line.startswith("options.path: ") and words in line


def test_extrapolation_holds_out_what_lies_outside():
    splits = TASKS["extrapolation"].load(None)
    parts = (splits.train, splits.validation, splits.test)
    for part, (low, high) in zip(parts, BANDS, strict=True):
        radius = part.inputs.abs().amax(1)
        assert low < radius.min() and radius.max() <= high
        assert radius.max() - radius.min() > 0.9 * (high - low)
    assert splits.train.targets.shape == (1024, len(FUNCTIONS)) and splits.outputs == 8
    assert torch.allclose(splits.train.targets.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(splits.train.targets.std(0, correction=0), torch.ones(8), atol=1e-5)


def test_one_function_alone_is_that_function():
    splits = TASKS["extrapolation"].load(None, function="kinetic")
    a, b, c = splits.validation.inputs.double().T
    exact = a * (b**2 + c**2) / 2
    scale = np.polyfit(exact, splits.validation.targets[:, 0].double(), 1)
    error = np.polyval(scale, exact) - splits.validation.targets[:, 0].numpy()
    assert splits.validation.targets.shape == (512, 1)
    assert np.abs(error).max() < 1e-4


def test_the_error_of_extrapolation_is_the_mean_of_the_functions_own():
    task = TASKS["extrapolation"]
    outputs, targets = torch.zeros(4, 2), torch.tensor([[3.0, 0.0]] * 2 + [[-3.0, 1.0]] * 2)
    means = {name: value / 4 for name, value in task.metrics(outputs, targets).items()}
    assert task.score is not None
    assert task.score(means) == pytest.approx((3 + math.sqrt(0.5)) / 2)
    assert not task.maximize


@pytest.mark.parametrize("name", ["digits", "text", "extrapolation"])
def test_a_task_builds_loses_and_measures(name: str):
    task = TASKS[name]
    splits = task.load(None, **task.options)
    model = task.build(nn.ReLU, splits, **task.options)
    inputs, targets = splits.train.inputs[:6], splits.train.targets[:6]
    outputs = model(inputs)
    loss = task.loss(outputs, targets, 0.0)
    assert loss.ndim == 0 and math.isfinite(loss.item())
    assert all(isinstance(value, Tensor) for value in task.metrics(outputs, targets).values())


def test_image_models_are_offered_by_every_image_task():
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        assert set(TASKS[name].models) == set(IMAGE_MODELS)


def test_splits_that_are_there_already_are_not_copied():
    splits = TASKS["extrapolation"].load(None)
    assert splits_to(splits, "cpu").train.inputs is splits.train.inputs
    assert splits_to(splits, "meta").test.targets.device.type == "meta"

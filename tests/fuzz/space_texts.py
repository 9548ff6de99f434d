"""Space files, good and spoilt, drawn by Hypothesis: as trees, then as text, then as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from formula_texts import PIECES, SMALL, formulas, spoilt
from hypothesis import strategies as st

Tree = str | list["Tree"] | tuple[tuple[str, "Tree"], ...]
"""A scalar as written, a list, or a mapping whose keys may stand twice."""

VALUES: dict[str, Sequence[Tree]] = {
    "name": ("fuzz", "a-1.b"),
    "task": ("digits", (("name", "digits"), ("width", "16"), ("depth", "1")), "extrapolation"),
    "recipe": ((("epochs", "2"), ("optimizer", "adamw")), (("accumulate", "2"),), ()),
    "depth": ("4", "7", "3"),
    "baselines": (["relu", "gelu"], [], ["relu", "x * sigmoid(2 * x)"], [(("own", "tanh(x)"),)]),
    "learning_rate": (
        (("grid", ["0.1", "1e-3"]), ("default", "0.1")),
        (("grid", ["0.01"]), ("default", "0.01"), ("extend", "no"), ("halving", "on")),
        (("grid", ["1", "2"]), ("default", "1"), ("halving", (("keep", "0.4"), ("rungs", "3")))),
    ),
    "seeds": ("2", ["0", "1"], ["4294967295"]),
    "search": (
        (("sampler", "tpe"), ("trials", "3")),
        (("sampler", "random"), ("objectives", ["score", "cost"]), ("stopping", "asha")),
        (("promotion", (("first", "0.5"), ("eta", "3"))), ("seed", "7")),
    ),
    "finalists": ((("k", "2"), ("seeds", "3"), ("sweep", "yes")), "null", (("tasks", ["mnist"]),)),
    "placebos": ("0", "2"),
    "resources": ((("cpu", "1"), ("gpu", "0.5")), (("cpu", "2"), ("max_concurrent", "null"))),
    "gates": ("off", "true"),
    "device": ("cpu", "auto"),
    "batching": ("auto", "off", "8"),
    "timeout": ("null", "60"),
    "checkpoints": ("auto", "off", (("seconds", "20"),), (("steps", "5"), ("folder", "/tmp/c"))),
    "data_root": ("~/data", "null"),
    "storage": ("null", "postgresql+psycopg://me@host/studies", "sqlite:///a.db"),
}
GRAMMARS: Sequence[Tree] = (
    (("F", ["x * G", "x"]), ("G", ["sigmoid(s * x) where s in [0.5, 2]", "gompertz(x)"])),
    (
        ("F", ["x * G"]),
        ("G", ["gompertz(ARG)", "(1 + k) * G where k = 0 per layer"]),
        ("ARG", ["x"]),
    ),
    (("F", ["G"]), ("G", ["H"]), ("H", ["G"])),
    (("F", ["F + F", "x"]),),
    (("F", ["mish(mish(mish(F)))", "x"]),),
    (("LATE_GATE", "x * H"), ("H", ["std(x)", "1 / (1 + exp(-x))"])),
)
WILD: Sequence[Any] = (
    *("", "~", "null", "true", "no", "0", "-1", "1.5", "1e999", "-1e999", ".nan", ".inf", "-.inf"),
    *("9" * 300, "9" * 5000, "1e-400", "0x10", "0o7", "1_000", "2001-01-01", "12:30:45", "=", "<<"),
    *("*a", "&a x", "&a [*a]", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!x y"),
    *("!!python/name:os.system", "!!set {a}", "!!omap [a: 1]", "!!int x", "!!float .", "!!null x"),
    *(
        "'",
        '"',
        '"\\x1b[2J"',
        '"\\ud800"',
        '"\\UFFFFFFFF"',
        '"\\0"',
        "|\n  x",
        ">-\n  x",
        "? x",
        "- x",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        "%YAML 9.9",
        "---",
        "...",
        "@x",
        "`x`",
        "\x00",
        "\x1b[31m",
        "\ufeff",
        "\u2028",
    ),
    *(
        "é",
        "х",
        "a" * 5000,
        " " * 3000,
        "[" * 400,
        "{a: " * 400,
        "- " * 400,
        "./gone.py",
        "/etc/passwd",
    ),
    *(
        "../" * 50 + "x.py",
        "x.py\x00",
        ".",
        "..",
        "torchvision:os",
        "postgresql://me:pw@h/d",
        "://",
        "a://",
    ),
    *("mysql+os://h/d", "sqlite://", "sqlite:///", "mysql://h/d", "oracle://x", "postgresql+x://h"),
    *("postgresql://h:99999999/d", "postgresql://[::1/d", "postgresql://h/d?password=x", "x * G"),
    *([], [[]], [[["x"]]], (), (("", ""),), (("a", (("a", (("a", "1"),)),)),), ["0"] * 300),
)
LINES = (
    *(
        "name: fuzz",
        "search: {trials: 1}",
        "serach: {trials: 1}",
        "activation:",
        "  F: [x]",
        "  - x",
    ),
    *("%TAG ! tag:x,2000:", "---", "...", "&a name: *a", "<<: *a", "? [a, b]\n: c", "\t- x", "# é"),
    *(
        "!!python/object/apply:os.system ['touch canary']",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    ),
    *(
        "  F: !!python/object/new:os.system [x]",
        "  G:\n    - 'x' 'y'",
        "'name': again",
        '"\\x0bname": 1',
    ),
)
DEEP = ("[", "{a: ", "- ", "? ", "!t [", "&a{} [", "'x': {{", "\n ")


def written(tree: Tree, top: bool = False) -> str:
    """YAML in flow style; at the top one key a line, and rules in block style as people have it."""
    if isinstance(tree, str):
        return tree
    if isinstance(tree, list):
        return f"[{', '.join(map(written, tree))}]"
    if not top:
        return f"{{{', '.join(f'{key}: {written(value)}' for key, value in tree)}}}"
    return "".join(
        f"{key}:{_block(value) if key == 'activation' else ' ' + written(value)}\n"
        for key, value in tree
    )


def _block(rules: Tree) -> str:
    if not isinstance(rules, tuple):
        return " " + written(rules)
    return "".join(
        f"\n  {rule}:" + "".join(f"\n    - {written(line)}" for line in lines)
        if isinstance(lines, list)
        else f"\n  {rule}: {written(lines)}"
        for rule, lines in rules
    )


def nodes(tree: Tree) -> int:
    """How many values stand in a tree."""
    below = [value for _, value in tree] if isinstance(tree, tuple) else tree
    return 1 + (0 if isinstance(below, str) else sum(map(nodes, below)))


def changed(tree: Tree, at: int, kind: int, wild: int) -> Tree:
    """The tree with its value number `at`, in the order of the text, changed or gone."""
    if at == 0:
        return _other(tree, kind, wild)
    at -= 1
    if isinstance(tree, str):
        return tree
    items: list[Any] = list(tree)
    for i, item in enumerate(items):
        value = item[1] if isinstance(item, tuple) and isinstance(tree, tuple) else item
        if at < (size := nodes(value)):
            if at == 0 and kind % 8 < 4:
                items[i : i + 1] = _neighbours(item, kind, wild)
            elif isinstance(tree, tuple):
                items[i] = (item[0], changed(value, at, kind, wild))
            else:
                items[i] = changed(value, at, kind, wild)
            return tuple(items) if isinstance(tree, tuple) else items
        at -= size
    return tree


def _other(tree: Tree, kind: int, wild: int) -> Tree:
    new = WILD[wild % len(WILD)]
    kinds: Sequence[Tree] = (new, [tree], (("a", tree),), [tree, new], new)
    return kinds[kind % len(kinds)]


def _neighbours(item: Any, kind: int, wild: int) -> list[Any]:
    """In place of one item: none, two, one misspelt, one moved under a strange key."""
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], str):
        return ([], [item, item], [WILD[wild % len(WILD)]], [item, "x"])[kind % 4]
    key, value = item
    spoilt_key = key[: wild % (len(key) + 1)] + key[wild % (len(key) + 1) + 1 :]
    strange = WILD[wild % len(WILD)]
    other = strange if isinstance(strange, str) else key.upper()
    return ([], [item, item], [(spoilt_key, value)], [(other, value)])[kind % 4]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """The keys of a file, mostly good ones."""
    keys = draw(st.lists(st.sampled_from([*VALUES]), max_size=5, unique=True))
    grammar = GRAMMARS[draw(st.integers(0, 2 * len(GRAMMARS))) % len(GRAMMARS)]
    if draw(st.booleans()) and isinstance(grammar, tuple):
        line = draw(formulas(rules=True))
        grammar = (*grammar[:-1], (grammar[-1][0], [line, *grammar[-1][1]]))
    own = dict.fromkeys(("name", "task", "learning_rate", "depth", *keys))
    picked = {key: VALUES[key][draw(st.integers(0, 5)) % len(VALUES[key])] for key in own}
    return tuple({**picked, "activation": grammar}.items())


CHANGES = st.lists(st.tuples(st.integers(0, 60), SMALL, SMALL), max_size=3)
TEXT_CHANGES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2_000), SMALL), max_size=3)


def line_changed(text: str, kind: int, at: int, piece: int) -> str:
    """The text with one line put in, cut, moved in, written twice, or all of it cut off there."""
    lines = text.split("\n")
    at %= len(lines)
    new = {
        0: [LINES[piece % len(LINES)], lines[at]],
        1: [],
        2: [" " * (piece % 5) + lines[at]],
        3: [lines[at], lines[at]],
        4: [lines[at][: piece % 40]],
        5: [lines[at] + " " + DEEP[piece % len(DEEP)] * (100 * (1 + piece % 30))],
    }
    return "\n".join([*lines[:at], *new[kind % 6], *lines[at + 1 :]])


@st.composite
def space_files(draw: st.DrawFn) -> bytes:
    """A space file; one in five or so is good."""
    tree = draw(trees())
    how = draw(st.integers(0, 7))
    for at, kind, wild in draw(CHANGES) if how & 1 else ():
        tree = changed(tree, at % nodes(tree), kind, wild)
    text = written(tree, top=True)
    for kind, at, piece in draw(TEXT_CHANGES) if how & 2 else ():
        text = (
            line_changed(text, kind, at, piece)
            if kind < 6
            else spoilt(text, [(kind, at, piece)], PIECES)
        )
    data = text.encode("utf-8", "surrogatepass")
    for _, at, byte in draw(TEXT_CHANGES) if how == 7 else ():
        at %= len(data) + 1
        data = data[:at] + bytes([byte]) + data[at + 1 :]
    return data


_PUT = st.tuples(
    st.sampled_from([*VALUES, "search.trials", "task.name", "task.width", "recipe.epochs", ""]),
    st.sampled_from(["=", "=", "=", "=", "=", "", "==", ".", "=.", ".a="]),
    st.sampled_from([each for each in WILD if isinstance(each, str)]),
).map("".join)
SETTINGS = st.integers(0, 7).flatmap(lambda n: st.text(max_size=12) if n == 3 else _PUT)
"""What may stand behind `--set`."""

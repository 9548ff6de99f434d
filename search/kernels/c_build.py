"""From C text to a loaded library: the compiler at hand, its flags, the cache of binaries.

A binary is a file of the cache named by a hash of everything it depends on: its text, the
compiler and its version, the flags, the C library and the processor's features, so that it never
runs where it was not built for. Its own hash is appended to it (a loader ignores what follows an
ELF image), and a file that does not fit it is built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from search.errors import KernelError
from search.kernels.build import writable_folder
from search.kernels.c_code import EMITTER, definitions, read_source

PRECISIONS = ("float32", "float64")
_SECONDS = 120  # a compiler that takes longer has failed
_DIGEST = 32
# -ffast-math gains nothing measurable and breaks NaN, inf and sums' order.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# gcc makes one call of sin(a) and cos(a), which has no vector form, unless it knows neither; and
# it moves what one branch of a choice needs into that branch, which a loop of vectors cannot have,
# or makes a path of its own for every branch: 120 instructions, not 110, of an arctan-arcsin type.
_NO_SINCOS = tuple(f"-fno-builtin-{name}" for name in ("sin", "sinf", "cos", "cosf"))
_GCC_ONLY = ("-fno-tree-sink", "-fno-thread-jumps")
_LOG = logging.getLogger("search.kernels")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler that was tried on this machine."""

    path: str
    version: str
    flags: tuple[str, ...]
    """The ones it accepts, in order."""
    libmvec: bool
    """Whether the C library's vector functions link."""

    @property
    def identity(self) -> str:
        """What a binary depends on besides its text."""
        machine = (platform.machine(), *platform.libc_ver(), _processor_features())
        return "|".join((self.version, *self.flags, str(self.libmvec), *machine, str(EMITTER)))


@cache
def find_compiler() -> Compiler | None:
    """$CC, gcc, clang or cc, the first that makes a library; else None, and one line says so."""
    for name in (os.environ.get("CC"), "gcc", "clang", "cc"):
        path = shutil.which(name) if name else None
        compiler = _tried(path) if path else None
        if compiler:
            return compiler
    _LOG.warning("no C compiler (gcc or clang) found: activations run as torch operations on CPU")
    return None


def _tried(path: str) -> Compiler | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
        version = done.stdout.partition("\n")[0]
        vector = ("-fveclib=libmvec",) if "clang" in version else ()
        common = (*_FLAGS, *_NO_SINCOS, *(() if "clang" in version else _GCC_ONLY))
        for openmp in ("-fopenmp", "-fopenmp-simd"):
            flags = (*common, openmp)
            if _links(path, (*flags, *vector, "-lmvec"), _MVEC_PROBE):
                return Compiler(path, version, (*flags, *vector), libmvec=True)
            if _links(path, flags, "int probe(void) { return 0; }"):
                return Compiler(path, version, flags, libmvec=False)
    except (OSError, subprocess.TimeoutExpired):
        pass
    return None


# Older C libraries have vector functions for exp, log, sin, cos, pow alone: all or none are used.
_MVEC_PROBE = """
#define USED(f) _Pragma("omp declare simd notinbranch") extern float f(float);
USED(erff) USED(erfcf) USED(tanhf) USED(atanf) USED(log1pf)
#define LOOP(f) void loop_##f(float *x) { _Pragma("omp simd") \\
  for (int i = 0; i < 1024; i++) x[i] = f(x[i]); }
LOOP(erff) LOOP(erfcf) LOOP(tanhf) LOOP(atanf) LOOP(log1pf)
"""


def _links(path: str, flags: Sequence[str], text: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text(text, encoding="utf-8")
        libraries = [flag for flag in flags if flag.startswith("-l")]
        others = [flag for flag in flags if not flag.startswith("-l")]
        command = [path, *others, "-Wl,--no-undefined", str(source), "-o", f"{source}.so"]
        done = subprocess.run([*command, *libraries, "-lm"], capture_output=True, timeout=_SECONDS)
        return done.returncode == 0


@cache
def _processor_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return hashlib.sha256("\n".join(sorted(named)).encode()).hexdigest()


# --- libraries -----------------------------------------------------------------------------------


def load_kernels(compiler: Compiler, text: str, precision: str) -> ctypes.CDLL:
    """The library of one program's kernels, built unless the cache has it."""
    name = entry_name(compiler, text, precision)
    return _loaded(name) or _built(compiler, [text], [name], precision)


def build_batch(compiler: Compiler, texts: Sequence[str], precision: str) -> int:
    """Build those of many programs that the cache lacks, in one library; their number.

    Starting a compiler and reading its headers take longer than compiling a kernel.
    """
    named = {entry_name(compiler, text, precision): text for text in texts}
    lacking = {name: text for name, text in named.items() if _read(_path(name)) is None}
    if lacking:
        _built(compiler, list(lacking.values()), list(lacking), precision)
    return len(lacking)


@cache
def load_blocks(compiler: Compiler, precision: str) -> ctypes.CDLL:
    """The walk over tensors (c_blocks.c), built once a machine."""
    text = read_source("c_blocks.c")
    name = entry_name(compiler, text, precision)
    return _loaded(name) or _built(compiler, [text], [name], precision, prelude="")


def entry_name(compiler: Compiler, text: str, precision: str) -> str:
    """The name in the cache of what `text` compiles to."""
    whole = "\0".join((compiler.identity, precision, read_source("c_math.h"), text))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _path(name: str) -> Path:
    return writable_folder("c") / f"{name}.so"


def _loaded(name: str) -> ctypes.CDLL | None:
    path = _path(name)
    if _read(path) is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # built against another C library
        return None


def _read(path: Path) -> bytes | None:
    """The file's content if it is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    whole = hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]
    return content if whole and len(content) > _DIGEST else None


def _built(
    compiler: Compiler,
    texts: Sequence[str],
    names: Sequence[str],
    precision: str,
    prelude: str = "c_math.h",
) -> ctypes.CDLL:
    """Compile texts into one library and enter it under every name.

    Written beside and renamed: another process sees the whole file or none. Raises KernelError.
    """
    folder = _path(names[0]).parent
    head = definitions(precision, libmvec=compiler.libmvec) + (
        read_source(prelude) if prelude else ""
    )
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as place:
        source, library = Path(place) / "kernels.c", Path(place) / "kernels.so"
        source.write_text("\n".join((head, *texts)), encoding="utf-8")
        _compile(compiler, source, library)
        content = library.read_bytes()
        library.write_bytes(content + hashlib.sha256(content).digest())
        for name in names:
            entry = Path(place) / name
            try:
                os.link(library, entry)
            except OSError:  # a file system without hard links
                shutil.copy(library, entry)
            os.replace(entry, _path(name))
    try:
        return ctypes.CDLL(str(_path(names[0])))
    except OSError as error:
        raise KernelError(f"{_path(names[0])}: cannot be loaded: {error}") from None


def _compile(compiler: Compiler, source: Path, library: Path) -> None:
    libraries = ("-lmvec", "-lm") if compiler.libmvec else ("-lm",)
    command = [compiler.path, *compiler.flags, str(source), "-o", str(library), *libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"{compiler.path}: {error}") from None
    if done.returncode:
        first = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise KernelError(f"{compiler.path}: failed: {first}")

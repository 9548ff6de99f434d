"""Triton kernels compiled ahead of time, without a GPU, and what their machine code says.

    compile_kernel(kernel, signature, constants, target) → Compiled (PTX or ISA, registers, spills, …)
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGETS: Mapping[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}

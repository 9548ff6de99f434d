"""Tests of kernels in Triton's interpreter, which must be chosen before Triton is imported.

They are a pytest process of their own: `tests/test_triton_interpreted.py` starts it.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]

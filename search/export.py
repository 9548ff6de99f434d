"""`python -m search.export results/gated --rank 1 -o my_activation.py`: an activation to take home.

One Python file that needs torch alone, with its kernels, a self-test and a certificate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from search.errors import run_cli


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m search.export", description=__doc__)
    parser.add_argument(
        "source", nargs="?", help="a study's results ('results/gated'), or a name ('golu')"
    )
    parser.add_argument("--expression", metavar="FORMULA", help="a formula, instead of a source")
    parser.add_argument("--rank", type=int, help="place on the study's leaderboard (default: 1)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("my_activation.py"), help="the file to write"
    )
    parser.add_argument("--onnx", action="store_true", help="write an ONNX model beside it")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    options = parser.parse_args()

    from search.exporting.onnx_model import check_onnx, write_onnx
    from search.exporting.source import read_source
    from search.exporting.writing import check_path, export_file, load_file

    source = read_source(options.source, options.expression, options.rank)
    check_path(options.output, options.force)
    model = options.output.with_suffix(".onnx")
    if options.onnx:
        check_onnx(model, options.force)
    written = export_file(source, options.output)
    print(f"formula    {source.expression}")
    print(f"from       {source.origin}")
    print(f"written    {written.path}: from {written.path.stem} import {written.name}")
    if options.onnx:
        made = getattr(load_file(written.path), written.name)
        print(f"ONNX       {model}: {write_onnx(made, source.expression, model)}")
    for line in written.failed:
        print(line, file=sys.stderr)
    held = written.checks - len(written.failed)
    print(f"self-test  {held} of {written.checks} checks hold; again: python {written.path}")
    return 1 if written.failed else 0


if __name__ == "__main__":
    run_cli(main)

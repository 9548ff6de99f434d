"""`python -m search.bench COMMAND`: what things cost, measured or read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from search.benchmarks import sampler_steps
from search.errors import run_cli


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="formulas or names; none: the whole catalogue")
    parser.add_argument("--target", nargs="+", default=["sm_90"], help="sm_80, sm_90, gfx942")
    parser.add_argument(
        "--dtype", nargs="+", default=["bfloat16"], help="float32, bfloat16, float16"
    )
    parser.add_argument("--workers", type=int, help="processes that compile; default: all cores")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--budget", type=Path, help="write what tests/test_triton_code.py holds")


def inspect(options: argparse.Namespace) -> None:
    from search.benchmarks import inspect as reading

    found = reading.inspect(options.names, options.target, options.dtype, options.workers)
    if options.budget:
        reading.write_budget(found, options.budget)
    print(reading.as_json(found) if options.json else reading.table(found))


def kernels_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="catalogue names; none: the whole catalogue")
    parser.add_argument("--expression", action="append", default=[], help="a formula; repeatable")
    parser.add_argument("--sizes", nargs="+", default=[], help="numbers of elements, as 2^22")
    parser.add_argument("--dtypes", nargs="+", default=[], help="float32 bfloat16 float16 float64")
    parser.add_argument("--passes", nargs="+", help="forward backward both; default: all three")
    parser.add_argument("--against", nargs="*", help="native eager compile copy; default: all four")
    parser.add_argument("--rounds", type=int, default=7, help="samples of every contestant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--kernel", default="auto", help="ours: auto, c, triton or torch")
    parser.add_argument("-o", "--output", type=Path, help="folder for kernels.json, .png, .pdf")
    parser.add_argument("--json", action="store_true", help="print JSON")


def kernels(options: argparse.Namespace) -> None:
    from search.benchmarks import kernel_plan, kernel_table
    from search.benchmarks import kernels as timing

    plan = kernel_plan.make_plan(
        options.names,
        options.expression,
        options.sizes,
        options.dtypes,
        options.passes,
        options.against,
        rounds=options.rounds,
        thread_count=options.threads,
        device=options.device,
        kernel=options.kernel,
    )
    if options.output:
        kernel_table.make_folder(options.output)
    bench = timing.run(plan, (lambda _: None) if options.json else partial(print, flush=True))
    if options.json:
        print(kernel_table.as_json(bench))
    for line in kernel_table.write(bench, options.output) if options.output else ():
        print(line, file=sys.stderr)


def proof_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="names or formulas; none: the whole catalogue")
    parser.add_argument("--dtypes", nargs="+", default=[], help="float32 bfloat16 float16")
    parser.add_argument("--kernel", default="auto", help="c, triton or torch; auto: the device's")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the JSON there too")


def proof(options: argparse.Namespace) -> int:
    from search.benchmarks import proof as proving
    from search.benchmarks import proof_table

    asked = proof_table.asked(options.names, options.dtypes, options.kernel, options.device)
    tell = (lambda _: None) if options.json else partial(print, flush=True)
    tell(proof_table.HEAD)
    found = []
    for each in proving.prove_all(asked.formulas, asked.dtypes, asked.kernel, asked.device):
        found.append(each)
        tell(proof_table.line(each))
    for told in [proof_table.as_json(found)] if options.json else proof_table.conclusion(found):
        print(told)
    if options.save:
        options.save.write_text(proof_table.as_json(found) + "\n", encoding="utf-8")
    return 0 if all(isinstance(each, proving.Proof) and each.holds for each in found) else 1


def trials_arguments(parser: argparse.ArgumentParser) -> None:
    from search.benchmarks.trials import NAMES

    parser.add_argument("space", type=Path, nargs="?", default=Path("spaces/gated.yaml"))
    parser.add_argument("--names", nargs="+", default=list(NAMES), help="activations to train")
    parser.add_argument("--against", nargs="+", default=["plain"], help="plain, torch, composed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")


def trials(options: argparse.Namespace) -> None:
    from search.benchmarks import trials as timing

    ways = timing.compare(options.space, options.names, options.rounds, options.against)
    print(timing.as_json(ways) if options.json else timing.table(ways))


def sweeps_arguments(parser: argparse.ArgumentParser) -> None:
    from search.benchmarks.sweeps import CASES, USUAL

    known = f"of {', '.join(CASES)}; default: {' '.join(USUAL)}"
    parser.add_argument("cases", nargs="*", default=list(USUAL), help=known)
    parser.add_argument("--runs", nargs="+", type=int, default=[10], help="runs in a sweep")
    parser.add_argument("--steps", type=int, default=50, help="of every run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--pick", action="store_true", help="measure what the planner picks too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the JSON there too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw a picture, .png or .svg")


def sweeps(options: argparse.Namespace) -> None:
    from search.benchmarks import sweeps as timing

    rows = timing.compare(
        options.cases,
        options.runs,
        options.steps,
        options.rounds,
        options.device,
        options.pick,
    )
    print(timing.as_json(rows) if options.json else timing.table(rows))
    if options.save:
        options.save.write_text(timing.as_json(rows) + "\n", encoding="utf-8")
    if options.picture:
        from search.figures.sweeps import draw_sweeps  # matplotlib: only who wants a picture

        draw_sweeps(timing.as_json(rows)).savefig(options.picture)


def driver_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", type=Path, nargs="?", default=Path("spaces/gated.yaml"))
    parser.add_argument("--trials", nargs="+", type=int, default=[100, 1000], help="stages")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override a key of the space"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def driver(options: argparse.Namespace) -> None:
    from search.benchmarks import driver as growing

    tell = (lambda _: None) if options.json else partial(print, flush=True)
    growth = growing.measure(options.space, options.set, options.trials, tell)
    for line in [growing.as_json(growth)] if options.json else growing.conclusion(growth):
        print(line)


def slots_arguments(parser: argparse.ArgumentParser) -> None:
    told = "a study, such as results/gated, whose log is read; none: a search of runs that wait"
    parser.add_argument("study", type=Path, nargs="?", help=told)
    parser.add_argument("--slots", type=int, help="trials at once; default: this machine's cores")
    parser.add_argument("--seconds", type=float, default=10.0, help="that a run waits")
    parser.add_argument("--trials", type=int, help="that wait; default: six in every slot")
    parser.add_argument("--json", action="store_true", help="print JSON")


def slots(options: argparse.Namespace) -> None:
    from search.benchmarks import slots as keeping
    from search.decisions import read_log
    from search.environment import available_cpus

    many = options.slots or available_cpus()
    if options.study:
        found = keeping.occupancy(read_log(options.study), many)
    else:
        trials = options.trials or 6 * many
        tell = (lambda _: None) if options.json else partial(print, flush=True)
        found = keeping.measure(many, options.seconds, trials, tell)
    print(keeping.as_json(found) if options.json else keeping.line(found))


Command = tuple[
    str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int | None]
]
COMMANDS: dict[str, Command] = {
    "inspect": (
        "instructions, registers, spills and access widths of compiled kernels, without a GPU",
        inspect_arguments,
        inspect,
    ),
    "proof": (
        "kernels against float64: every 16-bit number, gradients, NaN and infinities; exits with 1"
        " where one fails",
        proof_arguments,
        proof,
    ),
    "sweeps": (
        "model-steps per second of a sweep: plain loop, processes, many runs in one program",
        sweeps_arguments,
        sweeps,
    ),
    "samplers": (
        "samplers compared on a table of a whole space: tabulate makes one, replay searches it",
        sampler_steps.add_arguments,
        sampler_steps.take,
    ),
    "kernels": (
        "our kernels against torch's operators, eager formulas, torch.compile and a copy",
        kernels_arguments,
        kernels,
    ),
    "driver": (
        "seconds of a proposal, of writing a trial, of resuming, as a study grows; nothing trains",
        driver_arguments,
        driver,
    ),
    "slots": (
        "how busy a search keeps its slots: of a study's log, or with runs that wait",
        slots_arguments,
        slots,
    ),
    "trials": (
        "runs per minute of a search, against one Ray Tune trial per (candidate, rate, seed), or"
        " without its kernels",
        trials_arguments,
        trials,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m search.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (summary, add_arguments, run) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        add_arguments(command)
        command.set_defaults(run=run)
    options = parser.parse_args()
    return options.run(options) or 0


if __name__ == "__main__":
    run_cli(main)

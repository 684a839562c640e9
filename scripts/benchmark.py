"""Speed of a network beside its peers, in alternating runs.

    python scripts/benchmark.py --model nfnet_f0 --size 128 --batch 8 \
        --peer timm:dm_nfnet_f0 --peer_python VENV/bin/python

Every contender is a process of its own (scripts/contender.py) that waits for its turn;
the rounds alternate, so that a machine that slows down slows all of them. Prints a
table of medians; --output writes every measurement as JSON.

Peers: `timm:MODEL`, channels last, run by --peer_python, any Python with PyTorch and
timm; `haiku:MODULE:CLASS`, the published code (`haiku:nfnet:NFNet`) in --checkout, the
folder that contains `nfnets`.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

CONTENDER = pathlib.Path(__file__).with_name("contender.py")
MATRIX = 2048
TASKS = ("matmul", "train", "infer")


class Contender:
    """A process that performs a task when it is told to."""

    def __init__(self, name: str, python: str, arguments: list[str]):
        self.name = name
        self.seconds: dict[str, list[float]] = {task: [] for task in TASKS}
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [python, str(CONTENDER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._answer()
        self.facts["ready_seconds"] = time.perf_counter() - started

    def run(self, task: str) -> None:
        """Appends the seconds that one run of `task` took, where it is known."""
        if (seconds := self._ask(task)) is not None:
            self.seconds[task].append(seconds)

    def close(self) -> None:
        self.facts["memory_mib"] = self._ask("memory")
        self._process.stdin.close()
        self._process.wait()

    def median(self, task: str) -> float | None:
        times = self.seconds[task]
        return statistics.median(times) if times else None

    def ratio(self, task: str, other: "Contender") -> float:
        """Median, round by round, of how many times `other` fits into our time."""
        pairs = zip(self.seconds[task], other.seconds[task], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def _ask(self, task: str) -> float | None:
        self._process.stdin.write(f"{task}\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"contender {self.name} ended: its message is above")
        return json.loads(line)


def main() -> None:
    options = parse_arguments()
    contenders = [
        start(kind, options) for kind in (f"ours:{options.model}", *options.peer)
    ]
    for _ in range(options.rounds):
        for task in TASKS:
            for contender in contenders:
                contender.run(task)
    for contender in contenders:
        contender.close()
    print(table(contenders, options.batch))
    if options.output:
        report = {
            "arguments": {
                name: value
                for name, value in vars(options).items()
                if name not in ("peer_python", "checkout", "output")
            },
            "machine": f"{platform.machine()}, {platform.processor() or 'unknown'}",
            "date": time.strftime("%Y-%m-%d"),
            "contenders": {
                c.name: c.facts | {"seconds": c.seconds} for c in contenders
            },
        }
        pathlib.Path(options.output).write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nfnet_f0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of our network, such as se_ratio=0.25",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--checkout")
    parser.add_argument("--output")
    return parser.parse_args()


def start(peer: str, options: argparse.Namespace) -> Contender:
    """The contender KIND:MODEL, ready."""
    kind, _, model = peer.partition(":")
    arguments = [kind, model, f"--size={options.size}", f"--batch={options.batch}"]
    arguments.append(f"--dtype={options.dtype}")
    if options.checkout:
        arguments.append(f"--checkout={options.checkout}")
    if kind == "ours":
        arguments += [f"--option={option}" for option in options.option]
    python = sys.executable if kind == "ours" else options.peer_python
    return Contender(peer, python, arguments)


def table(contenders: list[Contender], batch: int) -> str:
    """Markdown: images per second, and how they relate to the first contender's."""
    ours = contenders[0]
    ceiling = 2 * MATRIX**3 / ours.median("matmul")
    macs = ours.facts["multiply_adds"]
    lines = [
        "| | train, images/s | inference, images/s | compile, s | ready, s | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for contender in contenders:
        cells = [contender.name]
        for task in ("train", "infer"):
            seconds = contender.median(task)
            cell = f"{batch / seconds:.2f}"
            if contender is not ours:
                cell += f" ({contender.ratio(task, ours):.2f} x our time)"
            cells.append(cell)
        compile_seconds = contender.facts.get("compile_seconds")
        cells.append(f"{compile_seconds:.1f}" if compile_seconds else "-")
        cells.append(f"{contender.facts['ready_seconds']:.1f}")
        cells.append(f"{contender.facts['memory_mib']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(
        f"| matrix-product ceiling, {ceiling / 1e9:.0f} GFLOP/s | "
        f"{ceiling / (6 * macs):.2f} | {ceiling / (2 * macs):.2f} | | | |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

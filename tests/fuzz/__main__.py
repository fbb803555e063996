"""Fuzz the targets one after the other: `python -m fuzz [TARGET...] [--seconds N]`.

Each runs in a process of its own that counts its branches. What it learns is kept in a folder of inputs for the next
time, what it finds in another: `python -m fuzz TARGET --again FILE` gives a target a finding once more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from fuzz.targets import TARGETS, take

SECONDS_PER_INPUT, MIB = 10, 2048


def run(
    name: str, *, seconds: int, corpus: Path, findings: Path, module: str = "fuzz.guided", executions: int = -1
) -> tuple[int, list[Path]]:
    """Fuzz one target for so long, or so often; return how many inputs it took, and the files of what it found.

    Raises RuntimeError where it ends without a count.
    """
    folder = corpus / name
    for each in (folder, findings):
        each.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds() if name in TARGETS else ():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    before = set(findings.glob(f"{name}-*"))
    options = (
        f"-max_total_time={seconds}", f"-runs={executions}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={MIB}",
        "-print_final_stats=1", f"-artifact_prefix={findings}/{name}-", str(folder),
    )  # fmt: skip
    # libFuzzer ends a process without its leave: what lay in the folder of its temporary files goes from here.
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shared) as own:
        done = subprocess.run(
            [sys.executable, "-m", module, name, *options],
            capture_output=True, text=True, check=False, errors="replace", env={**os.environ, "TMPDIR": own},
        )  # fmt: skip
    found = sorted(set(findings.glob(f"{name}-*")) - before)
    counted = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if counted is None or (done.returncode and not found):
        raise RuntimeError(f"{name} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    for path in found:
        path.with_name(f"{path.name}.txt").write_text(done.stdout[-20_000:] + done.stderr[-20_000:], "utf-8")
    return int(counted[1]), found


def main() -> int:
    """Fuzz what the command line names; 1 where something was found, 2 where that is not known."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all without: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"), help="where what was learnt is kept")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where findings are kept")
    parser.add_argument("--again", type=Path, help="give the one target this file")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    if options.again is not None:
        if len(options.targets) != 1:
            parser.error("--again needs one target")
        print("taken" if take(TARGETS[options.targets[0]], options.again.read_bytes()) else "refused")
        return 0
    if find_spec("atheris") is None:
        print("atheris is not installed (it is for Linux): pip install 'medsearch-desktop[fuzz]'", file=sys.stderr)
        return 2
    everything: list[Path] = []
    broken = False
    for name in options.targets or TARGETS:
        try:
            count, found = run(name, seconds=options.seconds, corpus=options.corpus, findings=options.findings)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            broken = True
            continue
        print(f"{name:14} {count:9} inputs  {', '.join(map(str, found)) or 'nothing found'}", flush=True)
        everything += found
    return 1 if everything else 2 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

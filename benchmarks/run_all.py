"""`make bench`: every benchmark one after the other, each a program of its own; tables go to benchmarks/results/."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import ROOT

SKIPPED = {"__init__", "common", "curves", "drawn_nuclei", "rate_report", "run_all", "sr_load"}


def main() -> int:
    """Run all; exit code 1 when one failed, after the others have run."""
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in SKIPPED)
    failed = []
    for name in names:
        print(f"==> benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

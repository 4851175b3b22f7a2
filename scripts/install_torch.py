"""Install the pinned CPU build of PyTorch: the package index's own where it is one, PyTorch's CPU index elsewhere.

A plain install on Linux x86-64 may bring a build with gigabytes of CUDA packages. So a CPU wheel that pip already
knows (a local folder of wheels, a mirror) is tried first, then the CPU index. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIN = next(
    line.strip()
    for line in (Path(__file__).resolve().parent.parent / "constraints.txt").read_text().splitlines()
    if line.startswith("torch==")
)


def pip(*arguments: str) -> bool:
    """Run pip in this environment; True when it succeeded."""
    return subprocess.run([sys.executable, "-m", "pip", *arguments], check=False, stderr=subprocess.DEVNULL).returncode == 0


def main() -> int:
    """Install the pin and nothing for GPUs; exit code for make."""
    install = ("install", "--quiet", "--disable-pip-version-check")
    # A CUDA build depends on nvidia packages: without dependencies it is not pulled in by surprise.
    if pip(*install, f"{PIN}+cpu") or pip(*install, "--index-url", CPU_INDEX, PIN):
        return 0
    print(f"No CPU build of {PIN} was found; trying the default index.", file=sys.stderr)
    return 0 if pip(*install, PIN) else 1


if __name__ == "__main__":
    sys.exit(main())

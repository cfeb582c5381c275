"""How long a visitor waits for the page: python benchmarks/start.py [--json] [--quick]

Starts `python app.py` as a person does, with a fresh data directory (first start: the data set is seeded) and then
again on the same one, and asks for the page until it is served. The tab is usable once /config has come as well.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 180


def main() -> None:
    """Print seconds to the page for a first and for later starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one later start instead of three")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = seconds_to_page(Path(folder) / "data")
        later = [seconds_to_page(Path(folder) / "data") for _ in range(1 if arguments.quick else 3)]
    result = {"first_start_s": first, "later_start_s": statistics.median(later), "later_starts_s": later}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"first start, data set seeded   {first:5.1f} s")
        print(f"later start, median of {len(later)}       {result['later_start_s']:5.1f} s")


def seconds_to_page(data_dir: Path) -> float:
    """Seconds from the start of the process until the page and its configuration are served."""
    port = free_port()
    environment = os.environ | {"FACELLM_DATA_DIR": str(data_dir), "GRADIO_SERVER_PORT": str(port)}
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not served(port):
                if process.poll() is not None or time.monotonic() - started > TIMEOUT_S:
                    sys.exit("app.py did not serve the page; run `python app.py` to see why.")
                time.sleep(0.05)
            return round(time.monotonic() - started, 2)
        finally:
            process.terminate()


def served(port: int) -> bool:
    """Whether the page and its configuration can be had."""
    try:
        for path in ("", "config"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as response:
                response.read()
    except (urllib.error.URLError, OSError):
        return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

"""Kill workers under load behind faulty connections, and see whether every call was metered once.

``python tests/faults/driver.py --minutes 10 [--seed N] [--kills 200] [--workers 4] [--no-journal] [--list]``. Exits 1
if a promise is broken, and keeps the run's files then.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.fleet import Run, execute


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=4, help="of each worker")
    parser.add_argument("--no-journal", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the request ids of all calls in flight at a kill")
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    run = Run(
        folder,
        seed,
        options.minutes * 60,
        options.kills,
        workers=options.workers,
        threads=options.threads,
        journal=not options.no_journal,
    )
    began = time.monotonic()
    report = execute(run)
    for name, value in report.figures.items():
        if isinstance(value, list) and not options.list:
            value = f"{', '.join(value[:3])} ... (--list prints all)"  # noqa: PLW2901
        print(f"{name}: {value}")
    print(f"took {time.monotonic() - began:.0f} s")
    if report.broken:
        print(f"{len(report.broken)} promises broken; the run's files are in {folder}")
        for line in report.broken[:50]:
            print(f"  {line}")
        return 1
    shutil.rmtree(folder)
    print("all promises kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())

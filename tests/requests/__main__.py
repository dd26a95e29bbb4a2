"""Makes every request that the generators know and names each bad end: `python -m tests.requests [--only WORD]`."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.requests import contradictions, named_files, run_files, surroundings, sweep_files, words
from tests.requests.attempt import Request, attempt


def everything() -> list[Request]:
    """Returns every request; names are distinct."""
    makers = (sweep_files, words, surroundings, run_files, named_files, contradictions)
    return [request for maker in makers for request in maker.requests()]


def main(argv: list[str] | None = None) -> int:
    """Makes requests one after another, prints each bad end and a count; returns 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.requests", description=__doc__)
    parser.add_argument("--only", default="", help="only requests whose name has this text")
    parser.add_argument("--every", type=int, default=1, help="only every K-th of them")
    parser.add_argument("--show", action="store_true", help="print every end, not only the bad ones")
    options = parser.parse_args(argv)
    chosen = [request for request in everything() if options.only in request.name][:: options.every]
    ends: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory(prefix="ktrain-requests-") as folder:
        for number, request in enumerate(chosen):
            begun = time.monotonic()
            outcome = attempt(request, Path(folder) / str(number))
            slowest.append((time.monotonic() - begun, request.name))
            fault = outcome.fault()
            ends["bad" if fault else f"exit code {outcome.code}"] += 1
            if fault or options.show:
                text = (fault or outcome.error or outcome.out)[-1500:].strip()
                print(f"{'BAD  ' if fault else ''}{request.name}\n    {ascii(' '.join(request.words))[:200]}")
                print(*(f"    {line[:300]}" for line in text.splitlines()[-12:]), sep="\n", flush=True)
    print(f"{len(chosen)} requests:", ", ".join(f"{count} {end}" for end, count in sorted(ends.items())))
    print("slowest:", ", ".join(f"{seconds:.1f} s {name}" for seconds, name in sorted(slowest)[:-4:-1]))
    return 1 if ends["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())

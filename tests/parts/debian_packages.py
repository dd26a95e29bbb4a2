"""Debian packages that tests need.

A test without one is skipped, with a reason that ends `apt-get install PACKAGE ...`.
"""

import re
from collections import Counter
from collections.abc import Iterable

_INSTALL = re.compile(r"apt-get install ((?:[a-z0-9][a-z0-9.+-]+ ?)+)")


def lacking(what: str, *packages: str) -> str:
    """The reason of a skip: what is not there, and the packages that bring it."""
    return f"{what}: apt-get install {' '.join(packages)}"


def summary(reasons: Iterable[str]) -> str:
    """One line for the end of a run of tests: which packages would have run how many of the tests that were skipped for
    these reasons; empty if none would."""
    packages = [named[1].split() for reason in reasons if (named := _INSTALL.search(reason))]
    tests = Counter(package for needed in packages for package in set(needed))
    if not tests:
        return ""
    listed = ", ".join(f"{package} {count}" for package, count in tests.most_common())
    return f"skipped for want of Debian packages: {len(packages)} tests ({listed}); apt-get install {' '.join(tests)}"

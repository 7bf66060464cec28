"""What a run of the suite ends with: the slowest tests, what was skipped and why, and how many passed.

``python parity_tests/summary.py RESULTS.xml...`` reads what ``pytest --junit-xml`` wrote.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

_SLOWEST = 10


def summarize(paths: list[str]) -> str:
    """The summary of several runs, as text."""
    cases = [case for path in paths for case in ElementTree.parse(path).getroot().iter("testcase")]
    seconds = {f"{case.get('classname')}::{case.get('name')}": float(case.get("time", 0)) for case in cases}
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:_SLOWEST]
    skipped = Counter(found.get("message", "") for case in cases for found in case.findall("skipped"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    lines = ["the slowest tests:", *(f"  {time:6.1f} s  {name}" for name, time in slowest)]
    lines += ["skipped on this machine:" if skipped else "nothing was skipped on this machine"]
    lines += [f"  {count:4d} tests: {reason}" for reason, count in skipped.most_common()]
    left_out = sum(skipped.values())
    return "\n".join([*lines, f"{len(cases) - failed - left_out} passed, {failed} failed, {left_out} skipped"])


if __name__ == "__main__":
    print(summarize(sys.argv[1:]))

"""Choose three measured trials that set live limits, from `tuner show --format json` on stdin.

Prints a line for each: the trial's number and its options for `tuner measure`. One is the best, one
the worst of those that met the SLOs, one has the median J/token.
"""

from __future__ import annotations

import json
import sys

_LIVE = {"max_num_seqs", "max_num_batched_tokens"}
_ENERGY = "energy_per_output_token_j"


def main() -> None:
    """Read a study, write the lines."""
    found = [
        trial
        for trial in json.load(sys.stdin)["trials"]
        if trial["meets_slo"] and trial["configuration"]["flags"].keys() >= _LIVE
    ]
    found.sort(key=lambda trial: trial[_ENERGY])
    for index in sorted({0, len(found) // 2, len(found) - 1} if found else ()):
        flags = found[index]["configuration"]["flags"]
        options = " ".join(f"--set {name}={value}" for name, value in flags.items())
        print(found[index]["number"], options)


if __name__ == "__main__":
    main()

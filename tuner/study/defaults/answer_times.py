"""Answer times: how long the load on a server grows, by the lengths of the answers.

In an open loop the requests in flight grow until the longest answers of the first requests end,
even on a server that keeps up (an M/G/inf queue that begins empty).
"""

from __future__ import annotations

import numpy as np

from tuner.records import FloatArray


def fills_in_s(output_tokens: FloatArray, tpot_ms: float, share: float) -> float:
    """Return the time until `share` of the requests in flight are there that there will be, s.

    Answers have these lengths, and each token takes `tpot_ms`. Of answers that last S, the mean of
    min(S, t) / the mean of S are in flight at t.
    """
    lasts_s = np.sort(output_tokens) * tpot_ms / 1e3
    longer = np.arange(lasts_s.size - 1, -1, -1)
    shares = (np.cumsum(lasts_s) + lasts_s * longer) / lasts_s.sum()
    return float(np.interp(share, np.append(0.0, shares), np.append(0.0, lasts_s)))

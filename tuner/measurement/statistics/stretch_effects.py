"""What further traffic does to a metric: random effects of the stretch and of the configuration.

A window of a configuration on an unseen stretch of traffic differs from its window of the search,
in logarithms, by shift + configuration + stretch + rest. The shift is what the search's stretch is
to blame for, the same for all. A stretch is as heavy for every configuration that is measured on
it: so windows of one configuration tell of the others, and how much stretches differ is learned
from all of them. The effects are normal, of mean 0 (a mixed model: Laird and Ware, Biometrics 38,
1982). The ratios of their variances are averaged over a grid by their likelihood, the common
variance and the shift are integrated out, so that a forecast is a mixture of Student's t.

Where it is known in advance how heavy a stretch is, for all that the workload may send
(`tuner.load.heaviness`), that is a control variate (Lavenberg and Welch, Management Science 27,
1981): by how much the metric follows it is learned, too. A further stretch is as heavy as any; but
that those measured were light or heavy by chance is no longer unknown.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.metrics import HEAVINESS_DRAWS
from tuner.records import FloatArray

# Variances as multiples of that of the stretches.
_CONFIGURATION = (0.003, 0.03, 0.2, 1.0)
_REST = (0.01, 0.06, 0.3, 1.0)
_SHIFT = 2.0  # of the prior of the shift
_SLOPE = 2.0  # of the prior of what a standard deviation of heaviness does
_PRIOR_WEIGHT = 1.0  # window that the prior of the common variance counts as
_NORMAL_BY_MEDIAN = 1.4826  # standard deviation by median of absolute deviations
_OUTLIER = 3.0  # robust spreads: further off counts as so far
_Z = 1.6448536269514722  # the 95th percentile of a normal variable


@dataclass(frozen=True, slots=True)
class Window:
    """A window on unseen traffic: log(value / value in the search), finite.

    `heaviness` is how heavy its stretch is, known without a measurement: in standard deviations
    from the mean of all stretches. None if it is not known.
    """

    configuration: int
    stretch: int
    difference: float
    heaviness: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The difference in a window on a further stretch: a mixture of Student's t distributions.

    `means`, `scales`, `mean_scales` (of what is unknown of the mean) and `freedoms` (degrees of
    freedom of the scale) are those of each part. `rests` are the scales of what a further window
    adds to what is unknown of the mean: of a stretch whose heaviness is known, what that does not
    explain.
    """

    weights: FloatArray
    means: FloatArray
    scales: FloatArray
    mean_scales: FloatArray
    freedoms: FloatArray
    rests: FloatArray

    @property
    def mean(self) -> float:
        """The expected difference."""
        return float(self.weights @ self.means)

    @property
    def spread(self) -> float:
        """The standard deviation from stretch to stretch, as far as it is known."""
        variances = self.scales**2 - self.mean_scales**2
        return math.sqrt(float(self.weights @ variances))

    @property
    def freedom(self) -> float:
        """The degrees of freedom of the spread, at least."""
        return float(self.freedoms.min())

    def chance_above(self, value: float) -> float:
        """Return the probability that a further window's difference is above `value`."""
        from scipy.special import stdtr  # a third of a second, which a report may not need

        below = stdtr(self.freedoms, (value - self.means) / self.scales)
        return float(1.0 - self.weights @ below)

    def quantile(self, probability: float) -> float:
        """Return what the difference does not exceed with a probability, by bisection."""
        low = float(np.min(self.means - 40.0 * self.scales))
        high = float(np.max(self.means + 40.0 * self.scales))
        while high - low > 1e-6:
            middle = (low + high) / 2.0
            if self.chance_above(middle) > 1.0 - probability:
                low = middle
            else:
                high = middle
        return high

    def chance_that_95_of_100_are_below(self, value: float) -> float:
        """Return how likely it is that, if all were known, 95 of 100 windows are below `value`.

        More windows can show it, or cannot.
        """
        variances = self.scales**2 - self.mean_scales**2
        percentiles = self.means + _Z * np.sqrt(variances)
        unknown = self.mean_scales**2 + _Z**2 / (2.0 * self.freedoms) * variances
        middle = float(self.weights @ percentiles)
        width = math.sqrt(float(self.weights @ (unknown + (percentiles - middle) ** 2)))
        return 0.5 * math.erfc((middle - value) / width / math.sqrt(2.0))

    def chance_to_show(self, value: float, windows: int, level: float) -> float:
        """Return how likely `windows` (1 or more) will show a share `level` of all below `value`.

        They do if the quantile that is expected then is. It differs from today's by as much as is
        learned, and is nearer to the mean, as less is unknown then, of the mean and of the spread.
        What is known well hardly changes: where it is in doubt, it stays so.
        """
        variances = self.scales**2 - self.mean_scales**2
        spread2, rest2 = float(self.weights @ variances), float(self.weights @ self.rests**2)
        unknown2 = float(self.weights @ self.mean_scales**2)
        now = float(self.weights @ self.freedoms)
        freedom = now + windows * spread2 / rest2
        unknown2_then = unknown2 * rest2 / (rest2 + windows * unknown2)
        of_spread2 = _Z**2 / 2.0 * spread2 * (1.0 / now - 1.0 / freedom)
        learned = math.sqrt(unknown2 - unknown2_then + of_spread2)
        nearer = _quantile_of_t(now) * math.sqrt(spread2 + unknown2)
        nearer -= _quantile_of_t(freedom) * math.sqrt(spread2 + unknown2_then)
        expected = self.quantile(level) - nearer
        return 0.5 * math.erfc((expected - value) / learned / math.sqrt(2.0))


def _quantile_of_t(freedom: float) -> float:
    """Return the 95th percentile of Student's t, nearly."""
    return _Z * (1.0 + (_Z**2 + 1.0) / (4.0 * freedom))


class StretchEffects:
    """The effects, learned from windows; `prior_spread` is what a spread is taken for before."""

    def __init__(self, windows: Sequence[Window], prior_spread: float) -> None:
        self._windows = _without_outliers(windows, prior_spread)
        self._fits = [
            _Fit.of(self._windows, prior_spread, configuration, rest)
            for configuration, rest in itertools.product(_CONFIGURATION, _REST)
        ]
        logs = np.array([fit.log_likelihood for fit in self._fits])
        weights = np.exp(logs - logs.max())
        self._weights: FloatArray = weights / weights.sum()

    def forecast(self, configuration: int | None = None) -> Forecast:
        """Return the difference of a configuration on a further stretch; None is a new one."""
        same = np.array([w.configuration == configuration for w in self._windows], dtype=np.float64)
        found = np.array([fit.further(same) for fit in self._fits])
        return Forecast(
            self._weights,
            found[:, 0],
            found[:, 1],
            found[:, 2],
            found[:, 3],
            found[:, 4],
        )


def _without_outliers(windows: Sequence[Window], prior_spread: float) -> tuple[Window, ...]:
    """Return the windows with those that are far off moved nearer.

    Of 100 windows five may be as bad as they like; one such is not to make all look bad. What is
    far off is so from its configuration's median, or of fewer than three windows from that of all.
    """
    if not windows:
        return ()
    overall = statistics.median(w.difference for w in windows)
    groups: dict[int, list[float]] = {}
    for window in windows:
        groups.setdefault(window.configuration, []).append(window.difference)
    middles = {
        configuration: statistics.median(values) if len(values) > 2 else overall
        for configuration, values in groups.items()
    }
    off = [abs(w.difference - middles[w.configuration]) for w in windows]
    most = _OUTLIER * max(_NORMAL_BY_MEDIAN * statistics.median(off), prior_spread)
    return tuple(
        replace(
            w,
            difference=min(
                max(w.difference, middles[w.configuration] - most), middles[w.configuration] + most
            ),
        )
        for w in windows
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """The model at one point of the grid: `root` is the lower triangle of the covariance.

    `slope` is by how much the metric follows the heaviness, `slope_variance` what is unknown of it;
    both are 0 where heaviness is not known.
    """

    root: FloatArray
    solved: FloatArray  # root^-1 differences
    scale2: float  # estimate of the stretches' variance
    freedom: float
    log_likelihood: float
    configuration: float
    rest: float
    slope: float
    slope_variance: float

    @classmethod
    def of(
        cls, windows: Sequence[Window], prior_spread: float, configuration: float, rest: float
    ) -> _Fit:
        configurations = np.array([w.configuration for w in windows])
        stretches = np.array([w.stretch for w in windows])
        differences = np.array([w.difference for w in windows], dtype=np.float64)
        heaviness = _heaviness(windows)
        count = len(windows)
        covariance = (
            _SHIFT
            + configuration * (configurations[:, None] == configurations[None, :])
            + (stretches[:, None] == stretches[None, :])
            + rest * np.eye(count)
            + _SLOPE * heaviness[:, None] * heaviness[None, :]
        ).reshape(count, count)
        root: FloatArray = np.linalg.cholesky(covariance).astype(np.float64)
        found = np.linalg.solve(root, np.column_stack([differences, _SLOPE * heaviness]))
        solved: FloatArray = found[:, 0].astype(np.float64)
        towards_slope = found[:, 1]
        # of one window, over stretches: the prior is of that, whatever its parts
        prior = _PRIOR_WEIGHT * prior_spread**2 / (1.0 + rest)
        squares = prior + float(solved @ solved)
        freedom = _PRIOR_WEIGHT + count
        log_likelihood = (
            0.5 * _PRIOR_WEIGHT * math.log(prior)
            - 0.5 * freedom * math.log(squares)
            - float(np.log(np.diag(root)).sum())
        )
        scale2 = squares / freedom
        of_slope = _SLOPE - float(towards_slope @ towards_slope) if heaviness.any() else 0.0
        return cls(
            root,
            solved,
            scale2,
            freedom,
            log_likelihood,
            configuration,
            rest,
            slope=float(towards_slope @ solved),
            slope_variance=scale2 * max(of_slope, 0.0),
        )

    def further(self, same: FloatArray) -> tuple[float, float, float, float, float]:
        """Return mean, scale, scale of the mean, freedom and the scale of what is left.

        `same` is 1 where the configuration is. The heaviness of a further stretch has mean 0 and
        variance 1, as far as `HEAVINESS_DRAWS` stretches tell. The degrees of freedom are those of
        a sum of variances (Satterthwaite, Biometrics Bulletin 2, 1946).
        """
        towards = np.linalg.solve(self.root, _SHIFT + self.configuration * same)
        mean = float(towards @ self.solved)
        of_heaviness2 = self.slope**2 + self.slope_variance
        mean2 = self.scale2 * max(_SHIFT + self.configuration - float(towards @ towards), 0.0)
        left2 = self.scale2 * (1.0 + self.rest)
        by_scale2 = mean2 + left2 + self.slope_variance
        mean2 += of_heaviness2 / HEAVINESS_DRAWS
        total2 = left2 + of_heaviness2 + mean2
        unknown4 = (
            2.0 * by_scale2**2 / self.freedom
            + 4.0 * self.slope**2 * self.slope_variance
            + 2.0 * self.slope**4 / HEAVINESS_DRAWS
        )
        freedom = 2.0 * total2**2 / unknown4
        return mean, math.sqrt(total2), math.sqrt(mean2), freedom, math.sqrt(left2)


def _heaviness(windows: Sequence[Window]) -> FloatArray:
    """Return the heaviness of each window's stretch, shape (windows,); 0 unless all are known."""
    known = [w.heaviness for w in windows if w.heaviness is not None]
    return np.array(known if len(known) == len(windows) else [0.0] * len(windows), np.float64)

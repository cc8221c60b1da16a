"""Launch sharing: one warm server serves all configurations that differ only in live knobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.configuration import Configuration, Value
from tuner.servers.registry import flag_rules
from tuner.servers.server import FlagRules, Limits

# Repeats that one clean launch serves, one after another. What one launch has of its own is small
# beside what stretches have, and a launch takes as long as a window. An odd number: of the order
# default, member, member, default each then comes first as often.
REPEATS_A_LAUNCH = 5


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch: its configuration, and limits set afterwards (None: limits are launch flags)."""

    configuration: Configuration
    limits: Limits | None

    def serves(self, other: Launch) -> bool:
        """Say whether a server started with this launch can serve the other one."""
        is_live, wants_live = self.limits is not None, other.limits is not None
        return self.configuration == other.configuration and is_live == wants_live


@dataclass(frozen=True, slots=True)
class LiveKnobs:
    """The live flags of a study (they change in a running server) and their largest values."""

    largest: Mapping[str, int]
    rules: FlagRules = field(default_factory=flag_rules)

    def clean(self, whole: Configuration) -> Launch:
        """Return a launch with exactly this configuration's flags, no device or load knobs."""
        return Launch(Configuration(whole.flags, whole.environment), None)

    def shared(self, whole: Configuration) -> Launch:
        """Return the launch that this configuration shares with all that differ in live knobs only.

        A configuration that leaves a live knob unset, as the baseline does, or that uses another
        scheduler gets a clean launch.
        """
        limits = self.rules.limits
        if limits is None or not self._changeable(whole.flags):
            return self.clean(whole)
        flags = limits.launch_flags(whole.flags, self.largest)
        return Launch(Configuration(flags, whole.environment), limits.limits(whole.flags))

    def refusal(self, whole: Configuration) -> str | None:
        """Say why a server would refuse at start limits that it accepts while it runs, or None."""
        return self.rules.refusal(whole.flags) if self._changeable(whole.flags) else None

    def _changeable(self, flags: Mapping[str, Value]) -> bool:
        limits = self.rules.limits
        if not self.largest or limits is None or not limits.governs(flags):
            return False
        return all(1 <= int(flags.get(name, 0)) <= most for name, most in self.largest.items())

"""Which configurations one warm server can serve: those that differ in live knobs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.configuration import Configuration, Value
from tuner.servers.registry import flag_rules
from tuner.servers.server import FlagRules, Limits


@dataclass(frozen=True, slots=True)
class Launch:
    """What a server is started with, and the limits it then gets; None launches the limits too."""

    configuration: Configuration
    limits: Limits | None

    def serves(self, other: Launch) -> bool:
        """Say whether a server that was started by this one can be brought under the other."""
        is_live, wants_live = self.limits is not None, other.limits is not None
        return self.configuration == other.configuration and is_live == wants_live


@dataclass(frozen=True, slots=True)
class LiveKnobs:
    """The flags of a study that change in a running server, and the largest value of each."""

    largest: Mapping[str, int]
    rules: FlagRules = field(default_factory=flag_rules)

    def clean(self, whole: Configuration) -> Launch:
        """Return the launch of exactly this configuration; the GPU and the load are set apart."""
        return Launch(Configuration(whole.flags, whole.environment), None)

    def shared(self, whole: Configuration) -> Launch:
        """Return the launch that this configuration shares with all that differ in live knobs.

        A configuration that leaves a live knob unset, as the baseline does, or that schedules in
        a way of its own gets a clean one.
        """
        limits = self.rules.limits
        if limits is None or not self._changeable(whole.flags):
            return self.clean(whole)
        flags = limits.launch_flags(whole.flags, self.largest)
        return Launch(Configuration(flags, whole.environment), limits.limits(whole.flags))

    def refusal(self, whole: Configuration) -> str | None:
        """Say why the server would not start with limits that a running one takes; else None."""
        return self.rules.refusal(whole.flags) if self._changeable(whole.flags) else None

    def _changeable(self, flags: Mapping[str, Value]) -> bool:
        limits = self.rules.limits
        if not self.largest or limits is None or not limits.governs(flags):
            return False
        return all(1 <= int(flags.get(name, 0)) <= most for name, most in self.largest.items())

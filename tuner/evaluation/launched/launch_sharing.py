"""Which configurations one launch of a server can serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.configuration import Configuration, Value
from tuner.servers.vllm.live_limits import Limits
from tuner.spec.search_space import LIVE_FLAGS

_SEQS, _TOKENS = LIVE_FLAGS
# With these the limits of a launch are not the scheduler's alone.
_OWN_SCHEDULING = ("scheduler_cls", "speculative_config", "max_num_active_seqs")


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

    def clean(self, whole: Configuration) -> Launch:
        """Return the launch of exactly this configuration; the GPU and the load are set apart."""
        return Launch(Configuration(whole.flags, whole.environment), None)

    def shared(self, whole: Configuration) -> Launch:
        """Return the launch that this configuration shares with all that differ in live knobs.

        A configuration that leaves a live knob unset, as the baseline does, or that schedules in
        a way of its own gets a clean one.
        """
        if not self._changeable(whole.flags):
            return self.clean(whole)
        launched = {**whole.flags, **self.largest}
        if _SEQS in self.largest and _TOKENS in launched:  # which vLLM insists on
            launched[_TOKENS] = max(int(launched[_SEQS]), int(launched[_TOKENS]))
        tokens = whole.flags.get(_TOKENS)
        seqs = whole.flags.get(_SEQS, tokens)  # vLLM's default is never above the tokens of a step
        return Launch(
            Configuration(launched, whole.environment),
            Limits(
                None if seqs is None else int(seqs),
                None if tokens is None else int(tokens),
            ),
        )

    def refusal(self, whole: Configuration) -> str | None:
        """Say why vLLM would not start with limits that a running one would take; else None."""
        seqs, tokens = whole.flags.get(_SEQS), whole.flags.get(_TOKENS)
        if not self._changeable(whole.flags) or seqs is None or tokens is None:
            return None
        if int(tokens) >= int(seqs):
            return None
        return (
            f"{_TOKENS} ({tokens}) must be greater than or equal to {_SEQS} ({seqs}): vLLM does "
            "not start with these"
        )

    def _changeable(self, flags: Mapping[str, Value]) -> bool:
        if not self.largest or any(name in flags for name in _OWN_SCHEDULING):
            return False
        if int(flags.get("data_parallel_size", 1)) > 1:
            return False  # several engines, each with a scheduler of its own
        if flags.get("enable_chunked_prefill") is False:
            return False  # a prompt longer than the limit would wait for ever
        if not all(isinstance(flags.get(name, 1), int) for name in LIVE_FLAGS):
            return False  # vLLM also reads 8k
        return all(1 <= int(flags.get(name, 0)) <= most for name, most in self.largest.items())

"""A start that vLLM refuses, in its own words and as its log has it."""

from __future__ import annotations


class LaunchRefusedError(Exception):
    """vLLM would not start with this configuration; the text is what it objects to.

    `config` is the class of vLLM's that checks it, None where the engine finds out as it starts;
    `field` the field of that class, None where several do not fit together.
    """

    def __init__(self, objection: str, *, config: str | None = None, field: str = "") -> None:
        super().__init__(f"{field}: {objection}" if field else objection)
        self._objection, self._config, self._field = objection, config, field

    @property
    def is_of_engine(self) -> bool:
        """Whether the engine found out, and not the check of the flags."""
        return self._config is None

    def traceback(self) -> str:
        """Return the last lines of the traceback that vLLM ends with."""
        if self._config is None:
            return f"ValueError: {self}"
        head = (
            f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {self._config}"
        )
        if self._field:
            return f"{head}\n{self._field}\n  {self._objection} [type=value_error]"
        return f"{head}\n  Value error, {self._objection} [type=value_error]"

"""A command that reads and ends within a second or two, without collecting garbage."""

from __future__ import annotations

import gc
import os
from typing import Any

from typer.core import TyperCommand


class ShortLived(TyperCommand):
    """A command that ends before a collection of garbage pays.

    The modules that it imports make most of its objects, and all of these stay: Python would look
    through them again and again and find nothing.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command without looking for garbage in cycles, and NumPy on one thread."""
        # the others would spin for 20 ms of a processor each, waiting for a product of matrices
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return super().invoke(ctx)
        finally:
            if was_enabled:
                gc.enable()

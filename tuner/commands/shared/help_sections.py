"""Help sections: the many options of a command under headings, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

RUN_SECTIONS: Mapping[str, Sequence[str]] = {
    "What to tune": (
        *("model", "workload", "slo", "request_rate", "concurrency", "objective"),
        *("baseline", "set"),
    ),
    "Where": (
        *("vllm", "base_url", "gpus", "cards", "ray", "emulate", "engine", "live"),
        *("energy_gpu", "port", "startup_deadline_s", "fork_servers"),
        *("patience_s", "client_priority"),
    ),
    "What may change": (
        *("allow_gpu_settings", "read_only_device", "allow_output_changes"),
        *("quality", "quality_drop", "picture_drop"),
    ),
    "The search": (
        *("space", "hours", "trials", "stop_when_flat", "sampler", "seed", "from_study"),
        *("window_s", "max_window_s", "precision", "racing"),
    ),
    "The end of the night": (
        *("confirm", "confirm_repeats", "confirm_window_s", "checks", "headroom", "loads"),
    ),
    "The study and its results": (
        *("study", "store_url", "readable_by", "dry_run", "yes", "output", "notify"),
        *("metrics_file", "metrics_port", "metrics_host", "mlflow", "wandb"),
    ),
}


class RunHelp(TyperCommand):
    """A command whose help has the sections of `tuner run`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, each section with the options that the command has, the rest."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        }
        arguments = [p.name for p in self.params if p.param_type_name == "argument"]
        sections = {"Arguments": arguments, **RUN_SECTIONS, "Other options": list(records)}
        for heading, names in sections.items():
            rows = [records.pop(name) for name in names if name in records]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

"""Names that options accept: export formats, trace formats, and shipped files. Quick to import."""

from tuner.catalog.shipped import Kind, shipped_names
from tuner.load.importers.registry import TimeUnit, TraceFormat
from tuner.report.exports.export import EXPORTS

__all__ = ["EXPORTS", "Kind", "TimeUnit", "TraceFormat", "shipped_names"]

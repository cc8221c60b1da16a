"""Names that options accept: export formats, trace formats, and shipped files. Quick to import."""

from tuner.catalog.shipped import Kind, shipped_names
from tuner.load.importers.registry import TraceFormat
from tuner.report.exports.export import EXPORTS

__all__ = ["EXPORTS", "Kind", "TraceFormat", "shipped_names"]

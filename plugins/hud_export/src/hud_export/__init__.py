"""Jobs for other tools: Parquet, Inspect's logs, lines of JSON."""

from hud_export.exporting import FORMATS as FORMATS
from hud_export.exporting import export_job as export_job

__all__ = ["FORMATS", "export_job"]

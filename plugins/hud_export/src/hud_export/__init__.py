"""Jobs for other tools: Parquet, Inspect's logs, lines of JSON."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_export.exporting import FORMATS as FORMATS
    from hud_export.exporting import export_job as export_job

# The declaration beside this file is read at the start of many commands; what it declares is not.
_NAMES = {"FORMATS": "hud_export.exporting:FORMATS", "export_job": "hud_export.exporting:export_job"}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)

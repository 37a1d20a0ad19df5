"""The table a job ends with, as plain text; the same that `print(job.summary())` gives."""

from hud.eval.summarytable import ROWS, closing_table, columns, duration, number

__all__ = ["ROWS", "closing_table", "columns", "duration", "number"]

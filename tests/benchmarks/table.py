"""Print one table of figures, each beside its floor of the same run: `make bench`, `make bench BENCH=rollouts`.

Every module of this folder with a `measure() -> list[Row]` takes part. A row that fails is shown as such, and the
table goes on.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.benchmarks.row import Row  # noqa: E402 - found once the folder above is on the path

HEAD = ("work", "ours", "floor", "unit", "ours : floor", "target", "floor is", "note")


def modules(wanted: list[str]) -> list[str]:
    """Return the benchmarks to run: all, or those named.

    Raises:
        SystemExit: there is none of a name.
    """
    found = [
        path.stem for path in sorted(HERE.glob("*.py")) if "def measure(" in path.read_text(encoding="utf-8")
    ]
    found.remove("table")
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(found)}")
    return wanted or found


def cells(row: Row) -> tuple[str, ...]:
    """Return a line of the table; the ratio reads so that more is better where more is, and less where less is."""
    ratio = "-" if not row.floor else f"{row.ours / row.floor:.2f}"
    floor = "-" if row.floor is None else number(row.floor)
    return (row.work, number(row.ours), floor, row.unit, ratio, row.target, row.floor_name, row.note)


def number(value: float) -> str:
    """Return three significant digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def main(arguments: list[str]) -> int:
    """Run the benchmarks and print the table; 1 where one failed."""
    rows: list[tuple[str, ...]] = []
    failed = 0
    for name in modules(arguments):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            measured: list[Row] = importlib.import_module(f"tests.benchmarks.{name}").measure()
        except Exception:  # one benchmark's failure does not hide the others' figures
            traceback.print_exc()
            rows.append((name, "failed", *[""] * (len(HEAD) - 2)))
            failed += 1
            continue
        rows += [cells(row) for row in measured]
    widths = [max(len(line[column]) for line in [HEAD, *rows]) for column in range(len(HEAD))]
    for line in [HEAD, tuple("-" * width for width in widths), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

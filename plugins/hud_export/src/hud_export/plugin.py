"""What this distribution adds to hud."""

from hud.plugins import CommandKind, hookimpl


@hookimpl
def hud_commands() -> list[CommandKind]:
    """Declare `hud export`."""
    return [
        CommandKind(
            name="export",
            target="hud_export.command:export",
            summary="Write a job as Parquet, an Inspect log or lines of JSON",
        )
    ]

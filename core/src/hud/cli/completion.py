"""`hud completion`: what a shell runs to complete our command line."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  hud completion bash > ~/.local/share/bash-completion/completions/hud
    zsh:   hud completion zsh > "${fpath[1]}/_hud"
    fish:  hud completion fish > ~/.config/fish/completions/hud.fish
    """
    from hud.cli.program import hud

    found = get_completion_class(shell)
    if found is None:  # pragma: no cover - the three shells are click's own
        raise click.UsageError(f"no completion for {shell!r}")
    # The script is written out without asking the shell's version, so that it can be made on any machine.
    maker = found(hud, {}, "hud", "_HUD_COMPLETE")
    print(maker.source_template % maker.source_vars())

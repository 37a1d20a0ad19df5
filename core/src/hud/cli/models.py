"""`hud models`: which models can be reached from here, with which credential, and what they cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import click


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model. Prices are US dollars per million tokens, None where they are not known."""

    model: str
    agent: str
    reached_by: str
    credential: str
    input: float | None
    output: float | None
    cached_input: float | None


@click.group()
def models() -> None:
    """Show which models can be reached from here."""


@models.command("list")
@click.argument("pattern", default="*")
@click.option("--all", "everything", is_flag=True, help="Also those that nothing here can reach.")
@click.option("--quiet", "-q", is_flag=True, help="Print names alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(pattern: str, everything: bool, quiet: bool, as_json: bool) -> None:
    """List the models whose price is known, matching PATTERN, and what serves them.

    Any other name works as well: agents take it by its pattern. Prices of further models go into [prices] of hud.toml.
    """
    lines = [line for line in model_lines(pattern) if everything or line.reached_by]
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    if quiet:
        for line in lines:
            click.echo(line.model)
        return
    if lines:
        click.echo(_table(lines))
    for text in agent_lines():
        click.echo(text)


def model_lines(pattern: str) -> list[ModelLine]:
    """Return a line for each model with a known price, sorted by name."""
    from fnmatch import fnmatchcase

    from hud.agents.prices import known_models, price_of
    from hud.errors import ConfigError, PluginError
    from hud.plugins import current_host

    registry = current_host().registry
    lines: list[ModelLine] = []
    for model in known_models():
        if not fnmatchcase(model, pattern):
            continue
        price = price_of(model)
        agent = by = credential = ""
        try:
            kind = registry.agent_for_model(model)
        except PluginError:
            agent = "-"
        else:
            agent = kind.name
            try:
                by, credential = _route(model, kind.dialects[0], kind.credentials)
            except ConfigError:
                by = ""
        assert price is not None
        lines.append(ModelLine(model, agent, by, credential, price.input, price.output, price.cached_input))
    return lines


def agent_lines() -> list[str]:
    """Return what each agent of a model takes, and what it would need where it has no key."""
    from hud.errors import ConfigError
    from hud.plugins import current_host

    out: list[str] = []
    for kind in current_host().registry.agents():
        if not kind.dialects:
            continue
        takes = ", ".join(kind.models) or "any model behind base_url="
        try:
            by, credential = _route("any", kind.dialects[0], kind.credentials)
            state = f"reached by {by}" + (f" ({credential})" if credential else "")
        except ConfigError:
            state = f"no key: set {' or '.join([*kind.credentials, 'HUD_API_KEY'])}, or give base_url="
        out.append(f"{kind.name}: {takes}: {state}")
    return out or [
        "no agent of a model is installed: pip install hud-agent-claude hud-agent-openai hud-agent-gemini"
    ]


def _route(model: str, dialect: str, credentials: tuple[str, ...]) -> tuple[str, str]:
    from hud.agents.routing import resolve

    route = resolve(model, dialect, credentials=credentials)
    by = route.how if route.how == "own key" else f"{route.how} {route.base_url}"
    return by, route.credential


def _table(lines: list[ModelLine]) -> str:
    from hud.cli.table import columns

    def price(value: float | None) -> str:
        return "unknown" if value is None else f"{value:g}"

    rows = [["model", "agent", "reached by", "credential", "$/M in", "$/M cached", "$/M out"]]
    rows += [
        [
            line.model,
            line.agent,
            line.reached_by or "nothing",
            line.credential or "-",
            price(line.input),
            price(line.cached_input),
            price(line.output),
        ]
        for line in lines
    ]
    return columns(rows, width=140) + "\n"

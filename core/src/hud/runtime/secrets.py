"""Which of the orchestrator's variables an environment's process inherits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

PROVIDER_KEYS = frozenset(
    {
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "AZURE_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "COHERE_API_KEY",
        "DAYTONA_API_KEY",
        "DEEPSEEK_API_KEY",
        "E2B_API_KEY",
        "FIREWORKS_API_KEY",
        "GEMINI_API_KEY",
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GROQ_API_KEY",
        "HF_TOKEN",
        "HUGGINGFACE_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "MISTRAL_API_KEY",
        "MODAL_TOKEN_ID",
        "MODAL_TOKEN_SECRET",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "PRIME_API_KEY",
        "REPLICATE_API_TOKEN",
        "THINKINGMACHINES_API_KEY",
        "TINKER_API_KEY",
        "TOGETHER_API_KEY",
        "WANDB_API_KEY",
        "XAI_API_KEY",
    }
)
_SECRET_PREFIXES = ("HUD_", "AWS_", "OTEL_EXPORTER_OTLP_")
# Settings that must hold in the environment's process too, and hold no secret.
_SHARED_PREFIXES = ("HUD_PLUGINS_",)


def is_withheld(name: str) -> bool:
    """Say whether variable `name` stays with the orchestrator unless its user names it."""
    if name.startswith(_SHARED_PREFIXES):
        return False
    return name in PROVIDER_KEYS or name.startswith(_SECRET_PREFIXES)


def given_variables(env_vars: Iterable[str] | Mapping[str, str]) -> dict[str, str] | tuple[str, ...]:
    """Return what a runtime was given to pass on: names, or names and values. Secrets among the values are hidden."""
    if not isinstance(env_vars, Mapping):
        return tuple(env_vars)
    from hud.store.redact import hide_values_of

    given = {str(name): str(value) for name, value in env_vars.items()}
    hide_values_of(given)
    return given


def child_environment(
    env_vars: Iterable[str] | Mapping[str, str] = (), *, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables of an environment's process.

    `env_vars` names variables to pass on although they are withheld, or maps names to values. Thread counts of
    numeric libraries are 1 unless set: their pools start threads on import, and a process with threads must
    not fork.
    """
    base = os.environ if base is None else base
    out = {name: value for name, value in base.items() if not is_withheld(name)}
    if isinstance(env_vars, Mapping):
        out |= {str(name): str(value) for name, value in env_vars.items()}
    else:
        out |= {name: base[name] for name in env_vars if name in base}
    for library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        out.setdefault(f"{library}_NUM_THREADS", "1")
    return out

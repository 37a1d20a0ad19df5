"""Every error of the product, in one tree.

HudError
├── UsageError                     a mistake in what the user wrote; printed without a traceback
│   ├── AgentNotFoundError         (ValueError) no agent is called so, and none drives such a model
│   ├── ConfigError                (ValueError) hud.toml, settings, an agent's configuration
│   ├── TasksetError               (ValueError) a taskset's file or rows
│   ├── SourceError                (ValueError) an environment's source cannot be loaded
│   │   └── SourceNotFoundError    (FileNotFoundError) there is no such file, folder or module
│   ├── UnsupportedConfigError     (ValueError) a runtime cannot give what a row asks for
│   └── PlacementUndecidedError    (ValueError) nothing says where an environment should run
├── PluginError
│   ├── PluginNotInstalledError    (ImportError) no installed distribution provides the name
│   ├── PluginBrokenError          (ImportError) the distribution that provides it failed to load
│   ├── PluginConflictError        (LookupError) two distributions provide it
│   └── PluginHookError            a plugin's hook raised where its answer decides
├── WireError
│   ├── HudProtocolError           an error frame of the peer; has code, message, data
│   │   ├── NotAuthorizedError     (PermissionError) -32001
│   │   ├── LimitReachedError      -32002
│   │   ├── BadParamsError         (ValueError) -32602
│   │   └── WrongStateError        -32600
│   ├── CapabilityNotFoundError    (KeyError) no capability of the manifest, or several, answer to a name
│   └── ConnectionLostError        (ConnectionError) the channel ended or broke
├── EnvironmentFault               the environment's own code failed; never counted as reward 0
│   ├── AuthoringError             a template does not keep the generator's contract
│   │   └── TemplateTypeError      (TypeError) what was declared as a template is no async generator function
│   ├── PromptError                a prompt that cannot be sent
│   ├── RewardError                (ValueError) a second yield that is no finite score
│   └── TemplateRaisedError        the template or a hook raised
├── GraderError                    a grader failed; never a value
├── SandboxError                   isolation cannot be had, or the sandbox failed
├── RuntimeFault
│   ├── RuntimeStartError          created but never ready, or never created
│   │   └── ReadyTimeoutError      (TimeoutError) no answer to hello within the time to become ready
│   └── RuntimeDiedError           the placement ended during the rollout
├── AgentFault                     the agent raised
│   └── ProviderError              a model provider failed; has status, retryable
│       └── ContextOverflowError   the conversation is longer than the model's window
├── PhaseTimeoutError              (TimeoutError) a phase of a rollout passed its deadline
├── LimitError                     a limit on steps, tokens, cost or time was reached
│   └── BudgetExhaustedError       the job's budget is used up
├── StoreError                     a job file cannot be read or written
│   └── JobNotFoundError           (FileNotFoundError) no job of that name is kept here
└── NotGradedError                 a reward was read that no grader returned
"""

from __future__ import annotations

from typing import Any, ClassVar


class HudError(Exception):
    """Root of every error the product raises on purpose.

    `failed_part` says who failed (agent, environment, grader, sandbox, runtime, provider, plugin, wire,
    store, user) and `retryable` whether the same call can succeed unchanged; both go into the record.
    """

    failed_part: ClassVar[str] = "user"
    retryable: bool = False

    @property
    def hints(self) -> list[str]:
        """What to do next; empty where the message says it all."""
        return []


class UsageError(HudError):
    """Raised when what the user wrote cannot work; the message names the value and the remedy."""


class AgentNotFoundError(UsageError, ValueError):
    """Raised when no agent is called so, and none drives a model of that name; lists close names."""


class ConfigError(UsageError, ValueError):
    """Raised when a setting, hud.toml or a configuration has an unknown key or a wrong value."""


class TasksetError(UsageError, ValueError):
    """Raised when a taskset's file or rows are wrong; names file, line and value."""


class SourceError(UsageError, ValueError):
    """Raised when an environment's source is missing, does not import, or defines no environment."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """Raised when there is no file, folder or module of the name given."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnsupportedConfigError(UsageError, ValueError):
    """Raised before anything is created when a runtime cannot give what a row asks for."""


class PlacementUndecidedError(UsageError, ValueError):
    """Raised when nothing says where an environment should run; lists the choices."""


class PluginError(HudError):
    """Root of what goes wrong with plugins."""

    failed_part = "plugin"


class PluginNotInstalledError(PluginError, ImportError):
    """Raised when a name is used that no installed distribution provides; carries the install line."""


class PluginBrokenError(PluginError, ImportError):
    """Raised when a name is used whose distribution is installed but failed to load; says which and why."""


class PluginConflictError(PluginError, LookupError):
    """Raised when a name is used that two distributions provide; lists `name@dist` for each."""


class PluginHookError(PluginError):
    """Raised when a hook whose answer decides (`first`) raised; names the plugin."""


class WireError(HudError):
    """Root of what goes wrong between agent and environment."""

    failed_part = "wire"


class HudProtocolError(WireError):
    """Raised when the peer answers with an error frame.

    `code` is the JSON-RPC code, `message` the peer's text, `data` its details: `type`, `phase`,
    `retryable`, and `traceback` when the server runs with --debug.
    """

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.data: dict[str, Any] = data or {}
        self.retryable: bool = bool(self.data.get("retryable", False))

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class NotAuthorizedError(HudProtocolError, PermissionError):
    """Raised when the server refuses the token (-32001)."""


class LimitReachedError(HudProtocolError):
    """Raised when the server is over a limit, of sessions or tunnels say (-32002)."""


class BadParamsError(HudProtocolError, ValueError):
    """Raised when a request's params are wrong (-32602); names the field and what was expected."""


class WrongStateError(HudProtocolError):
    """Raised when a request does not fit the session's state (-32600): a grade without a task, say."""


class CapabilityNotFoundError(WireError, KeyError):
    """Raised when a reference names no capability of the manifest, or more than one; lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ConnectionLostError(WireError, ConnectionError):
    """Raised when the channel to the environment ended or broke before the reply came."""

    retryable = True


class EnvironmentFault(HudError):  # noqa: N818 - EnvironmentError is the standard library's
    """Root of failures of the environment's own code; reported as such, never as reward 0."""

    failed_part = "environment"


class AuthoringError(EnvironmentFault):
    """Raised when a template breaks the generator's contract; names template, file and line."""


class TemplateTypeError(AuthoringError, TypeError):
    """Raised when what is declared as a template is no async generator function, or its signature cannot serve."""


class PromptError(EnvironmentFault):
    """Raised when a first yield cannot be sent; names template, type and the path within the value."""


class RewardError(EnvironmentFault, ValueError):
    """Raised when a second yield is not a finite real number nor an object that carries one."""


class TemplateRaisedError(EnvironmentFault):
    """Raised when a template or a lifecycle hook raised; carries the author's own traceback as text."""

    def __init__(self, message: str, author_traceback: str = "") -> None:
        super().__init__(message)
        self.author_traceback = author_traceback


class GraderError(HudError):
    """Raised when a grader could not decide: it crashed, timed out, or could not be reached."""

    failed_part = "grader"


class SandboxError(HudError):
    """Raised when isolation cannot be had or the sandbox failed; names the engine and the remedy."""

    failed_part = "sandbox"


class RuntimeFault(HudError):  # noqa: N818 - RuntimeError is the standard library's
    """Root of failures of a placement: infrastructure, which a fresh placement may cure."""

    failed_part = "runtime"
    retryable = True


class RuntimeStartError(RuntimeFault):
    """Raised when a placement could not be created or never became ready; has its last output lines."""


class ReadyTimeoutError(RuntimeStartError, TimeoutError):
    """Raised when a placement did not answer `hello` in time; has the last refusal. The phase is `connect`."""

    phase = "connect"


class RuntimeDiedError(RuntimeFault):
    """Raised when a placement ended while it was in use; has exit status or signal and last output."""


class AgentFault(HudError):  # noqa: N818 - one word for what the agent did wrong
    """Raised when the agent raised; what it achieved is graded all the same."""

    failed_part = "agent"


class ProviderError(AgentFault):
    """Raised when a model provider failed for good.

    `status` is the HTTP status or None; `retry_after_s` what the provider asked to wait.
    """

    failed_part = "provider"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.retryable = retryable


class ContextOverflowError(ProviderError):
    """Raised when a provider refuses a conversation as longer than its model's window."""


class PhaseTimeoutError(HudError, TimeoutError):
    """Raised when a phase of a rollout passed its deadline; `phase` names it, `seconds` is the deadline."""

    failed_part = "runtime"

    def __init__(self, phase: str, seconds: float, message: str = "") -> None:
        super().__init__(message or f"phase {phase!r} passed its deadline of {seconds:g} s")
        self.phase = phase
        self.seconds = seconds


class LimitError(HudError):
    """Raised when a limit was reached; `limit` names it (max_steps, max_tokens, max_cost_usd, seconds)."""

    failed_part = "agent"

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class BudgetExhaustedError(LimitError):
    """Raised when the job's budget is used up; the job drains and can be resumed."""

    def __init__(self, message: str) -> None:
        super().__init__("budget", message)


class StoreError(HudError):
    """Raised when a job file cannot be read or written; what can be read is read."""

    failed_part = "store"


class JobNotFoundError(StoreError, FileNotFoundError):
    """Raised when no job, or no run, of a name is kept where it was looked for."""


class NotGradedError(HudError):
    """Raised when a reward is needed but no grader returned one."""

    failed_part = "grader"


HudException = HudError  # the name in HUD v6

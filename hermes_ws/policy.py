"""May this tool run now? Pure decisions: everything they depend on is an argument.

Two questions, in this order. *Is it allowed here at all?* Every filter that applies (the operator's, the key's, the
agent's, the conversation's, the run's) must let the tool through; deny wins over allow. *Must somebody be asked?*
Standing rules first, then remembered approvals, then the mode. Where something is missing or unclear the answer is
``deny`` (guarantee 12).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.values import (
    ApprovalMode,
    ApprovalRule,
    ApprovalsConfig,
    Option,
    Risk,
    Rule,
    Scope,
    ToolDescription,
    ToolFilter,
    ToolRule,
    Verdict,
)

__all__ = [
    "ApprovalSettings",
    "Judgement",
    "allowed",
    "approval_options",
    "bounded",
    "check_ceiling",
    "digest",
    "judge",
    "qualified",
    "remembered_rule",
    "risk_of",
]

TERMINAL: Final = "builtin:terminal"
"""Whose commands are looked into; any other tool may call an argument what it likes."""
CLIENT: Final = "client"
"""The source of tools that clients execute: nothing happens here."""
RISKS: Final[tuple[Risk, ...]] = ("low", "medium", "high")
_MODES: Final[tuple[ApprovalMode, ...]] = ("auto", "ask", "deny")
"""From loose to strict."""


class ApprovalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[approvals]`` of the configuration: what the operator lets happen without a person."""

    mode: ApprovalMode = "ask"
    """What a conversation that says nothing does with tools that are not read-only."""
    ceiling: ApprovalMode = "auto"
    """The loosest mode that a client may set: ``auto``, ``ask`` or ``deny``."""
    rules: list[ToolRule] = []
    """Standing decisions that come before a conversation's own."""
    terminal_rule: Literal["exact", "program"] = "exact"
    """What a wider approval of a command remembers: that very command, or every plain call of its program."""


def bounded(settings: ApprovalSettings, words: ApprovalsConfig | None) -> ApprovalSettings:
    """The operator's settings with further words of the operator's, on one agent or one MCP server: their mode is what
    holds there, and a conversation may only be stricter; their rules come first."""
    if words is None:
        return settings
    mode = words.mode or settings.mode
    ceiling = settings.ceiling if words.mode is None else _stricter(settings.ceiling, words.mode)
    rules = [*(words.rules or []), *settings.rules]
    return msgspec.structs.replace(settings, mode=_stricter(mode, ceiling), ceiling=ceiling, rules=rules)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What policy says of one call. ``reason`` is for the model and the people."""

    verdict: Verdict
    risk: Risk
    reason: str


def qualified(tool: ToolDescription) -> str:
    """The name that a policy pattern is held against: ``builtin:read_file``, ``mcp:github/get_issue``."""
    separator = "/" if tool.source.startswith("mcp:") else ":"
    return f"{tool.source}{separator}{tool.name}"


def fits(pattern: str, tool: ToolDescription) -> bool:
    """Whether a name or glob means this tool; one without a source means any source."""
    return fnmatchcase(qualified(tool), pattern) or (":" not in pattern and fnmatchcase(tool.name, pattern))


def allowed(
    tool: ToolDescription,
    chosen: ToolFilter | None,
    narrower: Iterable[ToolFilter | None],
    default: Sequence[str],
    *,
    brought: bool = False,
) -> bool:
    """Whether every filter lets the tool through: the conversation's, which without an ``allow`` leaves the server's
    default set, and those that can only take away from it (the operator's, the key's, the run's). Of a function that
    was ``brought`` along with the run only a ``deny`` says no."""
    base = chosen or ToolFilter()
    every = [base if base.allow is not None else ToolFilter(allow=list(default), deny=base.deny), *narrower]
    return all(_passes(given, tool, brought) for given in every if given is not None)


def _passes(given: ToolFilter, tool: ToolDescription, brought: bool) -> bool:
    if any(fits(pattern, tool) for pattern in given.deny or []):
        return False
    if given.allow is None or brought:
        return True
    return any(fits(pattern, tool) for pattern in given.allow)


def judge(
    tool: ToolDescription,
    arguments: dict[str, Any],
    *,
    chosen: ToolFilter | None,
    narrower: Iterable[ToolFilter | None],
    default: Sequence[str],
    approvals: ApprovalsConfig | None,
    settings: ApprovalSettings,
    remembered: Iterable[ApprovalRule],
    brought: bool = False,
) -> Judgement:
    """What to do with this call of this tool."""
    risk = risk_of(tool, arguments)
    if not allowed(tool, chosen, narrower, default, brought=brought):
        return Judgement("deny", risk, f"the tool {qualified(tool)} is not allowed in this conversation")
    matching: list[Verdict] = [rule.decision for rule in _rules(approvals, settings) if fits(rule.tool, tool)]
    if "deny" in matching:
        return Judgement("deny", risk, f"a rule refuses {qualified(tool)}")
    mode = _mode(approvals, settings)
    verdict: Verdict = matching[0] if matching else _by_mode(tool, mode)
    if verdict == "ask" and any(_covers(rule.rule, tool, arguments) for rule in remembered):
        return Judgement("allow", risk, "approved before")
    if verdict == "ask" and mode == "deny":
        return Judgement("deny", risk, f"{qualified(tool)} needs an approval, and approvals are off here")
    return Judgement(verdict, risk, f"by {'rule' if matching else f'mode {mode}'}")


def _rules(approvals: ApprovalsConfig | None, settings: ApprovalSettings) -> list[ToolRule]:
    """The operator's rules, then the conversation's, less those that the ceiling (as it is now) forbids."""
    own = (approvals.rules if approvals else None) or []
    return [*settings.rules, *(r for r in own if r.decision != "allow" or settings.ceiling == "auto")]


def _mode(approvals: ApprovalsConfig | None, settings: ApprovalSettings) -> ApprovalMode:
    if approvals is None or approvals.mode is None:
        return settings.mode
    return _stricter(approvals.mode, settings.ceiling)


def _stricter(one: ApprovalMode, other: ApprovalMode) -> ApprovalMode:
    return one if _MODES.index(one) >= _MODES.index(other) else other


def _by_mode(tool: ToolDescription, mode: ApprovalMode) -> Verdict:
    return "allow" if tool.annotations.read_only or tool.source == CLIENT or mode == "auto" else "ask"


def check_ceiling(
    approvals: ApprovalsConfig | None, settings: ApprovalSettings, path: str = "$.config.approvals"
) -> None:
    """Raises :class:`CommandError` ``not_permitted`` when a client sets more than the operator lets it. ``path`` is
    where it does so."""
    if approvals is None or settings.ceiling == "auto":
        return
    ceiling = settings.ceiling
    if approvals.mode is not None and _MODES.index(approvals.mode) < _MODES.index(ceiling):
        message = f"the operator's ceiling is {ceiling!r}; {approvals.mode!r} is looser"
        raise CommandError("not_permitted", message, path=f"{path}.mode")
    for n, rule in enumerate(approvals.rules or []):
        if rule.decision == "allow":
            message = f"the operator's ceiling is {ceiling!r}; a rule that allows is looser"
            raise CommandError("not_permitted", message, path=f"{path}.rules[{n}].decision")


# -- risk ----------------------------------------------------------------------------------------------

_DANGEROUS: Final = re.compile(
    r"""
      \bsudo\b | \bdoas\b | \bsu\s+-
    | \brm\s+(-\S*\s+)*-\S*[rf]              # rm -r, rm -f
    | \b(mkfs|fdisk|parted|wipefs|shred)\b | \bdd\b.*\bof=
    | \b(shutdown|reboot|halt|poweroff|init\s+[06])\b
    | \b(curl|wget)\b.*\|\s*(ba|z|da)?sh\b   # curl | sh
    | \bchmod\s+(-\S+\s+)*[0-7]*777\b | \bchown\s+-R\b
    | \bgit\s+push\b.*(--force|-f\b) | \bgit\s+reset\s+--hard\b
    | >\s*/dev/(sd|nvme|vd|disk) | >\s*/etc/
    | \b(kill|pkill|killall)\s+-9? | :\(\)\s*\{
    | \b(DROP|TRUNCATE)\s+(TABLE|DATABASE)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def risk_of(tool: ToolDescription, arguments: dict[str, Any]) -> Risk:
    """How much a call can break: a hint to the person who is asked, and the measure for edited arguments."""
    if tool.annotations.read_only:
        return "low"
    command = arguments.get("command")
    if qualified(tool) == TERMINAL and isinstance(command, str):
        return "high" if _DANGEROUS.search(command) else "medium"
    return "high" if tool.annotations.destructive and tool.source != "builtin" else "medium"


# -- approvals -----------------------------------------------------------------------------------------

_LABELS: Final[tuple[tuple[Scope, str], ...]] = (
    ("once", "Allow once"),
    ("run", "Allow for this run"),
    ("conversation", "Allow in this conversation"),
    ("always", "Always allow"),
)
_PLAIN_COMMAND: Final = re.compile(r"[\w./@%+=:,-]+( [\w./@%+=:,-]+)*")


def approval_options(
    tool: ToolDescription, arguments: dict[str, Any], settings: ApprovalSettings, server: str | None = None
) -> list[Option]:
    """The ways to answer an approval. Each wider one shows the rule that it would remember. ``server``: where a tool of
    an MCP server is."""
    rule = msgspec.structs.replace(remembered_rule(tool, arguments, settings), server=server)
    wide = [
        Option(id=scope, label=label, kind="allow", scope=scope, rule=None if scope == "once" else rule)
        for scope, label in _LABELS
    ]
    return [*wide, Option(id="deny", label="Deny", kind="deny")]


def remembered_rule(tool: ToolDescription, arguments: dict[str, Any], settings: ApprovalSettings) -> Rule:
    """What a wider approval covers: for a command that very command, or what the operator widened it to;
    for any other tool the tool, whatever its arguments."""
    command = arguments.get("command")
    if qualified(tool) != TERMINAL or not isinstance(command, str):
        return Rule(tool=qualified(tool))
    if settings.terminal_rule == "program" and _PLAIN_COMMAND.fullmatch(command):
        return Rule(tool=qualified(tool), match={"program": command.split(" ", 1)[0]})
    return Rule(tool=qualified(tool), match={"command": command})


def _covers(rule: Rule, tool: ToolDescription, arguments: dict[str, Any]) -> bool:
    if rule.tool != qualified(tool):
        return False
    if rule.match is None:
        return True
    if "program" in rule.match:
        command = arguments.get("command")
        plain = isinstance(command, str) and _PLAIN_COMMAND.fullmatch(command)
        return bool(plain) and str(command).split(" ", 1)[0] == rule.match["program"]
    return all(arguments.get(key) == value for key, value in rule.match.items())


def digest(arguments: dict[str, Any]) -> str:
    """A fingerprint of the arguments that were shown, so that an answer can say what it approves."""
    return hashlib.sha256(msgspec.json.encode(arguments, order="deterministic")).hexdigest()[:32]

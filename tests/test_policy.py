"""Policy: values in, a decision out. One sentence a case."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws import policy
from hermes_ws.errors import CommandError
from hermes_ws.policy import ApprovalSettings
from hermes_ws.protocol.values import (
    Annotations,
    ApprovalRule,
    ApprovalsConfig,
    By,
    Rule,
    ToolDescription,
    ToolFilter,
    ToolRule,
    Verdict,
)


def tool(name: str, source: str = "builtin", *, read_only: bool = False) -> ToolDescription:
    annotations = Annotations(read_only=read_only, idempotent=read_only, destructive=not read_only)
    return ToolDescription(name=name, source=source, title=name, description="", parameters={}, annotations=annotations)


TERMINAL, READ, ISSUE = tool("terminal"), tool("read_file", read_only=True), tool("get_issue", "mcp:github")


@pytest.mark.parametrize(
    ("chosen", "tool_", "expected"),
    [
        (None, READ, True),
        (None, ISSUE, False),
        (ToolFilter(allow=[]), READ, False),
        (ToolFilter(allow=["read_file"]), READ, True),
        (ToolFilter(allow=["builtin:read_file"]), READ, True),
        (ToolFilter(allow=["builtin:*"]), ISSUE, False),
        (ToolFilter(allow=["mcp:github/get_*"]), ISSUE, True),
        (ToolFilter(allow=["get_*"]), ISSUE, True),
        (ToolFilter(allow=["mcp:other/*"]), ISSUE, False),
        (ToolFilter(allow=["*"], deny=["terminal"]), TERMINAL, False),
        (ToolFilter(allow=["builtin:terminal"], deny=["*:term*"]), TERMINAL, False),
        (ToolFilter(deny=["read_file"]), TERMINAL, True),
        (ToolFilter(deny=["read_file"]), READ, False),
        (ToolFilter(allow=["READ_FILE"]), READ, False),
    ],
)
def test_names_globs_and_sources(chosen: ToolFilter | None, tool_: ToolDescription, expected: bool) -> None:
    assert policy.allowed(tool_, chosen, [], ["builtin:*"]) is expected


def test_other_filters_only_take_away() -> None:
    assert policy.allowed(ISSUE, ToolFilter(allow=["*"]), [ToolFilter(deny=["terminal"]), None], ["builtin:*"])
    assert not policy.allowed(ISSUE, ToolFilter(allow=["*"]), [ToolFilter(allow=["builtin:*"])], ["builtin:*"])
    assert not policy.allowed(ISSUE, ToolFilter(allow=["builtin:*"]), [ToolFilter(allow=["*"])], ["builtin:*"])
    assert not policy.allowed(READ, None, [ToolFilter(allow=[])], ["builtin:*"])


def verdict(
    tool_: ToolDescription,
    approvals: ApprovalsConfig | None = None,
    settings: ApprovalSettings | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    remembered: list[Rule] | None = None,
    chosen: ToolFilter | None = None,
) -> Verdict:
    rules = [
        ApprovalRule(rule_id="r", scope="always", rule=rule, agent="demo", by=By(principal="me"), created_at=0)
        for rule in remembered or []
    ]
    return policy.judge(
        tool_,
        arguments or {},
        chosen=chosen,
        narrower=[],
        default=["*"],
        approvals=approvals,
        settings=settings or ApprovalSettings(),
        remembered=rules,
    ).verdict


def test_by_default_what_only_reads_runs_and_the_rest_asks() -> None:
    assert verdict(READ) == "allow"
    assert verdict(TERMINAL) == "ask"


def test_auto_runs_whatever_is_allowed_and_deny_refuses_what_would_ask() -> None:
    assert verdict(TERMINAL, ApprovalsConfig(mode="auto")) == "allow"
    assert verdict(TERMINAL, ApprovalsConfig(mode="auto"), chosen=ToolFilter(allow=[])) == "deny"
    assert verdict(TERMINAL, ApprovalsConfig(mode="deny")) == "deny"
    assert verdict(READ, ApprovalsConfig(mode="deny")) == "allow"


def test_of_rules_deny_wins_else_the_first_that_fits() -> None:
    def by(*rules: tuple[str, Verdict]) -> Verdict:
        return verdict(TERMINAL, ApprovalsConfig(rules=[ToolRule(tool=t, decision=d) for t, d in rules]))

    assert by(("terminal", "allow")) == "allow"
    assert by(("builtin:*", "ask"), ("terminal", "allow")) == "ask"
    assert by(("terminal", "allow"), ("*", "deny")) == "deny"
    assert by(("read_file", "allow")) == "ask"


def test_a_rule_can_make_a_reading_tool_ask() -> None:
    assert verdict(READ, ApprovalsConfig(rules=[ToolRule(tool="read_file", decision="ask")])) == "ask"


def test_the_operators_rules_come_first_and_the_ceiling_holds_whatever_was_configured() -> None:
    refuse = ApprovalSettings(rules=[ToolRule(tool="terminal", decision="deny")])
    assert verdict(TERMINAL, ApprovalsConfig(mode="auto"), refuse) == "deny"
    asking = ApprovalSettings(ceiling="ask")
    assert verdict(TERMINAL, ApprovalsConfig(mode="auto"), asking) == "ask"
    loose = ApprovalsConfig(rules=[ToolRule(tool="terminal", decision="allow")])
    assert verdict(TERMINAL, loose, asking) == "ask"
    assert verdict(TERMINAL, None, ApprovalSettings(mode="auto", ceiling="ask")) == "allow"


def test_a_client_may_not_set_more_than_the_ceiling() -> None:
    asking = ApprovalSettings(ceiling="ask")
    policy.check_ceiling(ApprovalsConfig(mode="deny"), asking)
    policy.check_ceiling(ApprovalsConfig(mode="auto"), ApprovalSettings())
    with pytest.raises(CommandError) as refused:
        policy.check_ceiling(ApprovalsConfig(mode="auto"), asking)
    assert (refused.value.code, refused.value.path) == ("not_permitted", "$.config.approvals.mode")
    with pytest.raises(CommandError) as refused:
        policy.check_ceiling(ApprovalsConfig(rules=[ToolRule(tool="x", decision="allow")]), asking)
    assert refused.value.path == "$.config.approvals.rules[0].decision"


def test_an_approved_command_covers_that_command_and_no_other() -> None:
    rule = policy.remembered_rule(TERMINAL, {"command": "ls -la"}, ApprovalSettings())
    assert rule.match == {"command": "ls -la"}
    assert verdict(TERMINAL, arguments={"command": "ls -la"}, remembered=[rule]) == "allow"
    assert verdict(TERMINAL, arguments={"command": "ls -la; rm x"}, remembered=[rule]) == "ask"
    assert verdict(READ, ApprovalsConfig(rules=[ToolRule(tool="*", decision="ask")]), remembered=[rule]) == "ask"


def test_a_widened_rule_covers_plain_calls_of_the_program_only() -> None:
    wide = ApprovalSettings(terminal_rule="program")
    rule = policy.remembered_rule(TERMINAL, {"command": "git status"}, wide)
    assert rule.match == {"program": "git"}
    for command, expected in [
        ("git log -3", "allow"),
        ("git log; rm x", "ask"),
        ("git log && x", "ask"),
        ("git `x`", "ask"),
        ("git $(x)", "ask"),
        ("git log > x", "ask"),
        ("gitx", "ask"),
        ("git log\nrm x", "ask"),
    ]:
        assert verdict(TERMINAL, arguments={"command": command}, remembered=[rule]) == expected, command
    assert policy.remembered_rule(TERMINAL, {"command": "a; b"}, wide).match == {"command": "a; b"}


def test_another_tools_rule_is_of_no_use() -> None:
    assert verdict(TERMINAL, remembered=[Rule(tool="mcp:x/terminal")]) == "ask"
    assert verdict(ISSUE, remembered=[Rule(tool="mcp:github/get_issue")]) == "allow"


def test_a_remembered_approval_does_not_bring_back_what_is_not_allowed() -> None:
    assert verdict(TERMINAL, remembered=[Rule(tool="builtin:terminal")], chosen=ToolFilter(deny=["*"])) == "deny"


@pytest.mark.parametrize(
    ("command", "risk"),
    [
        ("ls -la", "medium"),
        ("rm x", "medium"),
        ("rm -rf /", "high"),
        ("rm -v -fr x", "high"),
        ("sudo ls", "high"),
        ("curl http://x | sh", "high"),
        ("dd if=/dev/zero of=/dev/sda", "high"),
        ("git push --force", "high"),
        ("echo x > /etc/passwd", "high"),
        (":(){ :|:& };:", "high"),
    ],
)
def test_the_risk_of_a_command(command: str, risk: str) -> None:
    assert policy.risk_of(TERMINAL, {"command": command}) == risk
    assert policy.risk_of(READ, {"command": command}) == "low"


def test_each_wider_option_shows_the_rule_it_would_remember() -> None:
    options = policy.approval_options(TERMINAL, {"command": "ls"}, ApprovalSettings())
    assert [(o.id, o.kind, o.scope) for o in options] == [
        ("once", "allow", "once"),
        ("run", "allow", "run"),
        ("conversation", "allow", "conversation"),
        ("always", "allow", "always"),
        ("deny", "deny", None),
    ]
    assert options[0].rule is None
    assert all(o.rule == Rule(tool="builtin:terminal", match={"command": "ls"}) for o in options[1:4])


def test_a_digest_is_of_the_arguments_whatever_their_order() -> None:
    assert policy.digest({"a": 1, "b": 2}) == policy.digest({"b": 2, "a": 1})
    assert policy.digest({"a": 1}) != policy.digest({"a": 2})

"""`lcp doctor`: what this computer can do, what is wrong, and the command that fixes it."""

import json
import sys
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON object.")
    ] = False,
) -> None:
    """Check the installation: llama.cpp, CPU, GPU, folders. Exit with 1 if something is wrong."""
    from lcp import health_checks
    from lcp.terminal.screen import Screen

    findings = health_checks.examine()
    if as_json:
        sys.stdout.write(json.dumps(health_checks.as_json(findings)) + "\n")
    else:
        health_checks.show(findings, Screen(err=sys.stdout))
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)

"""`lcp doctor`: what this computer can do, what is wrong, and the command that mends it."""

import json
import sys
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON object.")
    ] = False,
) -> None:
    """Look at the installation: llama.cpp, CPU, GPU, folders. Exit 1 when something is wrong."""
    from lcp import doctor
    from lcp.terminal.screen import Screen

    findings = doctor.examine()
    if as_json:
        sys.stdout.write(json.dumps(doctor.as_json(findings)) + "\n")
    else:
        doctor.show(findings, Screen(err=sys.stdout))
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)

"""``gddctl doctor``: what this machine can do."""

from __future__ import annotations

from gddctl.commands.output import Json, Output, Quiet, Verbose


def doctor(json: Json = False, verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Say which parts are here and really load, from torch to TensorRT, and whether predict, serve, ship and bench are ready."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.pipeline.doctor import examine

    findings = examine()
    for finding in findings:
        output.say(f"{finding.mark} {finding.name:<26} {finding.detail}")
        if finding.remedy:
            output.say(f"  {'':<26} -> {finding.remedy}")
    output.done({"findings": [finding.to_json() for finding in findings]}, following="gddctl run")

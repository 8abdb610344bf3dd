"""Settings that have no effect with this model, and the sentences that say so."""

from __future__ import annotations

from collections.abc import Collection

from lcp.engine_interface import Engine
from lcp.settings import EFFORTS, Settings


def unsupported(
    names: Collection[str], engine: Engine, settings: Settings, system: str | None
) -> list[str]:
    """A sentence on each of these settings that has no effect; `system` is the system text of the
    chat. Ask when a person chooses a setting, not when the chat is resumed."""
    ignored = [name for name in names if name in engine.ignored]
    if ignored:
        return [
            f"No effect on this server: {', '.join(ignored)}.",
            *unsupported({*names} - {*ignored}, engine, settings, system),
        ]
    if settings.raw == "on":
        chosen = "system" in settings.chosen or system != settings.system
        if {"raw", "system"} & {*names} and system and chosen:
            return ["The system text is not used: raw continues text as it is."]
        return []
    told = []
    effort = {"reasoning_effort", "chat_template_kwargs"} & {*names}
    if effort and {*EFFORTS} & {*engine.variables} and not engine.template.uses(*EFFORTS):
        told.append("Reasoning effort: not supported by this model's chat template.")
    if "reasoning_budget" in names and settings.reasoning_budget and not engine.template.thinks:
        told.append("Thinking budget: this model's chat template has no thinking to limit.")
    if "system" in names and system == "" and (own := engine.template.own_system(silent=True)):
        told.append(f"The chat template always has a system text of its own: {own}")
    return told

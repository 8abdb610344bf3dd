"""The slash commands of the chat; lcp.commands.command_table lists them all."""

from lcp.commands.command_table import completions, run

__all__ = ["completions", "run"]

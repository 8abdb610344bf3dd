"""Signals and terminal modes between two prompts."""

"""Addresses of servers, and their tables in config.toml."""

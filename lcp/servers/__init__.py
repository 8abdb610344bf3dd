"""Where servers are: their addresses, and the table of config.toml."""

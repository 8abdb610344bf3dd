"""Model files: their names, where they come from, and where they are on this computer."""

"""Model files: names, where they come from, where they lie. Knows no chat and no llama.cpp."""

"""lcp: a local chat with large language models, in the terminal, on llama.cpp."""

__version__ = "0.1.0"

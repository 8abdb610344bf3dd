"""Tokens in, tokens out. Knows no turns, no terminal, no network; the one owner of llama_cpp."""

"""The conversation, the part of it that fits in the context window, and its file on disk."""

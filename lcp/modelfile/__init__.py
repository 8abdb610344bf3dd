"""A GGUF as a file: its header, what a person wants to know of it, and the memory it needs."""

"""What was said: the conversation, the part of it that fits, the file that keeps it."""

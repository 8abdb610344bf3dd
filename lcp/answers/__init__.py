"""What the engines share while they answer: bytes to text, thinking, repetition, the thread."""

"""What the engines share while they answer: bytes to text, the tags of thinking, repetition."""

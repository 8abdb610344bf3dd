"""What the numbers inside a model mean: experiments and measures, on arrays. Draws nothing."""

"""What the numbers inside a model mean: experiments and measures on arrays. It draws nothing."""

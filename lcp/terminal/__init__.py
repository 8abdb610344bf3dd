"""Keys in, characters out. Knows no models."""

"""One conversation with one engine: its turns, the window, what is attached, resumed, switched."""

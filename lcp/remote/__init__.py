"""A server as an engine: messages in, a reply out, over HTTP."""

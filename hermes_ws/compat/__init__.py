"""The OpenAI-compatible routes as values: requests read, the log projected back. No I/O, no clock, no ids."""

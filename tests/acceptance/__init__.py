"""Acceptance: clients that we did not write, against a running server with the demo agent."""

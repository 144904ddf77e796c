"""The handlers of the OpenAI-compatible routes: read a request, send commands, follow the log, project it back."""

"""Pictures between two prompts, by transport between their tokens."""

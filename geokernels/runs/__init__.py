"""Commands' work in a folder: steps, checkpoints, resuming, the record."""

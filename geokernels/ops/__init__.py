"""The public operators: checked, documented, and sent to the fastest implementation that can run."""

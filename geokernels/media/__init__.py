"""Pictures, masks and clips: read and written."""

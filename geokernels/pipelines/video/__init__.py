"""A clip is edited through its atlas: Text2LIVE on video."""

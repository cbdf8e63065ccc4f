"""What tells a pipeline in which direction to go: views, CLIP, the terms of the loss."""

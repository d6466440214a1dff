"""Keep compiled models, and decide when they are stale."""

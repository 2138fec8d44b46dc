"""The world of lens-nano: objects, scenes, and the captions of scenes."""

"""An artifact, used by someone who waits for the answer."""

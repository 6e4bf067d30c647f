"""An artifact, made."""

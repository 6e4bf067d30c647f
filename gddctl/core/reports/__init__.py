"""Numbers and limits; the verdict is computed from them, never stored."""

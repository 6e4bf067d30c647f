"""Training images to activation ranges, and the record of how."""

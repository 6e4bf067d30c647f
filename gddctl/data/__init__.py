"""Pixels and labels: files to arrays, arrays to scores. No torch."""

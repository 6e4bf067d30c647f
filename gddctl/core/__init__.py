"""Nouns: names, settings, files and numbers. Standard library, pydantic and PyYAML only."""

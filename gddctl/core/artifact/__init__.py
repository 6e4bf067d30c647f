"""Bundles and deployable files, with their lineage."""

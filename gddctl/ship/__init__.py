"""A model, packed: a folder that needs nothing else."""

"""Methods held against each other: the same data, seeds and batches, many trainings, one table."""

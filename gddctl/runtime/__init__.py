"""A finished artifact, running: numpy in, numpy out."""

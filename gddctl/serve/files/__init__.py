"""Image files, films and cameras in, files of results out."""

"""Data sets of the field by their names, read from the files as they were published."""

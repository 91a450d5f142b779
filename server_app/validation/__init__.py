"""Validation of a run before any client starts: configuration, compatibility of the parts, and a dry run."""

"""Sweeps: many runs that differ in chosen settings, planned from one file, played, kept in a database and compared."""

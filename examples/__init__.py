"""Examples of plug-ins, one of each kind: copy one beside ``pyproject.toml`` and name it by its import path."""

"""Participant: what one client does in a round, and the losses, methods and attacks that it can be given."""

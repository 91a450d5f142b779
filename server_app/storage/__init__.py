"""Storage of a run: its directory, its checkpoints, what a resume needs, and scores of the label audits."""

"""The words in which strategies and client methods talk beside the model: keys of messages and of their answers."""

SINCE_DETECTION = "rounds-since-detection"
"""Rounds since the server told clean from noisy clients apart; 0 up to the first round after the warm-up."""
LEARNED = "learned-labels"
"""Whether a reply of this client counted in which it corrected its labels: then it must have a state."""

QUESTION = "question"
"""What a client is asked outside of training: ``RELABEL`` or ``RELABEL_CONFIDENT``."""
RELABEL, RELABEL_CONFIDENT = "relabel", "relabel-confident"
NOISE_LEVEL = "noise-level"
"""Estimated share of wrong labels: the answer to ``RELABEL``, and what the server says of it later."""
WANT_SCORE, SCORE = "want-lid", "lid"
"""Whether the client shall report its mean local intrinsic dimensionality, and that number."""

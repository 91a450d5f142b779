"""Personal results of a site after the last round: comparison with training alone, a tuned model, a report."""

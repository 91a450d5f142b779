"""Engine of a simulation on one machine: a grid whose clients are answered by worker processes, without Ray."""

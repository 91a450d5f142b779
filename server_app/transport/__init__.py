"""Transport of messages between the run and its clients: the grid by client number, replies, and Ray's recovery."""

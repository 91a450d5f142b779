"""Which errors a real node tells the server in full."""


class ToldError(ValueError):
    """An error about what the server sent, or about the node's part in the run, that the coordinator can correct.

    Its text is made for the coordinator and names nothing that is the site's own: no path, file, label or value of its
    data. Of any other error a real node tells the type only.
    """

"""What a model can take: the shape of its inputs is known before any data is read."""


def image_shape(input_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """Return ``input_shape`` as (channels, height, width).

    Raises
    ------
    ValueError
        If it is not the shape of an image, or a side is shorter than ``smallest`` pixels.
    """
    if len(input_shape) != 3:
        raise ValueError(f"images of shape (channels, height, width) expected, the task's inputs are {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ValueError(
            f"images of at least {smallest} x {smallest} pixels expected, the task's are {height} x {width}: "
            "choose a model with less pooling, or larger images"
        )
    return channels, height, width

"""Small networks: a perceptron, plain convolutional networks, a bag of words; and how they are initialised.

Starting weights are drawn from torch's global generator: seed it first, see ``tasks/seeds.py``. The shape of a model's
inputs is known before any data is read, so that a model that cannot take them is refused then.
"""

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from tasks.plugins import Registry

MODELS = Registry("model", nn.Module, run_sets=("num_classes", "input_shape", "vocabulary"))


@MODELS.register("linear")
def linear(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """One linear layer, for inputs of any shape; it starts at zero, with equal logits for all classes."""
    layer = nn.Linear(prod(input_shape), num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


@MODELS.register("mlp")
def mlp(num_classes: int, input_shape: tuple[int, ...], hidden: int = 64) -> nn.Module:
    """One hidden layer of ReLU units, for inputs of any shape.

    Parameters
    ----------
    hidden
        Number of hidden units, at least 1.

    Raises
    ------
    ValueError
        If ``hidden`` is not a positive integer.
    """
    if not isinstance(hidden, int) or hidden < 1:
        raise ValueError(f"hidden = {hidden!r}: a positive number of units expected")
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(input_shape), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


@MODELS.register("digits-cnn")
def digits_cnn(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Small network for digits: two 3x3 convolutions (16, 32 channels), one pooling, one linear layer.

    It has no normalisation layer, so it also trains on clients with a few dozen images and on batches of one.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 2 x 2 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=2)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 2) * (width // 2), num_classes),
    )


@MODELS.register(
    "lenet",
    "LeCun et al., Proc. IEEE 1998; Li et al. (NIID-Bench), ICDE 2022",
    "https://ieeexplore.ieee.org/document/726791",
    "https://arxiv.org/abs/2102.02079",
)
def lenet(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """LeNet-5 with ReLU and maxima, the usual small network of comparisons of federated learning on CIFAR-10.

    Two unpadded 5x5 convolutions with 6 and 16 channels, each followed by a 2x2 maximum; then 120 and 84 hidden units.
    No normalisation layer. 62,006 parameters for 3x32x32 images and 10 classes, as in NIID-Bench (Li, Diao, Chen and
    He, ICDE 2022); after LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 1998. A CPU trains it about six
    times as fast as ``thin-cnn8``.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 16 x 16 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=16)
    convolutions = [_lenet_half(channels, 6), _lenet_half(6, 16)]
    left = 16 * ((height - 4) // 4 - 2) * ((width - 4) // 4 - 2)
    hidden = [nn.Linear(left, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), *hidden, nn.Linear(84, num_classes))


@MODELS.register(
    "cnn8",
    "Ma et al., ICML 2020; Ye et al., NeurIPS 2023",
    "https://arxiv.org/abs/2006.13554",
    "https://papers.nips.cc/paper_files/paper/2023/hash/15f4cefb0e143c7ad9d40e879b0a9d0c-Abstract-Conference.html",
)
def cnn8(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Eight-layer network of the active-passive and active negative losses, with batch normalisation.

    Pairs of 3x3 convolutions with 64, 128 and 196 channels, each pair followed by a 2x2 maximum; then 256 hidden
    units. 1,639,794 parameters for 3x32x32 images and 10 classes. Source: Ma et al., ICML 2020, and Ye et al.,
    NeurIPS 2023, with their initial weights.

    Batch normalisation cannot train on a batch of one example: torch raises ``ValueError``, so a trainer has to
    leave such a last batch out.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 8 x 8 pixels.
    """
    return _eight_layers(num_classes, input_shape, (64, 128, 196))


@MODELS.register("thin-cnn8")
def thin_cnn8(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Like cnn8 with a quarter of the channels, 16, 32 and 49; a CPU trains it about six times as fast.

    The hidden layer keeps its 256 units. 256,905 parameters for 3x32x32 images and 10 classes.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 8 x 8 pixels.
    """
    return _eight_layers(num_classes, input_shape, (16, 32, 49))


def _eight_layers(num_classes: int, input_shape: tuple[int, ...], widths: tuple[int, int, int]) -> nn.Module:
    """Stack three pairs of convolutions of these ``widths``, 256 hidden units and the classifier."""
    channels, height, width = image_shape(input_shape, smallest=8)
    pairs = [layer for a, b in pairwise((channels, *widths)) for layer in _conv_pair(a, b)]
    size = widths[-1] * (height // 8) * (width // 8)
    model = nn.Sequential(*pairs, *_hidden(size, 256), nn.Linear(256, num_classes))
    init_published(model)
    return model


@MODELS.register(
    "mnist-cnn",
    "Ma et al., ICML 2020; Ye et al., NeurIPS 2023",
    "https://arxiv.org/abs/2006.13554",
    "https://papers.nips.cc/paper_files/paper/2023/hash/15f4cefb0e143c7ad9d40e879b0a9d0c-Abstract-Conference.html",
)
def mnist_cnn(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Four-layer network of the active-passive and active negative losses for MNIST, with batch normalisation.

    3x3 convolutions with 32 and 64 channels, each followed by a 2x2 maximum; then 128 hidden units. 422,090 parameters
    for 1x28x28 images and 10 classes. Source and initial weights as for ``cnn8``.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 4 x 4 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=4)
    convolutions = [*_conv(channels, 32), nn.MaxPool2d(2), *_conv(32, 64), nn.MaxPool2d(2)]
    size = 64 * (height // 4) * (width // 4)
    model = nn.Sequential(*convolutions, *_hidden(size, 128), nn.Linear(128, num_classes))
    init_published(model)
    return model


@MODELS.register("apl-report-cnn")
def apl_report_cnn(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Eight-layer network of a student report on active-passive losses; with dropout of one half.

    Pairs of normalised 3x3 convolutions with 64, 128 and 256 channels, each pair followed by a 2x2 maximum; then 1,024
    hidden units. 5,352,778 parameters for 3x32x32 images and 10 classes (the report says about 4.2 million). Weights
    start as torch draws them: the report does not say how. Its losses are those of the preset ``apl-report``.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 8 x 8 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=8)
    pairs = [layer for a, b in pairwise((channels, 64, 128, 256)) for layer in _conv_pair(a, b)]
    hidden = nn.Linear(256 * (height // 8) * (width // 8), 1024)
    return nn.Sequential(*pairs, nn.Flatten(), hidden, nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, num_classes))


@MODELS.register("text-bag", "Joulin et al. (fastText), EACL 2017", "https://arxiv.org/abs/1607.01759")
class TextBag(nn.Module):
    """Mean of the embeddings of a text's words and a linear layer, for hashed words (N, L); 0 is no word.

    ``vocabulary`` x ``width`` parameters for the words. The classifier of Joulin, Grave, Bojanowski and Mikolov,
    EACL 2017 (fastText); word pairs and hashing are the task's.

    Parameters
    ----------
    vocabulary
        Number of word numbers.
    width
        Features of a word.
    hidden
        Width of another linear layer before the last, without activation as in FNBench (width = 256, hidden = 256);
        0 = none.

    Raises
    ------
    ValueError
        If the inputs are not one row of words, or a size is not positive.
    """

    def __init__(
        self, num_classes: int, input_shape: tuple[int, ...], vocabulary: int, width: int = 32, hidden: int = 0
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"texts of shape (words,) expected, the task's inputs are {input_shape}")
        if vocabulary < 2 or width < 1 or hidden < 0:
            sizes = f"vocabulary = {vocabulary}, width = {width}, hidden = {hidden}"
            raise ValueError(f"{sizes}: at least 2, 1 and 0 expected")
        self.words = nn.EmbeddingBag(vocabulary, width, mode="mean", padding_idx=0)
        self.hidden = nn.Linear(width, hidden) if hidden else nn.Identity()
        self.classifier = nn.Linear(hidden or width, num_classes)
        nn.init.uniform_(self.words.weight, -1 / width, 1 / width)
        nn.init.zeros_(self.words.weight[0].detach())

    def forward(self, words: Tensor) -> Tensor:
        """Return logits (N, K) of word numbers (N, L)."""
        mean: Tensor = self.words(words)
        logits: Tensor = self.classifier(self.hidden(mean))
        return logits


def init_published(model: nn.Module) -> None:
    """Draw the weights as the codes of the active-passive and active negative losses do.

    Convolutions: uniform, scaled by fan-in for ReLU (He et al., ICCV 2015); linear layers: uniform, scaled by both
    fans (Glorot and Bengio, AISTATS 2010). Biases and normalisation layers keep torch's default.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


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


def _lenet_half(in_channels: int, channels: int) -> nn.Module:
    """One unpadded 5x5 convolution, then half the height and width."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 5), nn.ReLU(), nn.MaxPool2d(2))


def _conv_pair(in_channels: int, channels: int) -> list[nn.Module]:
    """Two normalised 3x3 convolutions at full size, then half the height and width."""
    return [*_conv(in_channels, channels), *_conv(channels, channels), nn.MaxPool2d(2)]


def _conv(in_channels: int, channels: int) -> list[nn.Module]:
    """One normalised 3x3 convolution at full size."""
    return [nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _hidden(inputs: int, units: int) -> list[nn.Module]:
    """One normalised layer of ReLU ``units`` over all ``inputs``."""
    return [nn.Flatten(), nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU()]

"""A bag of words: the mean of what is learned for each word, and one linear layer."""

from torch import Tensor, nn

from tasks.models.base import MODELS


@MODELS.register("text-bag", "Joulin et al. (fastText), EACL 2017")
class TextBag(nn.Module):
    """Mean of the embeddings of a text's words and a linear layer, for hashed words (N, L); 0 is no word.

    ``vocabulary`` x ``width`` parameters for the words. The classifier of Joulin, Grave, Bojanowski and Mikolov,
    EACL 2017 (fastText); word pairs and hashing are the task's.

    Raises
    ------
    ValueError
        If the inputs are not one row of words, or a size is not positive.
    """

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], vocabulary: int, width: int = 32) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"texts of shape (words,) expected, the task's inputs are {input_shape}")
        if vocabulary < 2 or width < 1:
            raise ValueError(f"vocabulary = {vocabulary}, width = {width}: at least 2 and 1 expected")
        self.words = nn.EmbeddingBag(vocabulary, width, mode="mean", padding_idx=0)
        self.classifier = nn.Linear(width, num_classes)
        nn.init.uniform_(self.words.weight, -1 / width, 1 / width)
        nn.init.zeros_(self.words.weight[0].detach())

    def forward(self, words: Tensor) -> Tensor:
        """Return logits (N, K) of word numbers (N, L)."""
        mean: Tensor = self.words(words)
        logits: Tensor = self.classifier(mean)
        return logits

"""Transformer encoder for texts: words attend to each other, and the mean of what comes out is classified."""

import torch
from torch import Tensor, nn

from tasks.models.small import MODELS


@MODELS.register("text-transformer", "Vaswani et al., NeurIPS 2017", "https://arxiv.org/abs/1706.03762")
class TextTransformer(nn.Module):
    """Small transformer encoder, for word numbers (N, L) in their order; 0 is no word and has no influence.

    Embeddings of words and of places are summed, pass ``layers`` of self-attention, and their mean over the words is
    classified. Normalisation comes first in each layer (Xiong et al., ICML 2020), so that no warm-up of the learning
    rate is needed, and is LayerNorm alone: nothing depends on the other texts of a batch. Of a text without words the
    logits are the bias. Source: Vaswani et al., NeurIPS 2017.

    Parameters
    ----------
    vocabulary
        Number of word numbers.
    width
        Features of a word; a multiple of ``heads``.
    layers, heads
        Number of layers, and of attention heads in each.
    dropout
        Share of the activations that are set to zero in training.

    Raises
    ------
    ValueError
        If the inputs are not one row of words, or a size does not fit.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        vocabulary: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"texts of shape (words,) expected, the task's inputs are {input_shape}")
        if vocabulary < 2 or min(width, layers, heads) < 1 or width % heads:
            sizes = f"vocabulary = {vocabulary}, width = {width}, layers = {layers}, heads = {heads}"
            raise ValueError(f"{sizes}: at least 2 and 1 expected, and a width that is a multiple of heads")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout = {dropout}: a share from 0 to below 1 expected")
        self.heads = heads
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Parameter(torch.empty(input_shape[0], width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classifier = nn.Linear(width, num_classes)
        self._draw()

    def forward(self, words: Tensor) -> Tensor:
        """Return logits (N, K) of word numbers (N, L), with L up to the task's."""
        there = words != 0
        # Where no word is there all places are seen: softmax of nothing is not a number, and its mean is dropped below.
        unseen = ~there & there.any(1, keepdim=True)
        # As a mask for each pair of places: torch's check of its mask for padding takes a second of imports.
        blocked = unseen[:, None, :].expand(-1, words.shape[1], -1).repeat_interleave(self.heads, 0)
        embedded = self.words(words) + self.places[: words.shape[1]]
        encoded = self.encoder(embedded, mask=blocked, is_causal=False)
        mean = (encoded * there[:, :, None]).sum(1) / there.sum(1, keepdim=True).clamp_min(1)
        logits: Tensor = self.classifier(mean)
        return logits

    def _draw(self) -> None:
        """Draw each layer's matrices anew: torch's layers of one encoder are copies and start alike."""
        for name, parameter in self.encoder.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.zeros_(self.words.weight[0].detach())
        nn.init.normal_(self.places, std=0.02)

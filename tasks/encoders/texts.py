"""Text encoders: the token embeddings of WordLlama from its installed package, and a sentence-transformers folder."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.encoders.base import ENCODERS, EncoderError, TextEncoder, digest_of, frozen, missing_extra
from tasks.encoders.images import read_weights, weights_file
from tasks.own_data.files import UnusableError
from tasks.plugins import explain

WEIGHTS, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"


@ENCODERS.register("wordllama", "Miller (WordLlama), 2024", "https://github.com/dleemiller/WordLlama")
class WordLlama(TextEncoder):
    """Mean of the WordLlama embeddings of a text's tokens, 256 features; comes with the extra ``encoders``.

    The embeddings are those of a language model's tokens, made smaller and trained for similarity. Only the two files
    in the package are read: nothing is downloaded.

    Raises
    ------
    EncoderError
        If the package or its files are missing.
    """

    batch_size = 1024

    def __init__(self) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise missing_extra(error) from error
        folder = _package_folder("wordllama")
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises plain Exception, for a missing file too
            raise EncoderError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        self._tokenizer.no_padding()
        matrix = next(iter(read_weights(folder / WEIGHTS).values())).float()
        self.width = matrix.shape[1]
        padded = torch.cat([torch.zeros(1, self.width), matrix])  # token number 0 is none
        self._bag = nn.EmbeddingBag.from_pretrained(padded, mode="mean", padding_idx=0)

    def tokens(self, text: str, most: int) -> npt.NDArray[np.int32]:
        """Return the numbers of the first tokens of a text, 1 and above."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids[:most], np.int32) + 1

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the features (n, 256) of token numbers (n, L); 0 is no token."""
        features: Tensor = self._bag(inputs.long())
        return features

    def digest(self) -> str:
        """Return a SHA-256 of the embeddings and of the tokenizer."""
        return digest_of(f"wordllama {self._tokenizer.to_str()}", self._bag)


@ENCODERS.register(
    "sentence-transformers", "Reimers and Gurevych (Sentence-BERT), EMNLP 2019", "https://arxiv.org/abs/1908.10084"
)
class SentenceEncoder(TextEncoder):
    """A sentence-transformers model from a folder below `task.weights-path`; needs the package sentence-transformers.

    Parameters
    ----------
    path
        The folder, as ``SentenceTransformer.save`` writes it. Code in it is not run.

    Raises
    ------
    EncoderError
        If the package or the folder is missing, or the folder holds no such model.
    """

    batch_size = 32

    def __init__(self, path: str, weights_path: Path) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderError("it needs a package: pip install sentence-transformers") from error
        folder = weights_file(weights_path, path)
        try:
            self._model: Any = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a broken folder leads to in there
            raise EncoderError(f"{folder} holds no sentence-transformers model: {explain(error)}") from error
        frozen(self._model)
        self.width = self.encode(torch.ones(1, 2, dtype=torch.int32)).shape[1]

    def tokens(self, text: str, most: int) -> npt.NDArray[np.int32]:
        """Return the numbers of the first tokens of a text, with those that mark its ends, 1 and above."""
        if most < 3:
            raise UnusableError("at least 3 tokens are needed: the model marks both ends of a text")
        longest = min(most, self._model.max_seq_length or most)
        found = self._model.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        return np.array(found, np.int32) + 1

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the features (n, width) of token numbers (n, L); 0 is no token."""
        longest = max(1, int((inputs != 0).sum(1).max()))
        numbers = inputs[:, :longest].long()
        mask = (numbers != 0).long()
        padding = self._model.tokenizer.pad_token_id or 0
        given = {"input_ids": torch.where(mask.bool(), numbers - 1, padding), "attention_mask": mask}
        features: Tensor = self._model(given)["sentence_embedding"]
        return features.float()

    def digest(self) -> str:
        """Return a SHA-256 of the weights and of the tokenizer."""
        vocabulary = sorted(self._model.tokenizer.get_vocab().items())
        return digest_of(f"sentence-transformers {vocabulary}", self._model)


def _package_folder(name: str) -> Path:
    """Return where a package is installed, without importing it: importing this one asks a hub."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(ImportError(f"No module named {name!r}"))
    return Path(next(iter(spec.submodule_search_locations)))

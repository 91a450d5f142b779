"""Text encoders: WordLlama by its two files, and a sentence-transformers folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tasks.encoders import ENCODERS, TextEncoder, WordLlama
from tasks.encoders.texts import TOKENIZER, WEIGHTS, _package_folder
from tasks.plugins import PluginError


def batch(encoder: TextEncoder, *texts: str) -> torch.Tensor:
    """Token numbers (n, 12)."""
    rows = [encoder.tokens(text, 12) for text in texts]
    return torch.from_numpy(np.stack([np.pad(row, (0, 12 - len(row))) for row in rows]))


def test_wordllama_is_the_mean_of_the_embeddings_of_a_text_s_tokens() -> None:
    from tokenizers import Tokenizer

    folder, text = _package_folder("wordllama"), "Hospitals share no images."
    [matrix] = load_file(folder / WEIGHTS).values()
    ids = Tokenizer.from_file(str(folder / TOKENIZER)).encode(text, add_special_tokens=False).ids
    encoder = WordLlama()
    got = encoder.encode(batch(encoder, text, "Hospitals"))
    assert got.shape == (2, encoder.width) == (2, 256)
    np.testing.assert_allclose(got[0].numpy(), matrix[ids].astype(np.float64).mean(0), rtol=1e-4, atol=1e-5)


def test_texts_that_mean_the_same_are_nearer_than_others() -> None:
    encoder = WordLlama()
    goal, score, bank = encoder.encode(
        batch(encoder, "the striker scored a goal", "a football player shot", "the bank raised its interest rates")
    )
    near = torch.cosine_similarity(goal, score, dim=0)
    assert near > torch.cosine_similarity(goal, bank, dim=0) + 0.1


def test_an_empty_text_has_no_tokens_and_a_long_one_is_cut() -> None:
    encoder = WordLlama()
    assert len(encoder.tokens("", 4)) == 0
    assert len(encoder.tokens("word " * 100, 4)) == 4
    assert encoder.tokens("word", 4).min() >= 1


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, as ``SentenceTransformer.save`` writes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("sentence")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "news"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    body = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[body, Pooling(16)], device="cpu").save(str(folder / "model"))
    return folder


def test_a_sentence_transformers_folder_encodes_as_that_package_does(sentence_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = ENCODERS.build("sentence-transformers", "path = 'model'", weights_path=sentence_folder)
    assert isinstance(encoder, TextEncoder)
    texts = ["good news", "bad"]
    expected = SentenceTransformer(str(sentence_folder / "model"), device="cpu").encode(texts)
    assert encoder.width == 16
    np.testing.assert_allclose(encoder.encode(batch(encoder, *texts)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PluginError, match="holds no sentence-transformers model"):
        ENCODERS.build("sentence-transformers", "path = 'empty'", weights_path=tmp_path)

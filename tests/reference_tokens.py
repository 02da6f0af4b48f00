"""What tests hold our tokens against: TRL's own, and a tokenizer whose tokens merge words."""

from types import SimpleNamespace
from typing import Any


def trl_prepared(tokenizer: Any, rows: Any) -> list[dict[str, list[int]]]:
    """`prompt_ids`, `chosen_ids` and `rejected_ids` of a dataset of pairs, by `trl.DPOTrainer`'s own code."""
    from trl import DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    return list(DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), rows, tokenizer, args, "train"))


def trl_tokens(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """The same of one pair."""
    from datasets import Dataset

    return trl_prepared(tokenizer, Dataset.from_list([row]))[0]


def merging_tokenizer(chat_template: str | None = None) -> Any:
    """A SentencePiece-like tokenizer: `▁` before words, `the cat` and `. So` are one token, and so is `: the`, which
    merges prompt and response; `é` is two tokens of a byte each. It drops the space that a text begins with.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁", "▁the", "▁the▁cat", "▁cat", "▁sat", ".▁So", ":▁the", ":", ".", "▁Q", "<assistant>", "<user>", "\n"]
    pieces = ["<unk>", "<s>", "</s>", *words, *"thecasoSQ", *(f"<0x{byte:02X}>" for byte in range(256))]
    scores = [-100.0 if len(piece) == 1 or piece.startswith("<0x") else -5.0 for piece in pieces]
    unique = dict(zip(pieces, scores, strict=True))
    inner = Tokenizer(models.Unigram(list(unique.items()), unk_id=0, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(strip)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=chat_template
    )

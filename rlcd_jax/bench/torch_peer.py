"""The peer of training: the same model and the same texts in torch, padded.

As somebody would write it with Hugging Face transformers: texts of a part padded to the
longest of them, AdamW in float32, products in float32 or by autocast in bfloat16; on a
GPU compiled by torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rlcd_jax.bench import hf_peer, settings
from rlcd_jax.models import llama

PAD = 2
UNSEEN = -100  # a label that counts nothing
LEARNING_RATE = 1e-6


def make_train_peers(
    cfg: llama.LlamaConfig, load: hf_peer.Load
) -> dict[str, settings.TrainingPeer]:
    """Return peers that fine-tune a language model on replies."""
    return _peers(cfg, load, _reply_loss, "LlamaForCausalLM")


def make_preference_peers(
    cfg: llama.LlamaConfig, load: hf_peer.Load
) -> dict[str, settings.TrainingPeer]:
    """Return peers that train a reward model on pairs."""
    return _peers(cfg, load, _pair_loss, "LlamaForSequenceClassification")


def _peers(
    cfg: llama.LlamaConfig, load: hf_peer.Load, loss: Callable, kind: str
) -> dict[str, settings.TrainingPeer]:
    torch, transformers = hf_peer.load_packages(load, "torch")
    modes = ["bfloat16"] if torch.cuda.is_available() else ["float32", "bfloat16"]
    peers = {}
    for mode in modes:
        peer = TorchTrainer(cfg, mode, torch, getattr(transformers, kind), loss)
        name = f"torch_{mode}" + ("_compiled" if peer.is_compiled else "")
        peers[name] = peer.seconds
    return peers


class TorchTrainer:
    """A model of the same shape with random weights, and its AdamW.

    Args:
      cfg: model numbers.
      mode: "float32" or "bfloat16", of products.
      torch: the package.
      kind: transformers' class of the model.
      loss: (torch, model, texts of a part, device) -> the mean loss.
    """

    def __init__(
        self, cfg: llama.LlamaConfig, mode: str, torch: Any, kind: Any, loss: Callable
    ) -> None:
        self._torch, self._loss, self._mode = torch, loss, mode
        self._device = hf_peer.device_of(torch)
        self.is_compiled = self._device == "cuda"
        config = kind.config_class(**hf_peer.config_numbers(cfg))
        config.num_labels, config.pad_token_id = 1, PAD
        torch.manual_seed(0)
        with torch.device(self._device):
            model = kind(config).train()
        if cfg.remat != "none":
            model.gradient_checkpointing_enable()
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self._model = torch.compile(model) if self.is_compiled else model

    def seconds(self, texts: settings.Texts, parts: int) -> float:
        """Return how long one update takes, its batch in so many parts."""
        torch, start = self._torch, time.perf_counter()
        size = -(-len(texts) // parts)
        for first in range(0, len(texts), size):
            with torch.autocast(
                self._device, torch.bfloat16, enabled=self._mode == "bfloat16"
            ):
                part = texts[first : first + size]
                loss = self._loss(torch, self._model, part, self._device)
            (loss * len(part) / len(texts)).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        loss.item()  # waits for the device
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def _reply_loss(torch: Any, model: Any, texts: settings.Texts, device: str) -> Any:
    """Return the mean cross-entropy of replies, which begin at their places."""
    ids, mask = _padded(torch, [ids for one in texts for ids, _ in one], device)
    starts = torch.tensor([start for one in texts for _, start in one], device=device)
    places = torch.arange(ids.shape[1], device=device)
    counted = mask.bool() & (places >= starts[:, None])
    labels = torch.where(counted, ids, torch.full_like(ids, UNSEEN))
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def _pair_loss(torch: Any, model: Any, texts: settings.Texts, device: str) -> Any:
    """Return the Bradley-Terry loss, the second text of each being the better."""
    ids, mask = _padded(torch, [ids for one in texts for ids, _ in one], device)
    rewards = model(input_ids=ids, attention_mask=mask).logits.reshape(-1, 2)
    margin = (rewards[:, 1] - rewards[:, 0]).float()
    return torch.nn.functional.softplus(-margin).mean()


def _padded(torch: Any, rows: list[Any], device: str) -> tuple[Any, Any]:
    """Return ids padded on the right to the longest row, and which are of a text."""
    longest = max(map(len, rows))
    ids = [[*row, *[PAD] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

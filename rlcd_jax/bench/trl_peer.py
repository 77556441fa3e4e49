"""The peer of PPO: TRL's trainer, of its last release that had one (1.12)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from rlcd_jax.bench import hf_peer, settings
from rlcd_jax.models import llama

PPO = "trl.experimental.ppo"
PAD, END = 0, 1
AT_ONCE = 64  # replies that it draws and reads: its own default


def make_peers(
    cfg: llama.LlamaConfig, load: hf_peer.Load
) -> dict[str, settings.PolicyPeer]:
    """Return TRL's PPO as a peer.

    Raises:
      ValueError: a package is not installed, or this TRL has no PPO.
    """
    torch, transformers = hf_peer.load_packages(load, "trl")
    try:
        ppo, datasets = load(PPO), load("datasets")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--peer trl needs {PPO} ({error}); TRL 1.12 was the last release with "
            "PPO: pip install trl==1.12.0"
        ) from error
    peer = TrlPeer(cfg, torch, transformers, ppo, datasets)
    return {"trl": peer.seconds}


class TrlPeer:
    """TRL's trainer with four models of the same shape and random weights."""

    def __init__(
        self,
        cfg: llama.LlamaConfig,
        torch: Any,
        transformers: Any,
        ppo: Any,
        datasets: Any,
    ) -> None:
        self._torch, self._transformers = torch, transformers
        self._ppo, self._datasets = ppo, datasets
        self._numbers = hf_peer.config_numbers(cfg)
        self._bf16 = cfg.dtype == "bfloat16"

    def seconds(
        self, prompts: Sequence[Sequence[int]], sizes: Mapping[str, int]
    ) -> float:
        """Return how long the second of two steps takes; the first warms up.

        Args:
          prompts: ids, as many as rollouts of a step.
          sizes: of PPO: rollouts, update_batch, micro_batch, epochs, reply_tokens.
        """
        ends: list[float] = []

        class Clock(self._transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **other):
                ends.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as place:
            trainer = self._trainer(prompts, sizes, place, Clock())
            trainer.train()
        return ends[1] - ends[0]

    def _trainer(
        self,
        prompts: Sequence[Sequence[int]],
        sizes: Mapping[str, int],
        place: str,
        clock: Any,
    ) -> Any:
        micro = sizes["micro_batch"]
        args = self._ppo.PPOConfig(
            output_dir=place,
            bf16=self._bf16,
            use_cpu=not self._torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            num_sample_generations=0,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=sizes["rollouts"] // micro,
            num_mini_batches=sizes["rollouts"] // sizes["update_batch"],
            num_ppo_epochs=sizes["epochs"],
            total_episodes=2 * sizes["rollouts"],
            response_length=sizes["reply_tokens"],
            local_rollout_forward_batch_size=min(sizes["rollouts"], AT_ONCE),
            temperature=1.0,
        )
        return self._ppo.PPOTrainer(
            args=args,
            processing_class=self._tokenizer(),
            model=self._model("LlamaForCausalLM"),
            ref_model=self._model("LlamaForCausalLM"),
            reward_model=self._model("LlamaForSequenceClassification"),
            value_model=self._model("LlamaForSequenceClassification"),
            train_dataset=self._rows(prompts),
            eval_dataset=self._rows(prompts),
            callbacks=[clock],
        )

    def _rows(self, prompts: Sequence[Sequence[int]]) -> Any:
        ids = [list(row) for row in prompts]
        return self._datasets.Dataset.from_dict({"input_ids": ids})

    def _model(self, kind: str) -> Any:
        config = self._transformers.LlamaConfig(**self._numbers)
        config.num_labels, config.pad_token_id = 1, PAD
        config.bos_token_id = config.eos_token_id = END
        with self._torch.device(hf_peer.device_of(self._torch)):
            return getattr(self._transformers, kind)(config)

    def _tokenizer(self) -> Any:
        """Return a tokenizer for padding alone: prompts are ids already."""
        words = {f"w{index}": index for index in range(self._numbers["vocab_size"])}
        words = {"<pad>": PAD, "</s>": END} | {
            word: index for word, index in words.items() if index > END
        }
        made = tokenizers.Tokenizer(
            tokenizers.models.WordLevel(words, unk_token="</s>")
        )
        return self._transformers.PreTrainedTokenizerFast(
            tokenizer_object=made,
            pad_token="<pad>",
            eos_token="</s>",
            padding_side="left",
        )

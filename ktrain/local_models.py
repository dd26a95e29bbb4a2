"""Language models that run here: by `transformers`, by vLLM, or a GGUF file by `xllamacpp`.

Each draft is sampled with its own seed, whatever else is in its batch; where numbers are rounded depends on the batch
and the device all the same, so another machine may write other drafts.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ktrain.config import Writer
from ktrain.errors import WrongRequest
from ktrain.scribe import Asked, Model, Reply


def load(writer: Writer, threads: int = 1) -> Model:
    """The model of a back end, loaded. Raises `WrongRequest` where its package or its files are missing."""
    made: dict[str, Callable[[Writer, int], Model]] = {"transformers": Transformers, "vllm": Vllm, "gguf": Gguf}
    try:
        return made[writer.backend](writer, threads)
    except ImportError as e:
        wanted = {"gguf": "xllamacpp (pip install 'ktrain[bior]')", "vllm": "vllm"}.get(writer.backend, str(e.name))
        raise WrongRequest(f"corpus.writer.backend={writer.backend}: needs {wanted}, which is not installed") from e
    except OSError as e:
        said = " ".join(str(e).split())[:200]
        raise WrongRequest(f"corpus.writer.model={writer.model}: {said}") from e


class Transformers:
    """Any causal model by name or folder, on a GPU where there is one."""

    def __init__(self, writer: Writer, threads: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._writer = writer
        gpu = torch.cuda.is_available()
        named: dict[str, Any] = {"revision": writer.revision or None}
        self._tokenizer = AutoTokenizer.from_pretrained(writer.model, padding_side="left", **named)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        network = AutoModelForCausalLM.from_pretrained(
            writer.model, dtype=torch.bfloat16 if gpu else torch.float32, **named
        )
        self._network = network.to("cuda" if gpu else "cpu").eval()

    def replies(self, asked: Sequence[Asked]) -> list[Reply]:
        """As `scribe.Model`."""
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        texts = [chat(self._tokenizer, one.prompt) for one in asked]
        read = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        read = read.to(self._network.device)
        wanted = LogitsProcessorList()
        if self._writer.temperature > 0:
            wanted += [TemperatureLogitsWarper(self._writer.temperature), TopPLogitsWarper(self._writer.top_p)]
            wanted.append(Noise([one.seed for one in asked]))
        with torch.no_grad():
            said = self._network.generate(
                **read,
                max_new_tokens=self._writer.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=wanted,
                pad_token_id=self._tokenizer.pad_token_id,
            )[:, read["input_ids"].shape[1] :]
        return [
            self._reply(ids.tolist(), int(mask.sum())) for ids, mask in zip(said, read["attention_mask"], strict=True)
        ]

    def _reply(self, ids: list[int], prompt_tokens: int) -> Reply:
        ends = self._network.generation_config.eos_token_id
        stops = set(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        last = next((k for k, token in enumerate(ids) if token in stops), None)
        text = self._tokenizer.decode(ids[:last], skip_special_tokens=True)
        return Reply(text, prompt_tokens, len(ids) if last is None else last + 1, cut=last is None)


class Noise:
    """Gumbel noise from a generator for each row: the likeliest token after it is a sample, and a row's own."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._drawn = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) with noise."""
        drawn = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self._drawn])
        return scores.float() - torch.log(-torch.log(drawn.clamp(1e-20, 1 - 1e-7))).to(scores.device)


class Vllm:
    """Any causal model by vLLM, on the GPUs of its process."""

    def __init__(self, writer: Writer, threads: int) -> None:
        from vllm import LLM

        self._writer = writer
        self._model = LLM(writer.model, revision=writer.revision or None, max_model_len=2048)

    def replies(self, asked: Sequence[Asked]) -> list[Reply]:
        """As `scribe.Model`."""
        from vllm import SamplingParams

        told = self._writer
        how = {"temperature": told.temperature, "top_p": told.top_p, "max_tokens": told.max_tokens}
        tokenizer = self._model.get_tokenizer()
        texts = [chat(tokenizer, one.prompt) for one in asked]
        said = self._model.generate(texts, [SamplingParams(seed=one.seed, **how) for one in asked], use_tqdm=False)
        return [
            Reply(
                output.outputs[0].text,
                len(output.prompt_token_ids),
                len(output.outputs[0].token_ids),
                cut=output.outputs[0].finish_reason == "length",
            )
            for output in said
        ]


class Gguf:
    """A GGUF file by llama.cpp's server in this process, which has no port."""

    def __init__(self, writer: Writer, threads: int) -> None:
        if not Path(writer.model).is_file():
            raise FileNotFoundError("no such file")
        import xllamacpp

        self._writer = writer
        told = xllamacpp.CommonParams()
        told.model.path = writer.model
        told.n_ctx, told.n_parallel, told.warmup = 1024, 1, False
        told.cpuparams.n_threads = told.cpuparams_batch.n_threads = threads
        told.n_gpu_layers = 999
        # Otherwise it keeps gigabytes of prompts that are never asked again.
        told.cache_prompt, told.cache_ram_mib, told.n_ctx_checkpoints = False, 0, 0
        told.verbosity = 0
        self._server = xllamacpp.Server(told)

    def replies(self, asked: Sequence[Asked]) -> list[Reply]:
        """As `scribe.Model`, one after the other: a batch would change how numbers are rounded."""
        return [self._reply(one) for one in asked]

    def _reply(self, asked: Asked) -> Reply:
        told = self._server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": asked.prompt}],
                "max_tokens": self._writer.max_tokens,
                "temperature": self._writer.temperature,
                "top_p": self._writer.top_p,
                "seed": asked.seed,
                "cache_prompt": False,
            }
        )
        answer = json.loads(told) if isinstance(told, str | bytes) else told
        choice, usage = answer["choices"][0], answer["usage"]
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        return Reply(choice["message"]["content"] or "", *counts, cut=choice["finish_reason"] == "length")


def chat(tokenizer: Any, prompt: str) -> str:
    """The text that a model reads: by its chat template, where it has one."""
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return f"{tokenizer.bos_token or ''}{prompt}\n\n"

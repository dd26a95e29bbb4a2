"""Language models on this machine: by `transformers`, by vLLM, or a GGUF file by `xllamacpp`.

Each draft has its own sampling seed, whatever else is in its batch. Rounding still depends on batch and device, so
another machine may write other drafts.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ktrain.config import WriterConfig
from ktrain.errors import WrongRequest
from ktrain.generation.generator import Completion, GenerationRequest, LanguageModel


def load_model(writer: WriterConfig, threads: int = 1) -> LanguageModel:
    """Loads the model of a back end. Raises `WrongRequest` if its package or its files are missing."""
    backends: dict[str, Callable[[WriterConfig, int], LanguageModel]] = {
        "transformers": TransformersModel,
        "vllm": VllmModel,
        "gguf": GgufModel,
    }
    try:
        return backends[writer.backend](writer, threads)
    except ImportError as e:
        package = {"gguf": "xllamacpp (pip install 'ktrain[bior]')", "vllm": "vllm"}.get(writer.backend, str(e.name))
        raise WrongRequest(f"corpus.writer.backend={writer.backend}: needs {package}, which is not installed") from e
    except OSError as e:
        message = " ".join(str(e).split())[:200]
        raise WrongRequest(f"corpus.writer.model={writer.model}: {message}") from e


class TransformersModel:
    """Any causal model by name or folder, on a GPU if there is one."""

    def __init__(self, writer: WriterConfig, threads: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._writer = writer
        gpu = torch.cuda.is_available()
        loading: dict[str, Any] = {"revision": writer.revision or None, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(writer.model, padding_side="left", **loading)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        network = AutoModelForCausalLM.from_pretrained(
            writer.model, dtype=torch.bfloat16 if gpu else torch.float32, **loading
        )
        self._network = network.to("cuda" if gpu else "cpu").eval()

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """See `LanguageModel`."""
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        texts = [chat_text(self._tokenizer, one.prompt) for one in requests]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._network.device)
        processors = LogitsProcessorList()
        if self._writer.temperature > 0:
            processors += [TemperatureLogitsWarper(self._writer.temperature), TopPLogitsWarper(self._writer.top_p)]
            processors.append(GumbelNoise([one.seed for one in requests]))
        with torch.no_grad():
            generated = self._network.generate(
                **inputs,
                max_new_tokens=self._writer.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=processors,
                pad_token_id=self._tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]
        return [
            self._completion(ids.tolist(), int(mask.sum()))
            for ids, mask in zip(generated, inputs["attention_mask"], strict=True)
        ]

    def _completion(self, ids: list[int], prompt_tokens: int) -> Completion:
        """Decodes generated ids up to the first stop token."""
        eos = self._network.generation_config.eos_token_id
        stops = set(eos if isinstance(eos, list) else [eos]) | {self._tokenizer.eos_token_id}
        last = next((k for k, token in enumerate(ids) if token in stops), None)
        text = self._tokenizer.decode(ids[:last], skip_special_tokens=True)
        return Completion(text, prompt_tokens, len(ids) if last is None else last + 1, cut=last is None)


class GumbelNoise:
    """Adds Gumbel noise, so that the likeliest token is a sample; each row has its own generator."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Adds noise to scores (rows, vocabulary)."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self._generators])
        return scores.float() - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(scores.device)


class VllmModel:
    """Any causal model by vLLM, on the GPUs of its process."""

    def __init__(self, writer: WriterConfig, threads: int) -> None:
        from vllm import LLM

        self._writer = writer
        self._model = LLM(writer.model, revision=writer.revision or None, max_model_len=2048, trust_remote_code=False)

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """See `LanguageModel`."""
        from vllm import SamplingParams

        writer = self._writer
        sampling = {"temperature": writer.temperature, "top_p": writer.top_p, "max_tokens": writer.max_tokens}
        tokenizer = self._model.get_tokenizer()
        texts = [chat_text(tokenizer, one.prompt) for one in requests]
        params = [SamplingParams(seed=one.seed, **sampling) for one in requests]
        outputs = self._model.generate(texts, params, use_tqdm=False)
        return [
            Completion(
                output.outputs[0].text,
                len(output.prompt_token_ids),
                len(output.outputs[0].token_ids),
                cut=output.outputs[0].finish_reason == "length",
            )
            for output in outputs
        ]


class GgufModel:
    """A GGUF file, served by llama.cpp inside this process without a port."""

    def __init__(self, writer: WriterConfig, threads: int) -> None:
        if not Path(writer.model).is_file():
            raise FileNotFoundError("no such file")
        import xllamacpp

        self._writer = writer
        params = xllamacpp.CommonParams()
        params.model.path = writer.model
        params.n_ctx, params.n_parallel, params.warmup = 1024, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_gpu_layers = 999
        # Without these the server keeps gigabytes of prompts that never recur.
        params.cache_prompt, params.cache_ram_mib, params.n_ctx_checkpoints = False, 0, 0
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def complete(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """See `LanguageModel`; one request after the other, because a batch would change the rounding."""
        return [self._complete_one(one) for one in requests]

    def _complete_one(self, request: GenerationRequest) -> Completion:
        response = self._server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": request.prompt}],
                "max_tokens": self._writer.max_tokens,
                "temperature": self._writer.temperature,
                "top_p": self._writer.top_p,
                "seed": request.seed,
                "cache_prompt": False,
            }
        )
        answer = json.loads(response) if isinstance(response, str | bytes) else response
        choice, usage = answer["choices"][0], answer["usage"]
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        return Completion(choice["message"]["content"] or "", *counts, cut=choice["finish_reason"] == "length")


def chat_text(tokenizer: Any, prompt: str) -> str:
    """The input of a model for a prompt: its chat template, if it has one."""
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return f"{tokenizer.bos_token or ''}{prompt}\n\n"

"""A GGUF in memory: text to tokens, tokens to bytes, and the facts that the engine needs.

The weights are memory-mapped.
"""

import ctypes
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcp.engine.llama_library import library, log
from lcp.engine.params import model_params
from lcp.errors import ANOTHER_FILE, UPGRADE, ModelError, ModelNotFound, NotEnoughMemory
from lcp.formatting import size
from lcp.recommended_settings import usable
from lcp.split_names import size_here

# GGUF key -> name in Sampling (llama.cpp, src/llama-arch.cpp: LLM_KV_GENERAL_SAMPLING_*)
_SAMPLING_KEYS = {
    "temp": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
}
_NOT_MAPPED = 0  # llama.h: LLAMA_LOAD_MODE_NONE; no_alloc aborts with a mapped model
_MROPE = (8, 24, 40)  # llama.h: LLAMA_ROPE_TYPE_MROPE, _VISION, _IMROPE


@dataclass(frozen=True)
class ModelMemory:
    """What a model's memory consists of."""

    recurrent: bool  # a state that cannot go back, in all layers (mamba) or in some (lfm2)
    mrope: bool  # a token has several positions
    window: int  # how many tokens back the sliding-window layers look; 0 without such layers


class Model:
    """A loaded GGUF. Contexts share it, and nothing changes it."""

    def __init__(self, handle: Any, path: Path) -> None:
        c = library()
        self.handle = handle
        self.path = path
        self.vocab = c.llama_model_get_vocab(handle)
        self.n_vocab: int = c.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = c.llama_model_n_ctx_train(handle)
        self.n_layers: int = c.llama_model_n_layer(handle)
        self.n_head_kv: int = c.llama_model_n_head_kv(handle)
        self.adds_bos: bool = c.llama_vocab_get_add_bos(self.vocab)
        self.memory = ModelMemory(
            recurrent=c.llama_model_is_recurrent(handle) or c.llama_model_is_hybrid(handle),
            mrope=c.llama_model_rope_type(handle) in _MROPE,
            window=max(0, c.llama_model_n_swa(handle)),
        )

    @classmethod
    def load(
        cls,
        path: Path,
        n_gpu_layers: int = -1,
        on_progress: Callable[[float], bool] = lambda fraction: True,
        repack: bool = True,
        *,
        weights: bool = True,
        name: str = "",
    ) -> "Model":
        """Map the file into memory, with `n_gpu_layers` on the GPU if there is one (-1: all).

        `on_progress` gets fractions from 0 to 1; it returns False to stop the load. `repack`:
        llama.cpp may copy weights into an order that is faster on this CPU. Without `weights`, it
        only plans the memory and cannot compute. `name`: what errors call the model. Raises
        ModelNotFound, NotEnoughMemory or ModelError.
        """
        name = name or path.name
        _look_before(path)
        c = library()
        params = model_params(n_gpu_layers, repack)
        if not weights:
            params.no_alloc, params.load_mode = True, _NOT_MAPPED
        progress = c.llama_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = progress
        log.lines.clear()
        handle = c.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise _why_not(path, name)
        if weights and (c.llama_model_has_encoder(handle) or c.llama_model_is_diffusion(handle)):
            c.llama_model_free(handle)
            raise ModelError(
                f"{name} does not write text from left to right and cannot chat. "
                "Choose a model whose name says chat or instruct."
            )
        return cls(handle, path)

    def close(self) -> None:
        """Free the weights. Close every context of the model first."""
        if self.handle:
            library().llama_model_free(self.handle)
            self.handle = None

    # text <-> tokens

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`, without BOS. With `special`, "<|im_end|>" is its control token."""
        c = library()
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 2  # a token has at least a byte; SPM may add a space
        ids = (c.llama_token * room)()
        n = c.llama_tokenize(self.vocab, raw, len(raw), ids, room, False, special)
        if n < 0:  # a vocabulary with more tokens than bytes
            ids = (c.llama_token * -n)()
            n = c.llama_tokenize(self.vocab, raw, len(raw), ids, -n, False, special)
        return list(ids[:n])

    def tokenize_middle(self, text: str, special: bool = False) -> tuple[int, ...]:
        """Token ids of a text that follows another one."""
        if not self._puts_space:
            return tuple(self.tokenize(text, special))
        # The space merges with the first word, but not with a line break.
        tokens = self.tokenize("\n" + text, special)
        skip = next((n for n in (1, 2) if self.text(tokens[:n]).endswith("\n")), 0)
        return tuple(tokens[skip:])

    @functools.cached_property
    def _puts_space(self) -> bool:
        """Whether the tokenizer puts a space before every text, as some SentencePiece ones do."""
        return self.text(self.tokenize("a")) == " a"

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token; those of a control token only with `special`."""
        c = library()
        buffer = ctypes.create_string_buffer(64)
        n = c.llama_token_to_piece(self.vocab, token, buffer, 64, 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = c.llama_token_to_piece(self.vocab, token, buffer, -n, 0, special)
        return buffer.raw[:n]

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, including the names of control tokens."""
        return b"".join(self.piece(t, special=True) for t in tokens).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """Whether this token ends an answer."""
        return bool(library().llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether this is a control token, which has no text."""
        return bool(library().llama_vocab_is_control(self.vocab, token))

    def is_special(self, text: str) -> bool:
        """Whether a text is a single control or user-defined token of the vocabulary."""
        c, ids = library(), self.tokenize(text)
        structure = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED
        return len(ids) == 1 and bool(c.llama_vocab_get_attr(self.vocab, ids[0]) & structure)

    def is_end_text(self, text: str) -> bool:
        """Whether a text is a single token that ends an answer."""
        ids = self.tokenize(text)
        return len(ids) == 1 and self.is_end(ids[0])

    def spelled(self, token: int) -> str:
        r"""The text of a token; bytes that are not a whole character appear as \xe2."""
        return self.piece(token, special=True).decode("utf-8", "backslashreplace")

    def spelling(self, token: int) -> str:
        """How the vocabulary writes a token: a blank as "Ġ" or "▁"."""
        text = library().llama_vocab_get_text(self.vocab, token)
        return (text or b"").decode("utf-8", "replace")

    def score(self, token: int) -> float:
        """The score of a token, by which a SentencePiece vocabulary orders its merges."""
        return float(library().llama_vocab_get_score(self.vocab, token))

    @property
    def merging(self) -> str:
        """How the vocabulary builds its tokens: by a list of "merges" (GPT-2), by "scores"
        (SentencePiece), or "" for any other way."""
        kinds = {1: "scores", 2: "merges"}  # llama.h: LLAMA_VOCAB_TYPE_SPM, _BPE
        return kinds.get(library().llama_vocab_type(self.vocab), "")

    def attributes(self, token: int) -> int:
        """The kind of a token, as bits of llama.h's llama_token_attr."""
        return int(library().llama_vocab_get_attr(self.vocab, token))

    @property
    def bos(self) -> int:
        """The token that begins a text; -1 if the vocabulary has none."""
        return int(library().llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> int:
        """The token that ends a text; -1 if the vocabulary has none."""
        return int(library().llama_vocab_eos(self.vocab))

    # facts

    def meta(self, key: str) -> str | None:
        """A value of the file's metadata as text; None if the file does not have the key."""
        c = library()
        buffer = ctypes.create_string_buffer(1024)
        n = c.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        if n < 0:
            return None
        if n >= len(buffer):  # n is the whole length, as snprintf's
            buffer = ctypes.create_string_buffer(n + 1)
            c.llama_model_meta_val_str(self.handle, key.encode(), buffer, n + 1)
        return buffer.value.decode("utf-8", "replace")

    @functools.cached_property
    def head_size(self) -> int:
        """Numbers in the key of one head."""
        c = library()
        length = self.meta(f"{self.meta('general.architecture')}.attention.key_length")
        heads = c.llama_model_n_head(self.handle) or 1
        return int(length) if length else c.llama_model_n_embd(self.handle) // heads

    @functools.cached_property
    def rope_border(self) -> int:
        """The largest context with which llama.cpp uses the first of two sets of RoPE factors, if
        the model has two; 0: the file does not say."""
        key = "rope.scaling.original_context_length"
        return int(self.meta(f"{self.meta('general.architecture')}.{key}") or 0)

    @functools.cached_property
    def chat_template(self) -> str | None:
        """The Jinja source of the model's own chat template."""
        key = "tokenizer.chat_template"
        source = self.meta(key)
        if source and source.strip():
            return source
        # A file may have several named templates and none without a name.
        c, buffer = library(), ctypes.create_string_buffer(256)
        names = []
        for i in range(c.llama_model_meta_count(self.handle)):
            c.llama_model_meta_key_by_index(self.handle, i, buffer, len(buffer))
            name = buffer.value.decode("utf-8", "replace")
            if name.startswith(f"{key}."):
                names.append(name.removeprefix(f"{key}."))
        best = min(names, key=_by_use, default=None)
        return source if best is None else self.meta(f"{key}.{best}")

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings that the makers of the model recommend (`general.sampling.*`)."""
        return self._recommended[0]

    @property
    def ignored(self) -> list[str]:
        """A notice for each recommendation that is not valid."""
        return self._recommended[1]

    @functools.cached_property
    def _recommended(self) -> tuple[dict[str, Any], list[str]]:
        found = {ours: self.meta(f"general.sampling.{key}") for key, ours in _SAMPLING_KEYS.items()}
        recommended = {name: value for name, value in found.items() if value is not None}
        return usable(recommended, "model file")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies a model file: 16 hex digits from its size and its first and last MiB.

        They do not depend on the path, so the file may be moved.
        """
        size = self.path.stat().st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=8)
        with self.path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read(1 << 20))
        return digest.hexdigest()


def _by_use(name: str) -> tuple[bool, bool]:
    """Orders the names of chat templates: "default" first, those for tools and documents last."""
    return name in ("tool_use", "rag"), name != "default"


def _look_before(path: Path) -> None:
    """Raise a useful error where llama.cpp would only return a null pointer."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise ModelNotFound(f"There is no file {path}. Check the path.") from None
    except OSError as error:
        if isinstance(error, IsADirectoryError | PermissionError) and path.is_dir():
            raise ModelNotFound(f"{path} is a folder. Name the .gguf file in it.") from None
        raise ModelError(
            f"{path} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    if magic != b"GGUF":
        raise ModelError(f"{path} is not a GGUF file. lcp reads models in the GGUF format only.")


# What llama.cpp logs if a file needs a newer version of it -> the end of the error; {} is the word
# that it does not know.
_TOO_NEW = {
    "unknown model architecture:": "has the architecture {}",
    "unknown pre-tokenizer type:": "has the pre-tokenizer {}",
    "unknown tokenizer:": "has the tokenizer {}",
}


def _why_not(path: Path, name: str) -> ModelError:
    """The error for a load that failed, from llama.cpp's log."""
    for message, what in _TOO_NEW.items():
        if line := log.find(message):
            unknown = line.rpartition(message)[2].strip(" '")
            return ModelError(
                f"{name} {what.format(repr(unknown))}, which this llama.cpp does not know. "
                f"Upgrade: {UPGRADE}"
            )
    if log.find("cancelled model load"):
        return ModelError(f"Loading {name} was stopped. Start again to load it.")
    if line := log.find("only supports up to version"):
        return ModelError(
            f"{name} has a GGUF header that this llama.cpp does not know "
            f"({line.partition(': ')[2]}). Upgrade: {UPGRADE}"
        )
    if log.find("not within the file bounds", "failed to read", "unexpectedly reached end"):
        return ModelError(
            f"{name} is incomplete: the file ends before its last tensor. Download it again."
        )
    if log.find("unable to allocate", "failed to allocate", "mmap failed", "out of memory"):
        return NotEnoughMemory(
            f"There is not enough memory to load {name} "
            f"({size(size_here(path))}). Choose a smaller model or quant."
        )
    line = log.find("error loading model: ").rpartition("error loading model: ")[2]
    reason = line.strip() or log.find("failed").strip() or "no reason given"
    return ModelError(f"llama.cpp cannot load {name}: {reason}. {ANOTHER_FILE}")

"""The memory that a model and its contexts need, by llama.cpp's own figures.

llama.cpp gets a skeleton of the header, so the file need not be downloaded. Not counted: Python
and the libraries, the vocabulary, and what a GPU's driver takes.
"""

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lcp.errors import ModelError
from lcp.modelfile.header import Header
from lcp.modelfile.llamacpp_answers import StoredAnswer, ask
from lcp.modelfile.model_files import ModelFile

_MAX_LAYERS, _MAX_EXPERTS = 512, 1024  # llama.cpp: LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
_UINT32, _STRING = 4, 8  # GGUF value types
ALL = -1  # layers on the GPU: all of them
IMAGINED = "GPU"  # the name of a GPU that is not here

ContextWish = tuple[int, str]  # context in tokens, KV type


@dataclass(frozen=True)
class DeviceNeeds:
    """Bytes on one device; the device "CPU" is the computer's own memory."""

    name: str
    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


@dataclass(frozen=True)
class ContextNeeds:
    """Bytes that one context needs."""

    context: int  # tokens, rounded up as llama.cpp does
    kv_type: str
    kv: int  # keys and values, and the state of recurrent layers
    compute: int
    output: int
    total: int  # with all weights
    devices: tuple[DeviceNeeds, ...]


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of the weights, and a row for each context that llama.cpp accepts."""

    source: Literal["exact", "about"]  # about: which bytes are on the GPU is arithmetic
    weights_file: int  # mapped from the file: the system can drop and reread them
    weights_anon: int  # copies, repacked for this CPU
    weights_gpu: int
    rows: tuple[ContextNeeds, ...]
    refused: Mapping[ContextWish, str]  # llama.cpp's reason for each context that it refuses

    @property
    def weights(self) -> int:
        return self.weights_file + self.weights_anon + self.weights_gpu


class Figures:
    """The memory needs of one model; llama.cpp is asked only once for each context.

    `gpu`: layers go to the GPUs that are "here", to an "imagined" one, or to "none". `likely`:
    contexts to ask for along with the first one, because a question costs a process. `folder`:
    where answers are kept between runs.
    """

    def __init__(
        self, model: ModelFile, flash_attn: str = "auto", *,
        gpu: Literal["none", "here", "imagined"] = "none", likely: Sequence[ContextWish] = (),
        folder: Path | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        self._flash_attn = flash_attn
        self._gpu = gpu
        self._likely = likely
        self._folder = folder
        self._known: dict[tuple[int, bool], MemoryNeeds] = {}
        self._found: dict[tuple[int, bool], dict[ContextWish, ContextNeeds]] = {}

    def needs(
        self, rows: Sequence[ContextWish], layers: int = ALL, repack: bool = True
    ) -> MemoryNeeds:
        """The needs with so many layers on the GPU. `repack`: weights may be copied in an order
        that suits this CPU. Raises what `exact` does."""
        key = (layers if self._gpu == "here" else 0, repack)
        found = self._found.setdefault(key, {})
        known = self._known.get(key)
        refused = dict(known.refused) if known else {}
        asked = [*rows, *(() if known else self._likely)]
        if unknown := [wish for wish in dict.fromkeys(asked) if wish not in {*found, *refused}]:
            known = exact(
                self._model.header, unknown, n_gpu_layers=key[0], flash_attn=self._flash_attn,
                repack=repack, folder=self._folder, name=self._model.name,
            )  # fmt: skip
            accepted = [wish for wish in unknown if wish not in known.refused]
            found |= dict(zip(accepted, known.rows, strict=True))
            refused |= known.refused
            known = self._known[key] = replace(known, refused=refused)
        assert known, "at least one context is asked for"
        wishes = dict.fromkeys(rows)
        needs = replace(
            known,
            rows=tuple(found[wish] for wish in wishes if wish in found),
            refused={wish: refused[wish] for wish in wishes if wish in refused},
        )
        imagined = self._gpu == "imagined" and layers
        return split(needs, self._model.header, layers) if imagined else needs


def exact(
    header: Header, rows: Sequence[ContextWish], *, n_gpu_layers: int = ALL,
    flash_attn: str = "auto", repack: bool = True, folder: Path | None = None,
    name: str = "this model",
) -> MemoryNeeds:  # fmt: skip
    """llama.cpp's figures for a context of each (tokens, KV type).

    Raises NativeError if llama.cpp does not run here, ModelError if it refuses the model.
    """
    _check(header, name)
    bare = skeleton(header)
    wish: dict[str, Any] = {
        "n_gpu_layers": n_gpu_layers, "flash_attn": flash_attn, "repack": repack, "rows": rows,
    }  # fmt: skip
    stored = StoredAnswer(folder, bare, json.dumps(wish).encode())
    if (answer := stored.read()) is None:
        file = {"header": base64.b64encode(bare).decode(), "data_size": header.data_size}
        answer = ask("memory", wish | file | {"name": name}, name)
        stored.write(answer)
    size = sum(t.n_bytes or 0 for t in header.tensors)
    weights = answer["weights"] or {"file": size, "anon": 0, "gpu": 0}
    total = sum(weights.values())
    answered = list(zip(rows, answer["rows"], strict=True))
    needs = MemoryNeeds(
        "exact",
        weights["file"],
        weights["anon"],
        weights["gpu"],
        tuple(_row(row, total) for _, row in answered if "error" not in row),
        {wish: row["error"] for wish, row in answered if "error" in row},
    )
    if answer["weights"] is None and answer["gpus"] and n_gpu_layers:
        return split(needs, header, n_gpu_layers, answer["gpus"][0])  # only the sums are known
    return needs


def split(
    needs: MemoryNeeds, header: Header, n_gpu_layers: int, gpu: str = IMAGINED
) -> MemoryNeeds:
    """The same needs with so many layers on one GPU; which bytes go there is arithmetic.

    Weights go by the layer in the tensor's name, the KV cache in proportion to the layers. CPU
    and GPU both get the whole compute buffer, the CPU none if no layer is left to it.
    """
    blocks = header.arch_number("block_count") or 0
    layers = min(n_gpu_layers, blocks + 1) if n_gpu_layers >= 0 else blocks + 1
    stays, moved = _split_weights(header, layers, blocks)
    rows = []
    for row in needs.rows:
        kv = row.kv * max(0, layers - 1) // blocks  # the output is the first layer to go
        cpu = DeviceNeeds("CPU", stays, row.kv - kv, row.compute if layers <= blocks else 0)
        there = DeviceNeeds(gpu, moved, kv, row.compute if layers else 0)
        total = cpu.total + there.total + row.output
        compute = cpu.compute + there.compute
        rows.append(replace(row, devices=(cpu, there), compute=compute, total=total))
    copied = stays * needs.weights_anon // max(1, needs.weights)  # the same share as of all
    return MemoryNeeds("about", stays - copied, copied, moved, tuple(rows), needs.refused)


def _split_weights(header: Header, layers: int, blocks: int) -> tuple[int, int]:
    """Bytes of weights on the CPU, and on a GPU with so many layers: the output, then the last
    blocks. The input stays on the CPU; an embedding that is the output too is on both."""
    first = blocks + 1 - layers
    tied = not any(t.name == "output.weight" for t in header.tensors)
    stays = moved = 0
    for t in header.tensors:
        block = re.match(r"blk\.(\d+)\.", t.name)
        embedding = t.name == "token_embd.weight"
        last = "output" in t.name or (embedding and tied)
        goes = layers > 0 and (int(block[1]) >= first if block else last)
        moved += (t.n_bytes or 0) if goes else 0
        stays += (t.n_bytes or 0) if embedding or not goes else 0
    return stays, moved


def skeleton(header: Header) -> bytes:
    """The header without its vocabulary, as llama.cpp accepts it: some 15 kB instead of 25 MB.

    The weights that it announces would begin right after it.
    """
    size_key = f"{header.architecture}.vocab_size".encode()
    tokens = header.values.get("tokenizer.ggml.tokens")
    added = [_string(b"tokenizer.ggml.model") + struct.pack("<I", _STRING) + _string(b"no_vocab")]
    kept = header.keys
    numbers = {}
    if tokens is not None:
        # A size that the header has already would be there twice: it gets another name.
        kept = kept.replace(_string(size_key), _string(size_key[:-1] + b"_"), 1)
        numbers[size_key] = tokens.count
    types_key = "tokenizer.ggml.token_type_count"
    if types := header.number(types_key):  # BERT has an embedding for each
        numbers[types_key.encode()] = types
    added += [_string(key) + struct.pack("<II", _UINT32, n) for key, n in numbers.items()]
    n_keys = header.n_keys + len(added)
    start = b"GGUF" + struct.pack("<IQQ", header.version, len(header.tensors), n_keys)
    head = start + kept + b"".join(added) + header.infos
    return head + bytes(-len(head) % header.alignment)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _row(row: dict[str, Any], weights: int) -> ContextNeeds:
    kv, compute, output = row["kv"], row["compute"], row["output"]
    cpu = [{"name": "CPU", "weights": weights, "kv": kv, "compute": compute}]
    return ContextNeeds(
        row["context"], row["kv_type"], kv, compute, output, weights + kv + compute + output,
        tuple(DeviceNeeds(**device) for device in row["devices"] or cpu),
    )  # fmt: skip


def _check(header: Header, name: str) -> None:
    """ModelError for values on which llama.cpp aborts (its GGML_ASSERTs in load_hparams)."""

    def number(key: str) -> int:
        return header.arch_number(key) or 0

    blocks, experts = number("block_count"), number("expert_count")
    wrong = (
        "is big-endian, which this computer cannot run" if header.endian != "little"
        else "names no architecture" if not header.architecture
        else f"has {blocks:,} layers; llama.cpp allows 1 to {_MAX_LAYERS}"
        if not 0 < blocks <= _MAX_LAYERS
        else f"has {experts:,} experts; llama.cpp allows {_MAX_EXPERTS:,}"
        if experts > _MAX_EXPERTS
        else "uses more experts than it has" if number("expert_used_count") > experts
        else "has more draft layers than layers" if number("nextn_predict_layers") >= blocks
        else ""
    )  # fmt: skip
    if wrong:
        raise ModelError(f"{name} {wrong}. Use another file of this model.")

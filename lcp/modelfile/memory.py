"""Memory: the bytes a model and its contexts take, as llama.cpp lays them out.

Exact where llama.cpp is here: it is given a skeleton of the header, so a file that is not
downloaded yet will do. About, by formulas, where it is not. Not counted: the program itself, the
vocabulary, and what a GPU's driver takes.
"""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lcp.errors import LcpError, ModelError
from lcp.modelfile import formulas
from lcp.modelfile.child import ask
from lcp.modelfile.header import Header
from lcp.modelfile.known import Known
from lcp.modelfile.layers import MAX_LAYERS, number, text
from lcp.modelfile.parts import ModelFile

_MAX_EXPERTS = 1024  # llama.cpp: LLAMA_MAX_EXPERTS
_UINT32, _STRING = 4, 8  # GGUF value types
ALL = -1  # layers on the GPU: all of them
CARD = "GPU"  # the name of a GPU that is not here

Wish = tuple[int, str]  # context, kv_type


@dataclass(frozen=True)
class Device:
    """What lies on one device; "CPU" stands for the machine's own memory."""

    name: str
    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


@dataclass(frozen=True)
class Row:
    """A context and what it takes, in bytes."""

    context: int  # tokens, rounded up as llama.cpp does
    kv_type: str
    kv: int  # keys and values, and the state of recurrent layers
    compute: int
    output: int
    total: int  # with all weights
    devices: tuple[Device, ...]
    state: int = 0  # of kv, what stays the same in any context
    whole: bool = False  # layers with a window keep all cells


@dataclass(frozen=True)
class Memory:
    """The weights, and a row for each context asked for that the model can have."""

    source: Literal["exact", "about"]
    weights_file: int  # mapped from the file: the system can drop and read them again
    weights_anon: int  # copies, repacked for this CPU
    weights_gpu: int
    rows: tuple[Row, ...]
    refused: Mapping[Wish, str]  # what the model cannot have, and llama.cpp's words on it
    why: str = ""  # why it is only about
    loads: bool = True  # False: llama.cpp refuses the model or dies of it; `why` says so

    @property
    def weights(self) -> int:
        return self.weights_file + self.weights_anon + self.weights_gpu


def estimate(
    model: ModelFile, rows: Sequence[Wish], *, n_gpu_layers: int | None = None,
    flash_attn: str = "auto", repack: bool = True, known: Path | None = None,
) -> Memory:  # fmt: skip
    """What the model takes, with a context for each (context, kv_type); None layers means all.
    `repack`: weights may be copied in an order that suits the CPU. `known` is a folder where
    llama.cpp's answers are kept.

    Exact, or about where llama.cpp is missing, dies, or does not know the model (`why`). Raises
    ModelError for a header that no model can have.
    """
    layers = ALL if n_gpu_layers is None else n_gpu_layers
    _check(model.header)
    try:
        return exact(
            model.header, rows, n_gpu_layers=layers, flash_attn=flash_attn, repack=repack,
            known=known, name=model.name,
        )  # fmt: skip
    except LcpError as error:
        guess = about(model.header, rows, flash_attn=flash_attn)
        return replace(guess, why=str(error), loads=not isinstance(error, ModelError))


def exact(
    header: Header, rows: Sequence[Wish], *, n_gpu_layers: int = ALL, flash_attn: str = "auto",
    repack: bool = True, known: Path | None = None, name: str = "this model",
) -> Memory:  # fmt: skip
    """What llama.cpp itself says. NativeError where it does not, ModelError where it refuses."""
    _check(header)
    bare = skeleton(header)
    wish: dict[str, Any] = {
        "n_gpu_layers": n_gpu_layers, "flash_attn": flash_attn, "repack": repack, "rows": rows,
    }  # fmt: skip
    place = Known(known, bare, json.dumps(wish).encode())
    if (answer := place.recall()) is None:
        file = {"header": base64.b64encode(bare).decode(), "data_size": header.data_size}
        answer = place.keep(ask("memory", wish | file | {"name": name}, name))
    size = sum(t.n_bytes or 0 for t in header.tensors)
    weights = answer["weights"] or {"file": size, "anon": 0, "gpu": 0}
    total = sum(weights.values())
    told = list(zip(rows, answer["rows"], strict=True))
    memory = Memory(
        "exact",
        weights["file"],
        weights["anon"],
        weights["gpu"],
        tuple(_row(row, total) for _, row in told if "error" not in row),
        {wish: row["error"] for wish, row in told if "error" in row},
    )
    if answer["weights"] is None and answer["gpus"] and n_gpu_layers:
        # Only sums are known then: what lies where is told by formulas.
        memory = replace(on_card(memory, header, n_gpu_layers, answer["gpus"][0]), source="exact")
    return memory


def about(
    header: Header, rows: Sequence[Wish], *, n_gpu_layers: int = 0, flash_attn: str = "auto",
    whole: bool = False,
) -> Memory:  # fmt: skip
    """What formulas say, with so many layers on one GPU, be it here or not.

    `whole`: layers with a window keep all cells, as the chat lets them while these are few.
    """
    _check(header)
    weights = sum(t.n_bytes or 0 for t in header.tensors)
    made = []
    for context, kv_type in rows:
        auto = kv_type != "f16" or n_gpu_layers != 0  # as the chat decides
        flash = auto if flash_attn == "auto" else flash_attn == "on"
        cache = formulas.cache(header.values, context, kv_type, flash, whole)
        compute = formulas.compute(header.values, context, flash)
        output = formulas.output(header.values)
        total = weights + cache.total + compute + output
        cpu = Device("CPU", weights, cache.total, compute)
        row = Row(
            formulas.padded(context), kv_type, cache.total, compute, output, total, (cpu,),
            sum(cache.state), whole,
        )  # fmt: skip
        made.append(row)
    plain = Memory("about", weights, 0, 0, tuple(made), {})
    return on_card(plain, header, n_gpu_layers) if n_gpu_layers else plain


def on_card(memory: Memory, header: Header, n_gpu_layers: int, name: str = CARD) -> Memory:
    """The same with so many layers on one GPU, be it here or not; which bytes go there is about.

    Both get the whole compute buffer, more is never needed; the CPU none if no layer is left.
    """
    n = number(header.values, f"{text(header.values, 'general.architecture')}.block_count") or 0
    layers = min(n_gpu_layers, n + 1) if n_gpu_layers >= 0 else n + 1
    stays, moved = formulas.split(header, layers)
    rows = []
    for row in memory.rows:
        # The share of the blocks there: the output is the first layer to go.
        kv = row.kv * max(0, layers - 1) // n
        cpu = Device("CPU", stays, row.kv - kv, row.compute if layers <= n else 0)
        gpu = Device(name, moved, kv, row.compute if layers else 0)
        total = cpu.total + gpu.total + row.output
        rows.append(replace(row, devices=(cpu, gpu), total=total))
    copied = stays * memory.weights_anon // max(1, memory.weights)  # as large a part as of all
    return Memory(
        "about",
        stays - copied,
        copied,
        moved,
        tuple(rows),
        memory.refused,
        memory.why,
        memory.loads,
    )


def skeleton(header: Header) -> bytes:
    """The header without its vocabulary, as llama.cpp takes it: some 15 kB instead of 25 MB.

    The weights it announces would begin right behind it.
    """
    values = header.values
    size_key = f"{text(values, 'general.architecture')}.vocab_size".encode()
    tokens = values.get("tokenizer.ggml.tokens")
    added = [_string(b"tokenizer.ggml.model") + struct.pack("<I", _STRING) + _string(b"no_vocab")]
    kept = header.keys
    numbers = {}
    if tokens is not None:
        # A size that stands there already would come twice: it gets another name.
        kept = kept.replace(_string(size_key), _string(size_key[:-1] + b"_"), 1)
        numbers[size_key] = tokens.count
    if types := number(values, "tokenizer.ggml.token_type_count"):  # BERT has an embedding of them
        numbers[b"tokenizer.ggml.token_type_count"] = types
    added += [_string(key) + struct.pack("<II", _UINT32, n) for key, n in numbers.items()]
    n_keys = header.n_keys + len(added)
    start = b"GGUF" + struct.pack("<IQQ", header.version, len(header.tensors), n_keys)
    head = start + kept + b"".join(added) + header.infos
    return head + bytes(-len(head) % header.alignment)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _row(told: dict[str, Any], weights: int) -> Row:
    kv, compute, output = told["kv"], told["compute"], told["output"]
    cpu = [{"name": "CPU", "weights": weights, "kv": kv, "compute": compute}]
    return Row(
        told["context"], told["kv_type"], kv, compute, output, weights + kv + compute + output,
        tuple(Device(**device) for device in told["devices"] or cpu), told["state"],
        told["swa_full"],
    )  # fmt: skip


def _check(header: Header) -> None:
    """ModelError for what would abort llama.cpp (its GGML_ASSERTs in load_hparams), or the rest."""
    arch = text(header.values, "general.architecture")

    def told(key: str) -> int:
        return number(header.values, f"{arch}.{key}") or 0

    blocks, experts = told("block_count"), told("expert_count")
    wrong = (
        "a big-endian file, which this machine cannot compute with" if header.endian != "little"
        else "no architecture" if not arch
        else f"{blocks:,} layers" if not 0 < blocks <= MAX_LAYERS
        else f"{experts:,} experts" if experts > _MAX_EXPERTS
        else "more experts in use than there are" if told("expert_used_count") > experts
        else "more layers that draft than there are" if told("nextn_predict_layers") >= blocks
        else ""
    )  # fmt: skip
    if wrong:
        raise ModelError(f"No memory can be told for this model: it has {wrong}. Use another file.")

"""Headers of models as large as real ones, without the weights: 20 kB that announce gigabytes.

One per architecture, see MODELS. Shapes are llama.cpp's: the contiguous dimension first.
"""

import math
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]
F32, _F16, Q4_0, Q8_0, _Q4_K, Q6_K = 0, 1, 2, 8, 12, 14  # ggml tensor types
_BLOCKS = {F32: (1, 4), _F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34), _Q4_K: (256, 144),
           Q6_K: (256, 210)}  # fmt: skip


def write(path: Path, name: str, vocabulary: bool = False, **facts: Any) -> Path:
    """The model `name`, its weights holes in the file; `facts` change its numbers (`__` a dot),
    None takes one out. Only with a `vocabulary` can llama.cpp load it as a chat does."""
    values, shapes = MODELS[name]()
    if vocabulary:
        count = shapes["token_embd.weight"][1]
        values |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": [f"t{i}" for i in range(count)],
            "tokenizer.ggml.merges": ["t 1"],
        }
    arch = values["general.architecture"]
    values |= {f"{arch}.{key.replace('__', '.')}": value for key, value in facts.items()}
    return write_header(path, {k: v for k, v in values.items() if v is not None}, shapes)


def write_header(
    path: Path,
    values: dict[str, Any],
    shapes: Shapes,
    quant: Callable[[str, tuple[int, ...]], int] | None = None,
) -> Path:
    """A file with these tensors; `quant`: name and shape -> the type of a tensor."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values))
    for key, value in values.items():
        head += _string(key) + _typed(value)
    offset = 0
    for name, shape in shapes.items():
        kind = (quant or _kind)(name, shape)
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        block, size = _BLOCKS[kind]
        offset += -(-(math.prod(shape) // block * size) // 32) * 32
    head += bytes(-len(head) % 32)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return path


def _kind(name: str, shape: tuple[int, ...]) -> int:
    plain = ("norm", "bias", "ssm_a", "ssm_d", "conv", "gate_inp", "ssm_dt", "rel_b", "sinks")
    if len(shape) < 2 or any(part in name for part in plain):
        return F32
    return next(k for k in (_Q4_K, Q8_0, _F16) if shape[0] % _BLOCKS[k][0] == 0)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    if isinstance(value, list):
        one = _typed(value[0])
        return (
            struct.pack("<I", 9)
            + one[:4]
            + struct.pack("<Q", len(value))
            + b"".join(_typed(v)[4:] for v in value)
        )
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<II", 4, value)


def common(arch: str, layers: int, width: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    """The metadata that all have; in `more` two underscores stand for a dot."""
    numbers = {
        "block_count": layers, "context_length": 131072, "embedding_length": width,
        "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": vocabulary,
    }  # fmt: skip
    numbers |= {key.replace("__", "."): value for key, value in more.items()}
    return {
        "general.architecture": arch,
        "tokenizer.ggml.model": "no_vocab",
        **{f"{arch}.{key}": value for key, value in numbers.items()},
    }


def _ends(width: int, vocabulary: int, tied: bool = False, norm: str = "output_norm") -> Shapes:
    shapes = {"token_embd.weight": (width, vocabulary), f"{norm}.weight": (width,)}
    return shapes if tied else shapes | {"output.weight": (width, vocabulary)}


def _norms(p: str, width: int, *names: str) -> Shapes:
    return {f"{p}{name}.weight": (width,) for name in names}


def _attention(p: str, width: int, q: int, k: int, v: int = 0, norms: int = 0) -> Shapes:
    shapes: Shapes = {
        f"{p}attn_q.weight": (width, q), f"{p}attn_k.weight": (width, k),
        f"{p}attn_v.weight": (width, v or k), f"{p}attn_output.weight": (q, width),
    }  # fmt: skip
    return shapes | (_norms(p, norms, "attn_q_norm", "attn_k_norm") if norms else {})


def _ffn(p: str, width: int, inner: int, suffix: str = "", experts: tuple[int, ...] = ()) -> Shapes:
    return {
        f"{p}ffn_gate{suffix}.weight": (width, inner, *experts),
        f"{p}ffn_up{suffix}.weight": (width, inner, *experts),
        f"{p}ffn_down{suffix}.weight": (inner, width, *experts),
    }


def _experts(p: str, width: int, inner: int, n: int) -> Shapes:
    return {f"{p}ffn_gate_inp.weight": (width, n)} | _ffn(p, width, inner, "_exps", (n,))


def _blocks(n: int, block: Callable[[int, str], Iterable[tuple[str, tuple[int, ...]]]]) -> Shapes:
    shapes: Shapes = {}
    for i in range(n):
        shapes |= dict(block(i, f"blk.{i}."))
    return shapes


Model = tuple[dict[str, Any], Shapes]


def llama() -> Model:
    values = common(
        "llama", 32, 4096, 128256, attention__head_count=32, attention__head_count_kv=8,
        feed_forward_length=14336, rope__dimension_count=128,
    )  # fmt: skip
    return values, _ends(4096, 128256) | _blocks(32, lambda i, p: (
        _norms(p, 4096, "attn_norm", "ffn_norm") | _attention(p, 4096, 4096, 1024)
        | _ffn(p, 4096, 14336)
    ).items())  # fmt: skip


def deci() -> Model:
    """Half of the layers have half as many heads."""
    heads = [8 if i % 2 else 4 for i in range(32)]
    values = common(
        "deci", 32, 4096, 128256, attention__head_count=32, attention__head_count_kv=heads,
        feed_forward_length=14336, rope__dimension_count=128,
    )  # fmt: skip
    return values, _ends(4096, 128256) | _blocks(32, lambda i, p: (
        _norms(p, 4096, "attn_norm", "ffn_norm") | _attention(p, 4096, 4096, 128 * heads[i])
        | _ffn(p, 4096, 14336)
    ).items())  # fmt: skip


def qwen3moe() -> Model:
    values = common(
        "qwen3moe", 48, 2048, 151936, attention__head_count=32, attention__head_count_kv=4,
        attention__key_length=128, attention__value_length=128, feed_forward_length=6144,
        expert_count=128, expert_used_count=8, expert_feed_forward_length=768,
    )  # fmt: skip
    return values, _ends(2048, 151936) | _blocks(48, lambda i, p: (
        _norms(p, 2048, "attn_norm", "ffn_norm") | _attention(p, 2048, 4096, 512, norms=128)
        | _experts(p, 2048, 768, 128)
    ).items())  # fmt: skip


def gemma3() -> Model:
    values = common(
        "gemma3", 48, 3840, 262208, attention__head_count=16, attention__head_count_kv=8,
        attention__key_length=256, attention__value_length=256, feed_forward_length=15360,
        attention__sliding_window=1024,
    )  # fmt: skip
    norms = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    return values, _ends(3840, 262208, tied=True) | _blocks(48, lambda i, p: (
        _norms(p, 3840, *norms) | _attention(p, 3840, 4096, 2048, norms=256) | _ffn(p, 3840, 15360)
    ).items())  # fmt: skip


def cohere2() -> Model:
    values = common(
        "cohere2", 32, 4096, 256000, attention__head_count=32, attention__head_count_kv=8,
        feed_forward_length=14336, attention__sliding_window=4096, logit_scale=0.25,
        attention__layer_norm_epsilon=1e-5,
    )  # fmt: skip
    return values, _ends(4096, 256000, tied=True) | _blocks(32, lambda i, p: (
        _norms(p, 4096, "attn_norm") | _attention(p, 4096, 4096, 1024) | _ffn(p, 4096, 14336)
    ).items())  # fmt: skip


def gpt_oss() -> Model:
    values = common(
        "gpt-oss", 24, 2880, 201088, attention__head_count=64, attention__head_count_kv=8,
        attention__key_length=64, attention__value_length=64, attention__sliding_window=128,
        expert_count=32, expert_used_count=4, expert_feed_forward_length=2880,
        feed_forward_length=2880,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        biases: Shapes = {
            f"{p}attn_q.bias": (4096,), f"{p}attn_k.bias": (512,), f"{p}attn_v.bias": (512,),
            f"{p}attn_output.bias": (2880,), f"{p}attn_sinks.weight": (64,),
            f"{p}ffn_gate_inp.bias": (32,), f"{p}ffn_gate_exps.bias": (2880, 32),
            f"{p}ffn_up_exps.bias": (2880, 32), f"{p}ffn_down_exps.bias": (2880, 32),
        }  # fmt: skip
        norms = _norms(p, 2880, "attn_norm", "post_attention_norm")
        attention = _attention(p, 2880, 4096, 512)
        return (norms | attention | biases | _experts(p, 2880, 2880, 32)).items()

    return values, _ends(2880, 201088) | _blocks(24, block)


def deepseek2(latent: bool = True) -> Model:
    """DeepSeek V3; not `latent`: as files were made before its attention was understood."""
    values = common(
        "deepseek2", 61, 7168, 129280, attention__head_count=128,
        attention__head_count_kv=1 if latent else 128, feed_forward_length=18432,
        attention__key_length=576 if latent else 192,
        attention__value_length=512 if latent else 128,
        attention__kv_lora_rank=512, attention__q_lora_rank=1536, rope__dimension_count=64,
        leading_dense_block_count=3, expert_count=256, expert_used_count=8,
        expert_feed_forward_length=2048, expert_shared_count=1, expert_weights_scale=2.5,
        attention__key_length_mla=192 if latent else 0,
        attention__value_length_mla=128 if latent else 0,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        shapes: Shapes = _norms(p, 7168, "attn_norm", "ffn_norm")
        shapes |= _norms(p, 1536, "attn_q_a_norm") | _norms(p, 512, "attn_kv_a_norm")
        shapes |= {
            f"{p}attn_q_a.weight": (7168, 1536), f"{p}attn_q_b.weight": (1536, 128 * 192),
            f"{p}attn_kv_a_mqa.weight": (7168, 576), f"{p}attn_output.weight": (128 * 128, 7168),
        }  # fmt: skip
        if latent:
            shapes |= {f"{p}attn_k_b.weight": (128, 512, 128)}
            shapes |= {f"{p}attn_v_b.weight": (512, 128, 128)}
        else:
            shapes |= {f"{p}attn_kv_b.weight": (512, 128 * 256)}
        if i < 3:
            return (shapes | _ffn(p, 7168, 18432)).items()
        return (shapes | _experts(p, 7168, 2048, 256) | _ffn(p, 7168, 2048, "_shexp")).items()

    return values, _ends(7168, 129280) | _blocks(61, block)


def qwen3next() -> Model:
    values = common(
        "qwen3next", 48, 2048, 151936, attention__head_count=16, attention__head_count_kv=2,
        attention__key_length=256, attention__value_length=256, rope__dimension_count=64,
        ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=128, ssm__time_step_rank=32,
        ssm__group_count=16, expert_count=512, expert_used_count=10,
        expert_feed_forward_length=512, expert_shared_feed_forward_length=512,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        shapes = _norms(p, 2048, "attn_norm", "post_attention_norm")
        if (i + 1) % 4 == 0:
            shapes |= _attention(p, 2048, 8192, 512, norms=256)
            shapes[f"{p}attn_output.weight"] = (4096, 2048)
        else:
            shapes |= {
                f"{p}attn_qkv.weight": (2048, 8192), f"{p}attn_gate.weight": (2048, 4096),
                f"{p}ssm_conv1d.weight": (4, 8192), f"{p}ssm_dt.bias": (32,), f"{p}ssm_a": (32,),
                f"{p}ssm_ba.weight": (2048, 64), f"{p}ssm_norm.weight": (128,),
                f"{p}ssm_out.weight": (4096, 2048),
            }  # fmt: skip
        shapes |= _experts(p, 2048, 512, 512) | _ffn(p, 2048, 512, "_shexp")
        return (shapes | {f"{p}ffn_gate_inp_shexp.weight": (2048,)}).items()

    return values, _ends(2048, 151936) | _blocks(48, block)


def _mamba(p: str, width: int, inner: int, state: int, rank: int) -> Shapes:
    return {
        f"{p}ssm_in.weight": (width, 2 * inner), f"{p}ssm_conv1d.weight": (4, inner),
        f"{p}ssm_conv1d.bias": (inner,), f"{p}ssm_x.weight": (inner, rank + 2 * state),
        f"{p}ssm_dt.weight": (rank, inner), f"{p}ssm_dt.bias": (inner,),
        f"{p}ssm_a": (state, inner), f"{p}ssm_d": (inner,), f"{p}ssm_out.weight": (inner, width),
    }  # fmt: skip


def mamba() -> Model:
    values = common(
        "mamba", 64, 2560, 50280, ssm__conv_kernel=4, ssm__inner_size=5120, ssm__state_size=16,
        ssm__time_step_rank=160,
    )  # fmt: skip
    return values, _ends(2560, 50280, tied=True) | _blocks(64, lambda i, p: (
        _norms(p, 2560, "attn_norm") | _mamba(p, 2560, 5120, 16, 160)
    ).items())  # fmt: skip


def jamba() -> Model:
    heads = [8 if i % 8 == 4 else 0 for i in range(32)]
    values = common(
        "jamba", 32, 4096, 65536, attention__head_count=32, attention__head_count_kv=heads,
        feed_forward_length=14336, ssm__conv_kernel=4, ssm__inner_size=8192, ssm__state_size=16,
        ssm__time_step_rank=256, expert_count=16, expert_used_count=2,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        shapes = _norms(p, 4096, "attn_norm", "ffn_norm")
        if heads[i]:
            shapes |= _attention(p, 4096, 4096, 1024)
        else:
            shapes |= _mamba(p, 4096, 8192, 16, 256) | _norms(p, 256, "ssm_dt_norm")
            shapes |= _norms(p, 16, "ssm_b_norm", "ssm_c_norm")
        dense = _ffn(p, 4096, 14336)
        return (shapes | (_experts(p, 4096, 14336, 16) if i % 2 else dense)).items()

    return values, _ends(4096, 65536) | _blocks(32, block)


def granitehybrid() -> Model:
    heads = [4 if i % 10 == 5 else 0 for i in range(40)]
    values = common(
        "granitehybrid", 40, 1536, 100352, attention__head_count=12,
        attention__head_count_kv=heads, feed_forward_length=512, ssm__conv_kernel=4,
        ssm__inner_size=3072, ssm__state_size=128, ssm__time_step_rank=48, ssm__group_count=1,
        expert_count=64, expert_used_count=6, expert_shared_feed_forward_length=1024,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        shapes = _norms(p, 1536, "attn_norm", "ffn_norm")
        if heads[i]:
            shapes |= _attention(p, 1536, 1536, 512)
        else:
            shapes |= {
                f"{p}ssm_in.weight": (1536, 2 * 3072 + 256 + 48), f"{p}ssm_dt.bias": (48,),
                f"{p}ssm_conv1d.weight": (4, 3328), f"{p}ssm_conv1d.bias": (3328,),
                f"{p}ssm_a": (1, 48), f"{p}ssm_d": (1, 48), f"{p}ssm_norm.weight": (3072, 1),
                f"{p}ssm_out.weight": (3072, 1536),
            }  # fmt: skip
        return (shapes | _experts(p, 1536, 512, 64) | _ffn(p, 1536, 1024, "_shexp")).items()

    return values, _ends(1536, 100352, tied=True) | _blocks(40, block)


def lfm2() -> Model:
    heads = [8 if i in (2, 5, 8, 10, 12, 14) else 0 for i in range(16)]
    values = common(
        "lfm2", 16, 2048, 65536, attention__head_count=32, attention__head_count_kv=heads,
        feed_forward_length=8192, shortconv__l_cache=3,
    )  # fmt: skip

    def block(i: int, p: str) -> Any:
        shapes = _norms(p, 2048, "attn_norm", "ffn_norm") | _ffn(p, 2048, 8192)
        if heads[i]:
            return (shapes | _attention(p, 2048, 2048, 512, norms=64)).items()
        convolution: Shapes = {
            f"{p}shortconv.conv.weight": (3, 2048), f"{p}shortconv.in_proj.weight": (2048, 6144),
            f"{p}shortconv.out_proj.weight": (2048, 2048),
        }  # fmt: skip
        return (shapes | convolution).items()

    return values, _ends(2048, 65536, tied=True, norm="token_embd_norm") | _blocks(16, block)


def bert() -> Model:
    values = common(
        "bert", 12, 768, 30522, attention__head_count=12, feed_forward_length=3072,
        attention__layer_norm_epsilon=1e-12, attention__causal=False, pooling_type=2,
        context_length=512,
    )  # fmt: skip
    values["tokenizer.ggml.token_type_count"] = 2

    def block(i: int, p: str) -> Any:
        shapes = _attention(p, 768, 768, 768) | {
            f"{p}ffn_up.weight": (768, 3072), f"{p}ffn_up.bias": (3072,),
            f"{p}ffn_down.weight": (3072, 768),
        }  # fmt: skip
        shapes |= _norms(p, 768, "attn_output_norm", "layer_output_norm")
        biased = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down")
        biased += ("attn_output_norm", "layer_output_norm")
        return (shapes | {f"{p}{name}.bias": (768,) for name in biased}).items()

    ends: Shapes = {
        "token_embd.weight": (768, 30522), "token_types.weight": (768, 2),
        "position_embd.weight": (768, 512), "token_embd_norm.weight": (768,),
        "token_embd_norm.bias": (768,),
    }  # fmt: skip
    return values, ends | _blocks(12, block)


def t5() -> Model:
    values = common(
        "t5", 24, 1024, 32128, attention__head_count=16, attention__key_length=64,
        attention__value_length=64, feed_forward_length=2816, context_length=512,
        attention__relative_buckets_count=32, decoder_start_token_id=0,
    )  # fmt: skip
    shapes: Shapes = {
        "token_embd.weight": (1024, 32128), "output.weight": (1024, 32128),
        "enc.output_norm.weight": (1024,), "dec.output_norm.weight": (1024,),
        "enc.blk.0.attn_rel_b.weight": (16, 32), "dec.blk.0.attn_rel_b.weight": (16, 32),
    }  # fmt: skip
    for i in range(24):
        for side, kinds in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
            p = f"{side}.blk.{i}."
            shapes |= _norms(p, 1024, "ffn_norm", *(f"{kind}_norm" for kind in kinds))
            shapes |= _ffn(p, 1024, 2816)
            shapes |= {f"{p}{kind}_{x}.weight": (1024, 1024) for kind in kinds for x in "qkvo"}
    return values, shapes


def phi3() -> Model:
    values = common(
        "phi3", 32, 3072, 32064, attention__head_count=32, attention__head_count_kv=32,
        feed_forward_length=8192, rope__dimension_count=96, attention__sliding_window=2047,
    )  # fmt: skip
    return values, _ends(3072, 32064) | _blocks(32, lambda i, p: (
        _norms(p, 3072, "attn_norm", "ffn_norm")
        | {f"{p}attn_qkv.weight": (3072, 9216), f"{p}attn_output.weight": (3072, 3072)}
        | {f"{p}ffn_up.weight": (3072, 16384), f"{p}ffn_down.weight": (8192, 3072)}
    ).items())  # fmt: skip


MODELS: dict[str, Callable[[], Model]] = {
    "llama": llama,
    "deci": deci,
    "qwen3moe": qwen3moe,
    "gemma3": gemma3,
    "cohere2": cohere2,
    "gpt-oss": gpt_oss,
    "deepseek2": deepseek2,
    "deepseek2-old": lambda: deepseek2(latent=False),
    "qwen3next": qwen3next,
    "mamba": mamba,
    "jamba": jamba,
    "granitehybrid": granitehybrid,
    "lfm2": lfm2,
    "bert": bert,
    "t5": t5,
    "phi3": phi3,
}

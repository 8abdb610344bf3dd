"""Tiny random models: GGUF files of half a megabyte that llama.cpp runs.

One writer per kind of memory, see KINDS. Shapes are numpy's (rows, columns); llama.cpp lists them
reversed. The vocabulary is sentencepiece's with a token for every byte: any text round-trips.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
WINDOW = 32  # tokens that the sliding-window layers of the kind swa see
_E, _HEADS, _HEAD, _FFN, _EXPERT, _LAYERS = 64, 4, 16, 96, 64, 2


def write(
    path: Path,
    kind: str = "dense",
    *,
    quant: str | None = None,
    template: str | None = TEMPLATE,
    add_bos: bool = True,
    add_space_prefix: bool = False,
    words: Sequence[str] = (),
    controls: Sequence[str] = (),
    facts: Mapping[str, float | int | str] | None = None,
    seed: int = 0,
    head: int = _HEAD,
    kv_heads: int = _HEADS,
    loops: bool = False,
    change: Callable[[dict[str, Any]], None] = lambda keys: None,
) -> Path:
    """Write a model of a kind; `quant` is "Q8_0" or "Q4_0" for every matrix it can hold.

    `kv_heads`: heads that have keys and values of their own, of dense and swa.
    `loops`: the next token depends almost only on the last one, so that a greedy answer soon runs
    in circles.
    `words` are further text tokens, `controls` further control tokens; `facts` are
    further metadata. A q8_0 KV cache needs `head`, the size of an attention head, to be 32.
    `change` can change the metadata, key -> gguf's value, before it is written.
    """
    arch, build = KINDS[kind]
    tiny = _Tiny(path, arch, quant, seed, head, kv_heads)
    if loops:
        tiny.scale = 0.003
    tiny.vocabulary(words, controls, add_bos, add_space_prefix)
    if template is not None:
        tiny.gguf.add_chat_template(template)
    for key, value in (facts or {}).items():
        kinds: dict[type, Any] = {float: tiny.gguf.add_float32, int: tiny.gguf.add_uint32}
        kinds.get(type(value), tiny.gguf.add_string)(key, value)
    build(tiny)
    change(tiny.gguf.kv_data[0])
    tiny.close()
    return path


def value(it: Any) -> Any:
    """A value of the metadata in gguf's form, for `change`."""
    kinds = gguf.GGUFValueType
    if isinstance(it, list):
        return gguf.gguf_writer.GGUFValue(it, kinds.ARRAY, kinds.get_type(it[0]))
    kind = kinds.UINT32 if type(it) is int and it >= 0 else kinds.get_type(it)
    return gguf.gguf_writer.GGUFValue(it, kind)


class _Tiny:
    """Writes a GGUF: its metadata and random tensors."""

    def __init__(
        self, path: Path, arch: str, quant: str | None, seed: int, head: int, kv_heads: int
    ) -> None:
        self.gguf = gguf.GGUFWriter(path, arch)
        self.arch = arch
        self.head = head
        self.kv_heads = kv_heads
        self._quant = gguf.GGMLQuantizationType[quant] if quant else None
        self.scale = 0.3  # of the blocks' tensors
        self._random = np.random.default_rng(seed)
        self.gguf.add_name(f"tiny {arch}")
        self.gguf.add_context_length(4096)
        self.gguf.add_embedding_length(_E)
        self.gguf.add_block_count(_LAYERS)
        self.gguf.add_layer_norm_rms_eps(1e-5)

    def vocabulary(
        self, words: Sequence[str], controls: Sequence[str], add_bos: bool, add_space_prefix: bool
    ) -> None:
        """<unk> <s> </s>, the bytes, a space, then `words` and `controls`."""
        w, kind = self.gguf, gguf.TokenType
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        spelled = [word.replace(" ", "▁") for word in words]
        tokens = ["<unk>", "<s>", "</s>", *bytes_, "▁", *spelled, *controls]
        types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
        types += [kind.NORMAL] * (1 + len(words)) + [kind.CONTROL] * len(controls)
        w.add_vocab_size(len(tokens))
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(tokens)
        w.add_token_scores([0.0] * len(tokens))
        w.add_token_types(types)
        w.add_unk_token_id(0)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_add_bos_token(add_bos)
        w.add_add_space_prefix(add_space_prefix)
        self.random("token_embd.weight", len(tokens), _E)
        self.random("output.weight", len(tokens), _E)

    def put(self, name: str, array: Any) -> None:
        """Add a tensor; matrices get the quant if their rows are whole blocks."""
        array = np.ascontiguousarray(array, np.float32)
        if self._quant and array.ndim > 1 and array.shape[-1] % 32 == 0 and "norm" not in name:
            quantised = gguf.quants.quantize(array, self._quant)
            self.gguf.add_tensor(name, quantised, raw_dtype=self._quant)
        else:
            self.gguf.add_tensor(name, array)

    def random(self, name: str, *shape: int) -> None:
        scale = self.scale if name.startswith("blk.") else 0.3
        self.put(name, self._random.standard_normal(shape) * scale)

    def negative(self, name: str, *shape: int) -> None:
        """State decays."""
        self.put(name, -np.abs(self._random.standard_normal(shape)) * 0.3)

    def ones(self, size: int, *names: str) -> None:
        for name in names:
            self.put(name, np.ones(size))

    def attention(
        self, p: str, *, bias: bool = False, norms: bool = False, gated: bool = False
    ) -> None:
        """Query, key, value and output of block `p`; gated ones have a query twice as wide."""
        wide, narrow = _HEADS * self.head, self.kv_heads * self.head
        rows = {"attn_q": wide * (2 if gated else 1), "attn_k": narrow, "attn_v": narrow}
        for name, n in rows.items():
            self.random(f"{p}{name}.weight", n, _E)
            if bias:
                self.random(f"{p}{name}.bias", n)
        self.random(p + "attn_output.weight", _E, wide)
        if norms:
            self.ones(self.head, p + "attn_q_norm.weight", p + "attn_k_norm.weight")

    def ffn(self, p: str, suffix: str = "", width: int = _FFN) -> None:
        self.random(f"{p}ffn_gate{suffix}.weight", width, _E)
        self.random(f"{p}ffn_up{suffix}.weight", width, _E)
        self.random(f"{p}ffn_down{suffix}.weight", _E, width)

    def experts(self, p: str) -> None:
        self.random(p + "ffn_gate_inp.weight", 4, _E)
        self.random(p + "ffn_gate_exps.weight", 4, _EXPERT, _E)
        self.random(p + "ffn_up_exps.weight", 4, _EXPERT, _E)
        self.random(p + "ffn_down_exps.weight", 4, _E, _EXPERT)

    def blocks(self, *norms: str) -> list[str]:
        """The name prefix of each block, its norms written."""
        prefixes = [f"blk.{i}." for i in range(_LAYERS)]
        for p in prefixes:
            self.ones(_E, *(f"{p}{norm}.weight" for norm in norms))
        return prefixes

    def says(self, **facts: int) -> None:
        """Numbers under the architecture's name, `__` for a dot."""
        for key, value in facts.items():
            self.gguf.add_uint32(f"{self.arch}.{key.replace('__', '.')}", value)

    def says_attention(self, kv: int | list[int] = _HEADS) -> None:
        self.gguf.add_feed_forward_length(_FFN)
        self.gguf.add_head_count(_HEADS)
        self.gguf.add_head_count_kv(kv)
        self.gguf.add_key_length(self.head)
        self.gguf.add_value_length(self.head)
        self.gguf.add_rope_dimension_count(self.head)

    def close(self) -> None:
        norm = "token_embd_norm.weight" if self.arch == "lfm2" else "output_norm.weight"
        self.ones(_E, norm)
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def _dense(t: _Tiny) -> None:
    t.says_attention(t.kv_heads)
    for p in t.blocks("attn_norm", "ffn_norm"):
        t.attention(p)
        t.ffn(p)


def _swa(t: _Tiny) -> None:
    """gemma3: every second layer sees only WINDOW tokens."""
    t.says_attention(t.kv_heads)
    t.says(attention__sliding_window=WINDOW, attention__sliding_window_pattern=2)
    for p in t.blocks("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"):
        t.attention(p, norms=True)
        t.ffn(p)


def _recurrent(t: _Tiny) -> None:
    """mamba2: a state, no attention."""
    inner, state, heads = 128, 16, 8
    channels = inner + 2 * state
    t.says(ssm__conv_kernel=4, ssm__inner_size=inner, ssm__state_size=state)
    t.says(ssm__time_step_rank=heads, ssm__group_count=1)
    for p in t.blocks("attn_norm"):
        t.random(p + "ssm_in.weight", inner + channels + heads, _E)
        t.random(p + "ssm_conv1d.weight", channels, 4)
        t.random(p + "ssm_conv1d.bias", channels)
        t.random(p + "ssm_dt.bias", heads)
        t.negative(p + "ssm_a", heads, 1)
        t.put(p + "ssm_d", np.ones((heads, 1)))
        t.put(p + "ssm_norm.weight", np.ones((1, inner)))
        t.random(p + "ssm_out.weight", _E, inner)


def _hybrid(t: _Tiny) -> None:
    """lfm2: a short convolution (recurrent), then attention."""
    t.says_attention(kv=[0, _HEADS])
    t.says(shortconv__l_cache=3)
    convolution, attention = t.blocks("attn_norm", "ffn_norm")
    t.random(convolution + "shortconv.conv.weight", _E, 3)
    t.random(convolution + "shortconv.in_proj.weight", 3 * _E, _E)
    t.random(convolution + "shortconv.out_proj.weight", _E, _E)
    t.attention(attention, norms=True)
    t.ffn(convolution)
    t.ffn(attention)


def _hybrid_mrope(t: _Tiny) -> None:
    """qwen35: a gated delta net, then gated attention with four positions a token."""
    state, groups, heads = 16, 2, 4
    keys, values = state * groups, state * heads
    t.says_attention()
    t.says(ssm__conv_kernel=4, ssm__inner_size=values, ssm__state_size=state)
    t.says(ssm__time_step_rank=heads, ssm__group_count=groups, full_attention_interval=2)
    t.gguf.add_rope_dimension_sections([4, 2, 2, 0])
    delta, attention = t.blocks("attn_norm", "post_attention_norm")
    t.random(delta + "attn_qkv.weight", 2 * keys + values, _E)
    t.random(delta + "attn_gate.weight", values, _E)
    t.random(delta + "ssm_conv1d.weight", 2 * keys + values, 4)
    t.random(delta + "ssm_dt.bias", heads)
    t.negative(delta + "ssm_a", heads)
    t.random(delta + "ssm_beta.weight", heads, _E)
    t.random(delta + "ssm_alpha.weight", heads, _E)
    t.ones(state, delta + "ssm_norm.weight")
    t.random(delta + "ssm_out.weight", _E, values)
    t.attention(attention, norms=True, gated=True)
    t.ffn(delta)
    t.ffn(attention)


def _mrope(t: _Tiny) -> None:
    """qwen2vl: attention with four positions a token."""
    t.says_attention()
    t.gguf.add_rope_dimension_sections([2, 3, 3, 0])
    for p in t.blocks("attn_norm", "ffn_norm"):
        t.attention(p, bias=True)
        t.ffn(p)


def _mla(t: _Tiny) -> None:
    """deepseek2: one latent vector for keys and values; a dense block, then shared experts."""
    latent, rope, nope, value = 32, 16, 16, 16
    t.gguf.add_feed_forward_length(_FFN)
    t.gguf.add_head_count(_HEADS)
    t.gguf.add_head_count_kv(1)
    t.gguf.add_rope_dimension_count(rope)
    t.says(attention__key_length=latent + rope, attention__value_length=latent)
    t.says(attention__key_length_mla=nope + rope, attention__value_length_mla=value)
    t.says(attention__kv_lora_rank=latent, attention__q_lora_rank=latent)
    t.says(leading_dense_block_count=1, expert_count=4, expert_used_count=2)
    t.says(expert_feed_forward_length=_EXPERT, expert_shared_count=1)
    t.gguf.add_expert_weights_scale(1.0)
    dense, experts = t.blocks("attn_norm", "ffn_norm")
    for p in (dense, experts):
        t.ones(latent, p + "attn_q_a_norm.weight", p + "attn_kv_a_norm.weight")
        t.random(p + "attn_q_a.weight", latent, _E)
        t.random(p + "attn_q_b.weight", _HEADS * (nope + rope), latent)
        t.random(p + "attn_kv_a_mqa.weight", latent + rope, _E)
        t.random(p + "attn_k_b.weight", _HEADS, latent, nope)
        t.random(p + "attn_v_b.weight", _HEADS, value, latent)
        t.random(p + "attn_output.weight", _E, _HEADS * value)
    t.ffn(dense)
    t.experts(experts)
    t.ffn(experts, "_shexp", _EXPERT)


def _moe(t: _Tiny) -> None:
    """qwen3moe: attention, routed experts."""
    t.says_attention()
    t.says(expert_count=4, expert_used_count=2, expert_feed_forward_length=_EXPERT)
    for p in t.blocks("attn_norm", "ffn_norm"):
        t.attention(p, norms=True)
        t.experts(p)


KINDS: dict[str, tuple[str, Callable[[_Tiny], None]]] = {
    "dense": ("llama", _dense),
    "swa": ("gemma3", _swa),
    "recurrent": ("mamba2", _recurrent),
    "hybrid": ("lfm2", _hybrid),
    "hybrid_mrope": ("qwen35", _hybrid_mrope),
    "mrope": ("qwen2vl", _mrope),
    "mla": ("deepseek2", _mla),
    "moe": ("qwen3moe", _moe),
}

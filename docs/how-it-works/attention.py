"""A language model in under 80 lines: the forward pass of a llama or a gemma3, from its GGUF file.

    python docs/how-it-works/attention.py model.gguf 1 15043 3186   # token ids

numpy computes; gguf reads the file. Nothing of llama.cpp is used, so lcp's tests compare the two.
"""

import sys

import gguf
import numpy as np


def read(path):
    """A GGUF file: its facts by their names, and a function that gives a matrix by its name."""
    file = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in file.fields.items() if "token" not in name}
    raw = {tensor.name: tensor for tensor in file.tensors}

    def weight(name, other=""):
        tensor = raw[name if name in raw else other]
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(float)

    return facts, weight


def forward(model, tokens, off=(), state=None):
    """Every attention map, the state after every layer, and the logits, for a list of token ids.
    `off`: heads (layer, head) that output zeros; `state`: (layer, token) -> what to put there."""
    facts, weight = model
    arch = facts["general.architecture"]
    fact = lambda name, other=None: facts.get(f"{arch}.{name}", other)  # noqa: E731
    gemma, n, eps = arch == "gemma3", len(tokens), fact("attention.layer_norm_rms_epsilon")
    heads, kv_heads = fact("attention.head_count"), fact("attention.head_count_kv")
    size = fact("attention.key_length", fact("embedding_length") // heads)
    window = fact("attention.sliding_window", 0)
    pattern = fact("attention.sliding_window_pattern", 6)
    norm = lambda x, name: weight(name) * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)  # noqa: E731

    x = weight("token_embd.weight")[tokens] * (np.sqrt(fact("embedding_length")) if gemma else 1)
    seen = {}
    for layer in range(fact("block_count")):
        p, sliding = f"blk.{layer}.", gemma and layer % pattern < pattern - 1
        # 1) Attention: each token asks (q) what the tokens before it offer (k), and takes (v).
        h = norm(x, p + "attn_norm.weight")
        q, k, v = ((h @ weight(f"{p}attn_{i}.weight").T).reshape(n, -1, size) for i in "qkv")
        if gemma:
            q, k = norm(q, p + "attn_q_norm.weight"), norm(k, p + "attn_k_norm.weight")
        # Position: pairs of numbers turn by an angle that grows with the place (RoPE).
        base = 10000.0 if sliding else fact("rope.freq_base", 10000.0)
        turn = np.exp(1j * np.arange(n)[:, None] * base ** (-np.arange(0, size, 2) / size))[:, None]
        q, k = (rotate(a, turn, halves=gemma) for a in (q, k))
        k, v = (np.repeat(a, heads // kv_heads, axis=1) for a in (k, v))  # shared by several heads
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size)
        back = np.arange(n)[:, None] - np.arange(n)  # how far back token j is from token i
        scores[:, (back < 0) | (sliding & (back >= window))] = -np.inf  # nobody sees what follows
        a = np.exp(scores - scores.max(-1, keepdims=True))
        a = seen[f"kq_soft_max-{layer}"] = a / a.sum(-1, keepdims=True)
        taken = np.einsum("hij,jhd->ihd", a, v)
        taken[:, [head for at, head in off if at == layer]] = 0
        added = taken.reshape(n, -1) @ weight(p + "attn_output.weight").T
        x = x + (norm(added, p + "post_attention_norm.weight") if gemma else added)
        # 2) Feed-forward: each token by itself.
        h = norm(x, p + "ffn_norm.weight")
        gate, up = h @ weight(p + "ffn_gate.weight").T, h @ weight(p + "ffn_up.weight").T
        added = ((gelu if gemma else silu)(gate) * up) @ weight(p + "ffn_down.weight").T
        x = x + (norm(added, p + "post_ffw_norm.weight") if gemma else added)
        for (at, token), new in (state or {}).items():
            x[token] = new if at == layer else x[token]
        seen[f"l_out-{layer}"] = x.copy()
    # 3) Every token of the vocabulary gets a number: how well it continues the text.
    out = weight("output.weight", "token_embd.weight")
    return seen | {"logits": norm(x, "output_norm.weight") @ out.T}


def rotate(a, turn, halves):
    """Turn each pair: neighbours in a llama, in a gemma number i and number i + half."""
    d = a.shape[-1] // 2
    pairs = (a[..., :d] + 1j * a[..., d:] if halves else a[..., ::2] + 1j * a[..., 1::2]) * turn
    both = np.concatenate if halves else lambda x, axis: np.stack(x, axis).reshape(a.shape)
    return both([pairs.real, pairs.imag], -1)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    """As ggml has it: from a table of half-precision numbers."""
    x = x.astype(np.float16).astype(float)
    y = 0.5 * x * (1 + np.tanh(0.79788456080286535588 * x * (1 + 0.044715 * x * x)))
    return np.where(x >= 10, x, np.where(x <= -10, 0, y.astype(np.float16)))


if __name__ == "__main__":
    logits = forward(read(sys.argv[1]), [int(word) for word in sys.argv[2:]])["logits"][-1]
    for token in np.argsort(-logits)[:5]:
        print(token, round(float(logits[token]), 3))

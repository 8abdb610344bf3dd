"""A language model in 50 lines of numpy: a llama, from its GGUF file to the next token.

    python docs/how-it-works/attention.py model.gguf 1 15043 3186     # token ids

The package gguf reads the file. Nothing of llama.cpp is used, so lcp's tests compare the two.
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
        tensor = raw.get(f"{name}.weight") or raw[f"{other}.weight"]
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(float)

    return facts, weight


def forward(model, tokens, off=(), state=None):
    """Every attention map, the state after every layer, and the logits, for a list of token ids.
    `off`: heads (layer, head) that output zeros; `state`: (layer, token) -> what to put there."""
    facts, weight = model
    heads, eps = (facts[f"llama.attention.{n}"] for n in ("head_count", "layer_norm_rms_epsilon"))
    x, seen = weight("token_embd")[tokens], {}
    for layer in range(facts["llama.block_count"]):
        at = f"blk.{layer}."
        # 1) Attention: each token asks (q) what the tokens before it offer (k), and takes (v).
        h = norm(x, eps) * weight(at + "attn_norm")
        q, k, v = (h @ weight(f"{at}attn_{i}").T for i in "qkv")
        q, k, v = (a.reshape(len(x), -1, q.shape[1] // heads) for a in (q, k, v))
        q, k = (turned(a, facts.get("llama.rope.freq_base", 10000.0)) for a in (q, k))
        taken, seen[f"kq_soft_max-{layer}"] = attention(q, k, v)
        taken[:, [head for i, head in off if i == layer]] = 0
        x = x + taken.reshape(len(x), -1) @ weight(at + "attn_output").T
        # 2) Feed-forward: each token works on what it has.
        h = norm(x, eps) * weight(at + "ffn_norm")
        gate, up = h @ weight(at + "ffn_gate").T, h @ weight(at + "ffn_up").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weight(at + "ffn_down").T
        for token in (token for i, token in state or () if i == layer):
            x[token] = state[layer, token]
        seen[f"l_out-{layer}"] = x.copy()
    # 3) Each token of the vocabulary gets a number: how well it continues the text.
    h = norm(x, eps) * weight("output_norm")
    return seen | {"logits": h @ weight("output", "token_embd").T}


def norm(x, eps):
    """Each row with a length that depends on its width alone (RMSNorm)."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def turned(a, base):
    """Each pair of numbers turned by an angle that grows with the place of the token (RoPE)."""
    n, _, size = a.shape
    angle = np.arange(n)[:, None, None] * base ** (-np.arange(0, size, 2) / size)
    return (np.ascontiguousarray(a, float).view(complex) * np.exp(1j * angle)).view(float)


def attention(q, k, v, before=np.inf):
    """What each token takes, and in which shares, from itself and so many tokens `before` it."""
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], axis=1) for a in (k, v))  # heads share them
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1])
    back = np.arange(len(q))[:, None] - np.arange(len(q))
    scores[:, (back < 0) | (back > before)] = -np.inf  # nobody sees what follows
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", shares, v), shares


if __name__ == "__main__":
    logits = forward(read(sys.argv[1]), [int(word) for word in sys.argv[2:]])["logits"][-1]
    for token in np.argsort(-logits)[:5]:
        print(token, round(float(logits[token]), 3))

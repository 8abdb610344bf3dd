"""A gemma3 in numpy: what it adds to the llama of docs/how-it-works/attention.py.

Norms after each part, normalized queries and keys, GELU, and layers that look back only a window.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "docs/how-it-works"))
import attention as llama

read = llama.read


def forward(model, tokens, off=(), state=None):
    """As attention.py's, for both kinds of model. `seen` has also what attention adds: "heads-N"
    (tokens, heads, width) by each head, their sum being what passes the norm."""
    facts, weight = model
    if facts["general.architecture"] == "llama":
        return llama.forward(model, tokens, off, state)
    fact = {name.removeprefix("gemma3."): value for name, value in facts.items()}
    eps, size = fact["attention.layer_norm_rms_epsilon"], fact["attention.key_length"]
    window, pattern = fact["attention.sliding_window"], fact["attention.sliding_window_pattern"]

    def norm(x, name):
        return llama.norm(x, eps) * weight(name)

    x = weight("token_embd")[tokens]
    x, seen = x * np.sqrt(x.shape[1]), {}
    for layer in range(fact["block_count"]):
        at, sliding = f"blk.{layer}.", layer % pattern < pattern - 1
        h = norm(x, at + "attn_norm")
        q, k, v = ((h @ weight(f"{at}attn_{i}").T).reshape(len(x), -1, size) for i in "qkv")
        base = 10000.0 if sliding else fact.get("rope.freq_base", 10000.0)
        q, k = (turned(norm(a, f"{at}attn_{i}_norm"), base) for a, i in ((q, "q"), (k, "k")))
        taken, seen[f"kq_soft_max-{layer}"] = llama.attention(
            q, k, v, before=window - 1 if sliding else np.inf
        )
        taken[:, [head for i, head in off if i == layer]] = 0
        out = weight(at + "attn_output").reshape(x.shape[1], -1, size)
        by_head = np.einsum("ihd,whd->ihw", taken, out)
        added = by_head.sum(1)
        scale = weight(at + "post_attention_norm") / np.sqrt((added**2).mean(-1) + eps)[:, None]
        seen[f"heads-{layer}"] = by_head * scale[:, None]
        x = x + added * scale
        h = norm(x, at + "ffn_norm")
        gate, up = h @ weight(at + "ffn_gate").T, h @ weight(at + "ffn_up").T
        x = x + norm((gelu(gate) * up) @ weight(at + "ffn_down").T, at + "post_ffw_norm")
        for token in (token for i, token in state or () if i == layer):
            x[token] = state[layer, token]
        seen[f"l_out-{layer}"] = x.copy()
    out = weight("output", "token_embd")
    return seen | {"logits": norm(x, "output_norm") @ out.T}


def turned(a, base):
    """As attention.py's, for pairs of number i and number i + half."""
    n, heads, size = a.shape
    pairs = a.reshape(n, heads, 2, size // 2).swapaxes(2, 3).reshape(a.shape)
    new = llama.turned(pairs, base)
    return new.reshape(n, heads, size // 2, 2).swapaxes(2, 3).reshape(a.shape)


def gelu(x):
    """As ggml has it: from a table of half-precision numbers."""
    x = x.astype(np.float16).astype(float)
    y = 0.5 * x * (1 + np.tanh(0.79788456080286535588 * x * (1 + 0.044715 * x * x)))
    return np.where(x >= 10, x, np.where(x <= -10, 0, y.astype(np.float16)))

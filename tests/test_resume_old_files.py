"""A log and a KV cache of an earlier lcp are resumed, and nothing is read again."""

import ctypes
import hashlib
import io
import json
import struct
from contextlib import closing
from datetime import datetime

import pytest

from lcp.chat.chat import Chat
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage, Request
from lcp.session.conversation import Conversation
from lcp.session.store import Store
from lcp.settings import Layers, Sampling, Settings
from lcp.terminal.screen import Screen

NAME = "20261122-0930-abcd"
SETTINGS = Settings(ctx_size=1024, threads=1)
QUESTION = "Tell me of the sea. " * 10


def old_log(fingerprint, reply):
    """The lines of a log as lcp 1.0 wrote them, not as today's Conversation would."""
    stats = {
        "prompt_tokens": 210, "reused": 0, "moved": 0, "read": 210, "reply_tokens": 12,
        "dropped_turns": 0, "ttft_s": 0.2, "read_s": 0.2, "decode_s": 0.4,
        "tokens_per_second": 27.5, "ctx_used": 222, "ctx_size": 1024,
    }  # fmt: skip
    events = [
        {"v": 1, "id": "aa", "parent": None, "at": "2026-11-22T09:30:00.000+00:00",
         "type": "begin", "created": "2026-11-22T09:30:00.000+00:00", "model": "tiny"},
        {"v": 1, "id": "bb", "parent": None, "at": "2026-11-22T09:30:01.000+00:00",
         "type": "user", "text": QUESTION},
        {"v": 1, "id": "cc", "parent": "bb", "at": "2026-11-22T09:30:02.000+00:00",
         "type": "answer", "text": reply.text, "tokens": reply.tokens, "fingerprint": fingerprint,
         "made_with": {"llama.cpp": "0.3.36", "kv_type": "f16", "flash_attn": "auto"},
         "ended": "length", "model": "tiny", "sampling": {"temp": 0.0, "top_k": 40},
         "seed": 5, "stats": stats},
    ]  # fmt: skip
    return "".join(json.dumps(event) + "\n" for event in events)


def old_state(fingerprint, state):
    """The bytes of a KV cache file: magic, header, blob, hash."""
    header = json.dumps(
        {"fingerprint": fingerprint, "tokens": state.tokens, "positions": state.positions}
    ).encode()
    blob = bytes((ctypes.c_uint8 * len(state.blob)).from_buffer(state.blob))
    body = b"lcpkv\x00\x01\n" + struct.pack("<Q", len(header)) + header
    body += struct.pack("<Q", len(blob)) + blob
    return body + hashlib.blake2b(body, digest_size=32).digest()


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_an_old_log_and_its_cache_are_resumed(tiny, tmp_path, kind):
    now = datetime.fromisoformat("2026-11-22T09:30:00+00:00")
    with LlamaEngine(tiny(kind), SETTINGS, now=now) as engine:
        engine.load().result()
        question = PromptMessage("user", QUESTION)
        reply = engine.reply(Request([question], Sampling(temp=0, seed=5), max_tokens=12))
        list(reply)
        context = engine._loaded.context
        keys = {"llama.cpp", "model", "kv_type", "flash_attn"}
        assert context.fingerprint.keys() == keys  # the keys on disk that must match
        fingerprint = context.fingerprint | {"swa_full": False}
        (tmp_path / f"{NAME}.kv").write_bytes(old_state(fingerprint, context.save()))
        (tmp_path / f"{NAME}.jsonl").write_text(old_log(context.fingerprint["model"], reply))
        held = len(context.tokens)

    log, events, _ = Store(tmp_path).open(NAME)
    conversation = Conversation.from_events(events)
    layers = Layers(flags={"temp": 0, "max_tokens": 4})
    engine = LlamaEngine(tiny(kind), SETTINGS, now=conversation.created)
    with log, closing(engine):
        screen = Screen(io.StringIO(), io.StringIO())
        chat = Chat(engine, conversation, log, screen, "tiny", layers)
        chat.load(log.path.with_suffix(".kv"))
        again = chat.ask("And the wind?")
        assert again.stats.reused >= held - 2
        assert again.stats.read < 60

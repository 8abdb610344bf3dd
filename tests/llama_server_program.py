"""llama-server: llama.cpp's own server and its own reader of command lines, out of the wheel
xllamacpp. It prints its address, and ends when its stdin is a pipe that closes."""

import ctypes
import os
import stat
import sys
import threading

import xllamacpp

HEAD = 16  # bytes of a Python object, before the llama.cpp struct that it has
SERVER_PROGRAM = 12  # llama.cpp: LLAMA_EXAMPLE_SERVER
# bool common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))
PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"


def parse(words: list[str]) -> xllamacpp.CommonParams:
    """Parse a command line and the environment with llama.cpp."""
    params = xllamacpp.CommonParams()
    given = [os.fsencode(word) for word in ("llama-server", *words)]
    array = (ctypes.c_char_p * (len(given) + 1))(*given, None)
    parser = ctypes.CDLL(xllamacpp.xllamacpp.__file__)[PARSE]
    parser.restype = ctypes.c_bool
    if not parser(len(given), array, ctypes.c_void_p(id(params) + HEAD), SERVER_PROGRAM, None):
        sys.exit(1)  # llama.cpp has said why
    return params


if __name__ == "__main__":
    server = xllamacpp.Server(parse(sys.argv[1:]))
    print(server.listening_address, flush=True)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        sys.stdin.read()  # until the process that started it has ended
    else:
        threading.Event().wait()

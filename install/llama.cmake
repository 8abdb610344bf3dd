# The parts of llama.cpp that lcp does not load: its `common` library with an HTTP client, and the
# multimodal library. They are most of the compile time (python -m bench.setup measures it).
# CMake reads this file after project(), so these variables win over llama-cpp-python's own settings.
# A later feature that needs the multimodal library: make LLAVA_BUILD an option here.
set(LLAMA_BUILD_COMMON OFF)
set(LLAVA_BUILD OFF)

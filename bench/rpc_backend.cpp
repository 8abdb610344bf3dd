// The RPC backend, for programs that are linked against a ggml without it: it registers itself when
// the library is loaded.
#include "ggml-backend-impl.h"
#include "ggml-rpc.h"

static const bool registered = (ggml_backend_register(ggml_backend_rpc_reg()), true);

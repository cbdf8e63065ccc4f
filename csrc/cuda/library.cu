// How the CUDA library, which Python does not import but opens, registers its operators.

#include "host/register.h"

// In a namespace of torch.ops that has the schemas; whether they are there now.
extern "C" __attribute__((visibility("default"))) bool geokernels_register(const char* name) {
  return geokernels::register_operators(name);
}

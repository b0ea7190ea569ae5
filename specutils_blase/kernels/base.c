/* The kernels for any processor. */
#define TARGET base_target
#define TARGET_NAME "base"
#include "target.h"

/* The kernels for x86 with AVX2 and fused multiply-add. */
#include "argument.h"
#ifdef X86_TARGETS
#pragma GCC target("avx2,fma,bmi,bmi2")
#define TARGET avx2_target
#define TARGET_NAME "avx2"
#include "target.h"
#endif

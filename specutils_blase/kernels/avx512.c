/* The kernels for x86 with AVX-512. */
#include "argument.h"
#ifdef X86_TARGETS
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512dq,avx512vl,avx512bw,avx512cd,prefer-vector-width=512")
#define TARGET avx512_target
#define TARGET_NAME "avx512"
#include "target.h"
#endif

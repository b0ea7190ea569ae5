/* What the kernels are given: the arguments of a call from Python, arrays with their shapes and numbers. */
#ifndef SPECUTILS_BLASE_ARGUMENT_H
#define SPECUTILS_BLASE_ARGUMENT_H

#include <stdint.h>

typedef int64_t Int;

typedef struct {
    union {
        double *d;        /* kinds 'd' and 'D': array of float64, read or written */
        float *s;         /* kinds 's' and 'S': array of float32 */
        const Int *n;     /* kind 'n': array of int64 */
        const uint8_t *b; /* kind 'b': array of bool */
        Int i;            /* kind 'i': a number */
        double f;         /* kind 'f' */
    };
    Int shape[3]; /* of an array of up to three dimensions; 1 for those it lacks */
} Argument;

/* Every kernel: what it returns is DONE, or what went wrong. */
enum { DONE, NOT_DEFINITE, NOT_INSIDE, NO_MEMORY };

typedef int Kernel(const Argument *);

/* Name and the kinds of the arguments of every kernel. */
#define KERNELS(X)                             \
    X(depth_lines, "dddddnniiD")               \
    X(product_lines, "dddddnniiD")             \
    X(terms_lines, "dddddnnnnddbiiD")          \
    X(project_lines, "dddddnndbiiD")           \
    X(integrate, "dddiddiiD")                  \
    X(add_multilevel, "ddddddddnnddfiiD")      \
    X(far_series, "dfffD")                     \
    X(continuation, "ddfD")                    \
    X(add_interpolated, "ddffiiD")             \
    X(multiply, "DnDD")                        \
    X(banded_cholesky, "Dn")                   \
    X(forward_substitute, "dnD")               \
    X(back_substitute, "dnD")                  \
    X(selected_inverse, "dnD")                 \
    X(subtract_products, "Dndd")               \
    X(group_sums, "dndddndnDDD")               \
    X(products, "dD")                          \
    X(gram_rows, "dD")                         \
    X(gram_columns, "dnnnnnniinD")             \
    X(project_columns, "dnnndiiD")             \
    X(border_columns, "dnnnndiiD")             \
    X(part_border, "dnnnndniiiD")              \
    X(part_project, "dndD")                    \
    X(part_products, "dnD")                    \
    X(push, "dnnnbddddnnddnnniiD")             \
    X(response_multiply, "nnddD")              \
    X(response_adjoint, "nnddD")               \
    X(sparse_multiply, "nnddD")                \
    X(gaussian_pixels, "dfdddnnnndiiD")        \
    X(add_members, "dnnnnD")                   \
    X(line_widths, "sssssssssssssnsiifS")

#define DECLARE(name, kinds) name##_kernel,
enum { KERNELS(DECLARE) N_KERNELS };
#undef DECLARE

/* The same source, compiled for several kinds of processor. */
typedef struct {
    const char *name;
    Kernel *kernel[N_KERNELS];
} Target;

extern const Target base_target;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define X86_TARGETS
extern const Target avx2_target, avx512_target;
#endif

/* Constants that Python's side needs too. */
#define PAD 8                  /* work arrays are longer than a line by so many pixels: it is worked on in whole vectors */
#define TILE 4                 /* tiles of banded matrices are so large */
#define MAX_DEPTH (1.0 - 1e-6) /* a product-form line may not absorb more than this */
#define POWERS 11              /* powers, terms and derivatives of the series of far wings (multilevel.h) */
#define TERMS 6
#define DERIVATIVES 6
#define MOST_PANELS 24 /* of a quadrature of an equivalent width */
#define ERF_NODES 64   /* table of the error function: nodes per unit, terms, and where it is 1 to rounding */
#define ERF_TERMS 8
#define ERF_END 6

#endif

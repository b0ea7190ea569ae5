/* What a network says of the widths of emission lines (Python's line_network.py and widths.py), in single precision. */

#define GALAXIES 64 /* that are worked on together: a layer of them stays in the cache */
#define UNITS 8     /* of a layer that are summed at once, in registers */

/* So many numbers as one register of the processor holds; one, where the compiler has no vectors. */
#if defined(__GNUC__)
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#else
#define LANES 1
typedef float Lanes;
#endif

/* e**x for -87 < x < 88: a power of two and the polynomial of Cephes' expf (Moshier). Good to 3e-7, or to 4e-6 without
   fused multiply-add, for the compiler may add in another order. */
static inline float exponential(float x)
{
    const float turns = x * 1.44269504f;
    const int32_t k = (int32_t)(turns + copysignf(0.5f, turns));
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f, p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f, p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const union { int32_t bits; float value; } power = {(k + 127) << 23};
    return p * power.value;
}

/* Every number between two limits, for which a loop of its own is the faster. */
APART void limit(Int n, float low, float high, float *restrict x)
{
    for (Int i = 0; i < n; i++)
        x[i] = x[i] < low ? low : x[i];
    for (Int i = 0; i < n; i++)
        x[i] = x[i] > high ? high : x[i];
}

/* One layer: `out` (n_out, GALAXIES) from `in` (n_in, GALAXIES). Vectors are written out, because only then do the sums
   stay in registers. */
APART void layer(Int n_in, Int n_out, const float *restrict weight, const float *restrict bias,
                 const float *restrict in, float *restrict out)
{
    const Lanes zero = {0};
    const Int row = GALAXIES / LANES, whole = n_out - n_out % UNITS;
    for (Int j = 0; j < whole; j += UNITS)
        for (Int i = 0; i < row; i++) {
            const float *b = bias + j, *w = weight + j;
            const Lanes *x = (const Lanes *)in + i;
            Lanes s0 = zero + b[0], s1 = zero + b[1], s2 = zero + b[2], s3 = zero + b[3];
            Lanes s4 = zero + b[4], s5 = zero + b[5], s6 = zero + b[6], s7 = zero + b[7];
            for (Int k = 0; k < n_in; k++, w += n_out) {
                const Lanes v = x[k * row];
                s0 += w[0] * v, s1 += w[1] * v, s2 += w[2] * v, s3 += w[3] * v;
                s4 += w[4] * v, s5 += w[5] * v, s6 += w[6] * v, s7 += w[7] * v;
            }
            Lanes *to = (Lanes *)out + j * row + i;
            to[0] = s0, to[row] = s1, to[2 * row] = s2, to[3 * row] = s3;
            to[4 * row] = s4, to[5 * row] = s5, to[6 * row] = s6, to[7 * row] = s7;
        }
    for (Int j = whole; j < n_out; j++)
        for (Int i = 0; i < row; i++) {
            Lanes s = zero + bias[j];
            for (Int k = 0; k < n_in; k++)
                s += weight[k * n_out + j] * ((const Lanes *)in)[k * row + i];
            ((Lanes *)out)[j * row + i] = s;
        }
}

/* x / (1 + exp(-x)) of all numbers; `held` is scratch of their size. */
APART void activate(Int n, float *restrict x, float *restrict held)
{
    for (Int i = 0; i < n; i++)
        held[i] = x[i];
    limit(n, -80.0f, 80.0f, held);
    for (Int i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + exponential(-held[i]));
}

/* Four numbers of a line, m, ln g, e and ln d, the last three with a shift that is interpolated in the first, to what
   widths take: m, 2 g / d, tanh(d e), d. */
APART void shape_line(float *restrict x, const float *restrict level, const float *restrict shift, Int n_knots)
{
    float *m = x, *ln_g = x + GALAXIES, *e = x + 2 * GALAXIES, *ln_d = x + 3 * GALAXIES, at[GALAXIES];
    for (Int i = 0; i < GALAXIES; i++)
        at[i] = (m[i] - level[0]) * level[1];
    limit(GALAXIES, 0.0f, (float)(n_knots - 1), at);
    for (Int k = 0; k < n_knots; k++, shift += 4)
        for (Int i = 0; i < GALAXIES; i++) {
            const float away = 1.0f - fabsf(at[i] - (float)k), hat = away > 0.0f ? away : 0.0f;
            ln_g[i] += hat * shift[0], e[i] += hat * shift[1], ln_d[i] += hat * shift[2];
        }
    limit(GALAXIES, -10.0f, 8.0f, m), limit(GALAXIES, -4.0f, 1.5f, ln_g);
    limit(GALAXIES, -3.0f, 3.0f, e), limit(GALAXIES, -3.0f, 3.0f, ln_d);
    for (Int i = 0; i < GALAXIES; i++) {
        const float d = exponential(0.3f * ln_d[i]);
        m[i] += level[2], ln_g[i] = 2.0f * exponential(ln_g[i] - 0.3f) / d;
        e[i] = 1.0f - 2.0f / (1.0f + exponential(d * e[i])), ln_d[i] = d;
    }
}

/* Widths at the standard normal number z of which `half` is arcsinh(z) / 2: `log_width` of widths.py, its
   2 sinh(h) cosh(h + d e) / cosh(d e) as 2 sinh(h) [cosh(h) + sinh(h) tanh(d e)], with h = d arcsinh(z) / 2. */
APART void width_line(const float *restrict x, float half, float *restrict out)
{
    const float *m = x, *factor = x + GALAXIES, *skew = x + 2 * GALAXIES, *d = x + 3 * GALAXIES;
    for (Int i = 0; i < GALAXIES; i++) {
        const float grown = exponential(half * d[i]), s = 0.5f * (grown - 1.0f / grown);
        out[i] = m[i] + factor[i] * s * (0.5f * (grown + 1.0f / grown) + s * skew[i]);
    }
    limit(GALAXIES, -87.0f, 88.0f, out);
    for (Int i = 0; i < GALAXIES; i++)
        out[i] = exponential(out[i]);
}

/* True widths of galaxies first..last, into `out` (n_z, n_lines, n). The arguments are those of the network: inputs
   (n, n_inputs), their center and spread (2, n_inputs), weights and biases of four layers, for each line that is tied
   to no other (level of the first knot, knots per unit, ln of the scale), (n_free, 3), and shifts (n_free, n_knots, 4);
   halves of arcsinh(z); for every line its place among those, and a factor. */
static int line_widths(const Argument *a)
{
    const Int n = a[0].shape[0], n_inputs = a[0].shape[1], width = a[2].shape[1], n_free = a[10].shape[0];
    const Int n_knots = a[11].shape[1], n_z = a[12].shape[0], n_lines = a[13].shape[0];
    const Int most = n_inputs > width ? n_inputs : width;
    const Int *place = a[13].n, first = a[15].i, last = a[16].i;
    const float *inputs = a[0].s, *center = a[1].s, *spread = center + n_inputs;
    const float reach = (float)a[17].f;
    const Int sizes[5] = {n_inputs, width, width, width, 4 * n_free};
    float *const scratch = malloc((2 * most + width + 4 * n_free + n_free) * GALAXIES * sizeof(float));
    if (!scratch)
        return NO_MEMORY;
    float *x = scratch, *y = x + most * GALAXIES, *held = y + most * GALAXIES, *numbers = held + width * GALAXIES;
    float *widths = numbers + 4 * n_free * GALAXIES;
    for (Int start = first; start < last; start += GALAXIES) {
        const Int count = last - start < GALAXIES ? last - start : GALAXIES;
        for (Int k = 0; k < n_inputs; k++)
            for (Int i = 0; i < GALAXIES; i++)
                x[k * GALAXIES + i] = (inputs[(start + (i < count ? i : 0)) * n_inputs + k] - center[k]) / spread[k];
        limit(n_inputs * GALAXIES, -reach, reach, x);
        for (int l = 0; l < 4; l++) {
            layer(sizes[l], sizes[l + 1], a[2 + 2 * l].s, a[3 + 2 * l].s, x, l < 3 ? y : numbers);
            if (l < 3)
                activate(width * GALAXIES, y, held);
            float *swap = x;
            x = y, y = swap;
        }
        for (Int j = 0; j < n_free; j++)
            shape_line(numbers + 4 * j * GALAXIES, a[10].s + 3 * j, a[11].s + 4 * n_knots * j, n_knots);
        for (Int q = 0; q < n_z; q++) {
            for (Int j = 0; j < n_free; j++)
                width_line(numbers + 4 * j * GALAXIES, a[12].s[q], widths + j * GALAXIES);
            for (Int j = 0; j < n_lines; j++)
                for (Int i = 0; i < count; i++)
                    a[18].s[(q * n_lines + j) * n + start + i] = a[14].s[j] * widths[place[j] * GALAXIES + i];
        }
    }
    free(scratch);
    return DONE;
}

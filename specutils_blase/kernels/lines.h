/* Many Voigt lines, each on its own window of pixels lo..hi; those from `first` to `last`. */

static const double UNIT[4] = {1.0, 1.0, 1.0, 1.0};

/* Length of the work arrays for lines first..last. */
static Int longest(const Int *lo, const Int *hi, Int first, Int last)
{
    Int most = 0;
    for (Int j = first; j < last; j++)
        if (hi[j] - lo[j] > most)
            most = hi[j] - lo[j];
    return most + PAD;
}

/* Sum of the optical depths, added to `tau`. */
static int depth_lines(const Argument *a)
{
    const double *wave = a[0].d, *center = a[1].d, *strength = a[2].d, *sigma = a[3].d, *gamma = a[4].d;
    const Int *lo = a[5].n, *hi = a[6].n, first = a[7].i, last = a[8].i, size = longest(lo, hi, first, last);
    double *tau = a[9].d, *x = malloc(3 * size * sizeof(double)), *value = x + size;
    if (!x)
        return NO_MEMORY;
    for (Int j = first; j < last; j++) {
        value_line(wave, lo[j], hi[j], center[j], sigma[j], gamma[j], x, value, value + size);
        for (Int i = lo[j]; i < hi[j]; i++)
            tau[i] += strength[j] * value[i - lo[j]];
    }
    free(x);
    return DONE;
}

/* `out` times the product of (1 - tau_j), clipped at 0. */
static int product_lines(const Argument *a)
{
    const double *wave = a[0].d, *center = a[1].d, *strength = a[2].d, *sigma = a[3].d, *gamma = a[4].d;
    const Int *lo = a[5].n, *hi = a[6].n, first = a[7].i, last = a[8].i, size = longest(lo, hi, first, last);
    double *out = a[9].d, *x = malloc(3 * size * sizeof(double)), *value = x + size;
    if (!x)
        return NO_MEMORY;
    for (Int j = first; j < last; j++) {
        value_line(wave, lo[j], hi[j], center[j], sigma[j], gamma[j], x, value, value + size);
        for (Int i = lo[j]; i < hi[j]; i++) {
            const double left = 1.0 - strength[j] * value[i - lo[j]];
            out[i] *= left < 0.0 ? 0.0 : left; /* a NaN stays one */
        }
    }
    free(x);
    return DONE;
}

/* Terms of tau, computed with a factor of one, as those of -ln(1 - tau), times factor. */
static void divide_product(Int n, const double *restrict factor, double *const t[4])
{
    double *restrict t0 = t[0], *restrict t1 = t[1], *restrict t2 = t[2], *restrict t3 = t[3];
    for (Int i = 0; i < n; i++) {
        const double by = factor[i] / (1.0 - (t0[i] > MAX_DEPTH ? MAX_DEPTH : t0[i]));
        t0[i] *= by, t1[i] *= by, t2[i] *= by, t3[i] *= by;
    }
}

/* tau_j and its derivatives, flat: those that have a `row` (not -1) in `out` (n_rows, n); see Python's `line_terms`. */
static int terms_lines(const Argument *a)
{
    const double *wave = a[0].d, *center = a[1].d, *strength = a[2].d, *sigma = a[3].d, *gamma = a[4].d;
    const Int *lo = a[5].n, *hi = a[6].n, *offset = a[7].n, *row = a[8].n;
    const double *factor = a[9].d, *weight = a[10].d;
    const uint8_t *product = a[11].b;
    const Int first = a[12].i, last = a[13].i, n_lines = a[10].shape[1], width = a[14].shape[1];
    const Int size = longest(lo, hi, first, last);
    double *out = a[14].d, *x = malloc(6 * size * sizeof(double)), *one = x + size, *t[4];
    if (!x)
        return NO_MEMORY;
    for (Int i = 0; i < size; i++)
        one[i] = 1.0;
    for (Int j = first; j < last; j++) {
        double w[4];
        for (int k = 0; k < 4; k++) {
            t[k] = row[k] < 0 ? x + (2 + k) * size : out + row[k] * width + offset[j];
            w[k] = weight[k * n_lines + j];
        }
        const Int n = hi[j] - lo[j];
        terms_line(wave, lo[j], hi[j], center[j], strength[j], sigma[j], gamma[j], product[j] ? one : factor + lo[j],
                   product[j] ? UNIT : w, x, t);
        if (product[j]) {
            divide_product(n, factor + lo[j], t);
            for (int k = 0; k < 4; k++)
                for (Int i = 0; i < n; i++)
                    t[k][i] *= w[k];
        }
    }
    free(x);
    return DONE;
}

/* Sums of the terms times `vector`, which is longer than the pixels by PAD, into `out` (4, n_lines). */
static int project_lines(const Argument *a)
{
    const double *wave = a[0].d, *center = a[1].d, *strength = a[2].d, *sigma = a[3].d, *gamma = a[4].d;
    const Int *lo = a[5].n, *hi = a[6].n;
    const double *vector = a[7].d;
    const uint8_t *product = a[8].b;
    const Int first = a[9].i, last = a[10].i, n_lines = a[11].shape[1], size = longest(lo, hi, first, last);
    double *out = a[11].d, *x = malloc(6 * size * sizeof(double)), *one = x + size;
    if (!x)
        return NO_MEMORY;
    double *const t[4] = {x + 2 * size, x + 3 * size, x + 4 * size, x + 5 * size};
    for (Int i = 0; i < size; i++)
        one[i] = 1.0;
    for (Int j = first; j < last; j++) {
        const Int n = hi[j] - lo[j];
        terms_line(wave, lo[j], hi[j], center[j], strength[j], sigma[j], gamma[j], product[j] ? one : vector + lo[j],
                   UNIT, x, t);
        if (product[j])
            divide_product(n, vector + lo[j], t);
        for (int k = 0; k < 4; k++) {
            double total = 0.0;
            for (Int i = 0; i < n; i++)
                total += t[k][i];
            out[k * n_lines + j] = total;
        }
    }
    free(x);
    return DONE;
}

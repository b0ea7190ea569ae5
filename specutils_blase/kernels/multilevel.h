/* Lines whose wings reach far, on grids that get coarser outwards; Python's multilevel.py says how. */

/* Error of the interpolation of A/x^2 continued inside W: CONTINUATION (h/W)^6 A/W^2 (measured for six points). */
#define CONTINUATION 100.0
/* The series is used for |z|^2 above FAR; its first missing term is MISSING |z|^-12 of the leading one. */
#define FAR_FROM 36.0
#define MISSING (13.0 * 10395.0 / 64.0)

/* Coefficients b of tau = sum_n b[n] r^-(n + 1), r = dx^2 + gamma^2 [Angstrom^2], far from the centre. */
static void series_of(const double *table, double strength, double sigma, double gamma, double *series)
{
    const double square = 2.0 * sigma * sigma, ratio = gamma * gamma / square;
    double power = strength * gamma / PI;
    for (int n = 0; n < POWERS; n++) {
        double total = 0.0, factor = 1.0;
        for (int k = 0; k < TERMS; k++) {
            total += table[n * TERMS + k] * factor;
            factor *= ratio;
        }
        series[n] = power * total;
        power *= square;
    }
}

/* Coefficients p of sum_j p[j] (1 - r/radius)^j, which continues the series with five derivatives. */
static void continue_inside(const double *binomial, const double *series, double radius, double *polynomial)
{
    for (int j = 0; j < DERIVATIVES; j++)
        polynomial[j] = 0.0;
    double power = 1.0 / radius;
    for (int n = 0; n < POWERS; n++) {
        for (int j = 0; j < DERIVATIVES; j++)
            polynomial[j] += series[n] * power * binomial[n * DERIVATIVES + j];
        power /= radius;
    }
}

static inline double horner(const double p[DERIVATIVES], double s)
{
    return ((((p[5] * s + p[4]) * s + p[3]) * s + p[2]) * s + p[1]) * s + p[0];
}

/* out[first..last] += the series at dx = x + i step. */
APART void add_series(Int first, Int last, double x, double step, double gamma, const double *b, double *restrict out)
{
    const double square = gamma * gamma, b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3], b4 = b[4], b5 = b[5], b6 = b[6],
                 b7 = b[7], b8 = b[8], b9 = b[9], b10 = b[10];
    for (Int i = first; i < last; i++) {
        const double dx = x + i * step, rho = 1.0 / (dx * dx + square);
        const double far = ((((b10 * rho + b9) * rho + b8) * rho + b7) * rho + b6) * rho + b5;
        out[i] += (((((far * rho + b4) * rho + b3) * rho + b2) * rho + b1) * rho + b0) * rho;
    }
}

/* out[first..last] += sign times the continuation at dx = x + i step. */
APART void add_polynomial(Int first, Int last, double x, double step, double gamma, double radius, const double *p,
                          double sign, double *restrict out)
{
    const double own[DERIVATIVES] = {p[0], p[1], p[2], p[3], p[4], p[5]};
    const double top = 1.0 - gamma * gamma / radius, inverse = 1.0 / radius;
    for (Int i = first; i < last; i++) {
        const double dx = x + i * step;
        out[i] += sign * horner(own, top - dx * dx * inverse);
    }
}

static int far_series(const Argument *a)
{
    series_of(a[0].d, a[1].f, a[2].f, a[3].f, a[4].d);
    return DONE;
}

static int continuation(const Argument *a)
{
    continue_inside(a[0].d, a[1].d, a[2].f, a[3].d);
    return DONE;
}

/* r = dx^2 + gamma^2 [Angstrom^2] beyond which the series gives the line to within `error`. */
static double far_radius(double strength, double sigma, double gamma, double error)
{
    const double square = 2.0 * sigma * sigma, head = MISSING * fabs(strength) * gamma / PI / error;
    return fmax(FAR_FROM * square, pow(square, 6.0 / 7.0) * pow(head, 1.0 / 7.0));
}

/* r beyond which, besides, a grid of this spacing resolves the line to within `error`. */
static double resolved_radius(double strength, double gamma, double spacing, double far, double error)
{
    const double square = spacing * spacing;
    const double head = CONTINUATION * fabs(strength) * gamma / PI / error * square * square * square;
    return fmax(fmax(sqrt(sqrt(head)), far), 16.0 * square);
}

/* Index of the first grid point that is not below `position`, within 0..size. */
static Int grid_index(double position, double start, double step, Int size)
{
    const double at = ceil((position - start) / step);
    return at > 0.0 ? (at < (double)size ? (Int)at : size) : 0;
}

/* What of one line lies outside `cut`, on every level of grids. */
static void add_one(const double *binomial, const double *series, double s, double g, double c, double end, double cut,
                    double radius, double far, double error, const double *start, const double *step, const Int *size,
                    const Int *offset, Int n_levels, double *outer, double *out)
{
    for (Int level = 0; level < n_levels; level++) {
        double inner[DERIVATIVES];
        for (int j = 0; j < DERIVATIVES; j++)
            inner[j] = outer[j];
        const double inside = cut, radius_inside = radius, h = step[level], origin = start[level] - c;
        int is_last = 1;
        cut = end;
        if (level + 1 < n_levels) {
            radius = resolved_radius(s, g, step[level + 1], far, error);
            cut = sqrt(fmax(radius - g * g, 0.0));
            is_last = cut >= end;
        }
        const double border = is_last ? end : cut;
        const Int i0 = grid_index(c - border, start[level], h, size[level]);
        const Int i1 = grid_index(c - inside, start[level], h, size[level]);
        const Int i2 = grid_index(c + inside, start[level], h, size[level]);
        const Int i3 = grid_index(c + border, start[level], h, size[level]);
        double *own = out + offset[level];
        add_series(i0, i1, origin, h, g, series, own);
        add_polynomial(i0 > i1 ? i0 : i1, i2 < i3 ? i2 : i3, origin, h, g, radius_inside, inner, 1.0, own);
        add_series(i2, i3, origin, h, g, series, own);
        if (is_last)
            break;
        continue_inside(binomial, series, radius, outer);
        add_polynomial(i0, i3, origin, h, g, radius, outer, -1.0, own);
    }
}

/* Lines first..last, near the centre on the pixels and farther out on the levels' grids. */
static int add_multilevel(const Argument *a)
{
    const double *wave = a[0].d, *center = a[1].d, *strength = a[2].d, *sigma = a[3].d, *gamma = a[4].d, *reach = a[5].d;
    const double *start = a[6].d, *step = a[7].d;
    const Int *size = a[8].n, *offset = a[9].n;
    const double *table = a[10].d, *binomial = a[11].d, error = a[12].f;
    const Int first = a[13].i, last = a[14].i, n_pix = a[0].shape[0], n_levels = a[7].shape[0];
    double *out = a[15].d, *x = malloc(3 * (n_pix + PAD) * sizeof(double)), *value = x + n_pix + PAD;
    if (!x)
        return NO_MEMORY;
    for (Int j = first; j < last; j++) {
        const double s = strength[j], w = sigma[j], g = gamma[j], c = center[j], end = reach[j];
        const double far = far_radius(s, w, g, error);
        const double radius = n_levels ? resolved_radius(s, g, step[0], far, error) : INFINITY;
        const double cut = sqrt(fmax(radius - g * g, 0.0)), near = fmin(cut, end);
        const Int lo = first_above(wave, 0, n_pix, c - near), hi = first_above(wave, 0, n_pix, c + near);
        value_line(wave, lo, hi, c, w, g, x, value, value + n_pix + PAD);
        for (Int i = lo; i < hi; i++)
            out[i] += s * value[i - lo];
        if (cut >= end)
            continue;
        double series[POWERS], outer[DERIVATIVES];
        series_of(table, s, w, g, series);
        continue_inside(binomial, series, radius, outer);
        for (Int i = lo; i < hi; i++) {
            const double dx = wave[i] - c;
            out[i] -= horner(outer, 1.0 - (dx * dx + g * g) / radius);
        }
        add_one(binomial, series, s, g, c, end, cut, radius, far, error, start, step, size, offset, n_levels, outer, out);
    }
    free(x);
    return DONE;
}

/* out += coarse, which has spacing `step` from `start`, at points first..last: Lagrange's formula, six samples. */
static int add_interpolated(const Argument *a)
{
    const double *restrict points = a[0].d, *restrict coarse = a[1].d, start = a[2].f, inverse = 1.0 / a[3].f;
    double *restrict out = a[6].d;
    for (Int i = a[4].i; i < a[5].i; i++) {
        const double at = (points[i] - start) * inverse;
        const Int k = (Int)at;
        const double t = at - k, p = t + 2.0, b = t + 1.0, c = t - 1.0, d = t - 2.0, e = t - 3.0;
        const double pb = p * b, de = d * e, bt = b * t, cd = c * d;
        const double *v = coarse + k;
        out[i] += -v[-2] * bt * c * de / 120.0 + v[-1] * p * t * c * de / 24.0 - v[0] * pb * c * de / 12.0
            + v[1] * pb * t * de / 12.0 - v[2] * pb * t * c * e / 24.0 + v[3] * pb * t * cd / 120.0;
    }
    return DONE;
}

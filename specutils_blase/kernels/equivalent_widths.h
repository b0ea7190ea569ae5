/* Equivalent widths by quadrature; Python's equivalent_widths.py says how. */

/* Panels of an unsaturated line, and more for every factor e of its optical depth. */
#define PANELS 2
#define MORE_PANELS 0.85
/* exp(-GAUSSIAN_END) of the Gaussian's optical depth is nothing; so many gamma are far out in the Lorentzian. */
#define GAUSSIAN_END 40.0
#define LORENTZIAN_END 3.0
#define BISECTIONS 60

/* Where strength V falls to 1, between 0 and end [Angstrom]. */
static double edge(double strength, double sigma, double gamma, double end, double *x, double *value, double *scratch)
{
    double inner = 0.0, outer = end;
    for (int k = 0; k < BISECTIONS; k++) {
        const double point = 0.5 * (inner + outer);
        value_line(&point, 0, 1, 0.0, sigma, gamma, x, value, scratch);
        if (strength * value[0] > 1.0)
            inner = point;
        else
            outer = point;
    }
    return 0.5 * (inner + outer);
}

/* Nodes and weights of the integral from `first` to infinity [Angstrom]; returns how many. */
static Int place_nodes(const double *node, const double *weight, Int n_nodes, double first, double scale, double end,
                       Int n_panels, double *point, double *share)
{
    const double inner = asinh(first / scale), step = (asinh(end / scale) - inner) / n_panels;
    Int k = 0;
    for (Int panel = 0; panel < n_panels; panel++)
        for (Int i = 0; i < n_nodes; i++, k++) {
            const double growth = exp(inner + (panel + node[i]) * step);
            point[k] = 0.5 * scale * (growth - 1.0 / growth);
            share[k] = 0.5 * scale * (growth + 1.0 / growth) * step * weight[i];
        }
    for (Int i = n_nodes - 1; i >= 0; i--, k++) {
        point[k] = end / node[i];
        share[k] = weight[i] * end / (node[i] * node[i]);
    }
    return k;
}

/* Width and its three logarithmic derivatives of lines first..last, into `out` (4, n_lines). */
static int integrate(const Argument *a)
{
    const double *strength = a[0].d, *sigma = a[1].d, *gamma = a[2].d, *node = a[4].d, *weight = a[5].d;
    const Int is_product = a[3].i, n_nodes = a[4].shape[0], first = a[6].i, last = a[7].i, n_lines = a[8].shape[1];
    const Int size = (MOST_PANELS + 1) * n_nodes + PAD;
    double *out = a[8].d, *point = malloc(8 * size * sizeof(double)), *share = point + size, *x = share + size;
    if (!point)
        return NO_MEMORY;
    double *one = x + size, *const t[4] = {one + size, one + 2 * size, one + 3 * size, one + 4 * size};
    for (Int i = 0; i < size; i++)
        one[i] = 1.0;
    for (Int j = first; j < last; j++) {
        const double s = strength[j], w = sigma[j], g = gamma[j];
        point[0] = 0.0;
        value_line(point, 0, 1, 0.0, w, g, x, t[0], t[1]);
        const double depth = s * t[0][0], saturation = log(fmax(fabs(depth), 1.0));
        const Int n_panels = (Int)fmin(PANELS + ceil(MORE_PANELS * saturation), MOST_PANELS);
        const double gaussian = w * sqrt(2.0 * (GAUSSIAN_END + saturation));
        const double end = fmax(fmax(gaussian, LORENTZIAN_END * g), 2.0 * sqrt(fabs(s) * g / PI));
        const double black = is_product && depth > 1.0 ? edge(s, w, g, end, x, t[0], t[1]) : 0.0;
        const Int n = place_nodes(node, weight, n_nodes, black, 3.0 * (SQRT2 * w + g), end, n_panels, point, share);
        terms_line(point, 0, n, 0.0, s, w, g, one, UNIT, x, t);
        double width = black, d_strength = 0.0, d_sigma = 0.0, d_gamma = 0.0;
        for (Int i = 0; i < n; i++) {
            const double tau = t[0][i], dark = is_product ? share[i] : share[i] * exp(-tau);
            width += share[i] * (is_product ? tau : -expm1(-tau));
            d_strength += dark * tau;
            d_sigma += dark * t[1][i];
            d_gamma += dark * t[2][i];
        }
        out[j] = 2.0 * width, out[n_lines + j] = 2.0 * d_strength;
        out[2 * n_lines + j] = 2.0 * d_sigma, out[3 * n_lines + j] = 2.0 * d_gamma;
    }
    free(point);
    return DONE;
}

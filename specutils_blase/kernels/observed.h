/* From the lines' grid to the pixels: rotation, tellurics, line spread function and pixels as a sparse matrix. */

/* Carry the derivatives of lines first..last from the grid through rotation, tellurics, response and continuum. */
static int push(const Argument *a)
{
    const double *columns = a[0].d;
    const Int *offset = a[1].n, *lo = a[2].n, *hi = a[3].n;
    const uint8_t *is_star = a[4].b;
    const double *kernel = a[5].d, *star = a[6].d, *telluric = a[7].d, *flux = a[8].d;
    const Int *start = a[9].n, *pointer = a[10].n;
    const double *values = a[11].d, *level = a[12].d;
    const Int *p_lo = a[13].n, *p_hi = a[14].n, *p_offset = a[15].n, first = a[16].i, last = a[17].i;
    const Int q = a[0].shape[0], width = a[0].shape[1], n_grid = a[7].shape[0], taps = a[5].shape[0];
    const Int out_width = a[18].shape[1], size = longest(lo, hi, first, last) + taps;
    double *out = a[18].d, *work = malloc(q * size * sizeof(double));
    if (!work)
        return NO_MEMORY;
    for (Int j = first; j < last; j++) {
        const Int n = hi[j] - lo[j];
        Int begin = lo[j], end = hi[j];
        if (is_star[j]) { /* the ends are not continued: a line at the very end of the grid is outside the pixels */
            begin -= taps / 2, end = begin + n + taps - 1;
            for (Int c = 0; c < q; c++) {
                double *own = work + c * size;
                for (Int i = 0; i < end - begin; i++)
                    own[i] = 0.0;
                for (Int i = 0; i < n; i++) {
                    const double value = columns[c * width + offset[j] + i] * star[lo[j] + i];
                    for (Int k = 0; k < taps; k++)
                        own[i + k] += value * kernel[k];
                }
                for (Int g = begin; g < end; g++)
                    own[g - begin] *= g >= 0 && g < n_grid ? telluric[g] : 0.0;
            }
        } else {
            for (Int c = 0; c < q; c++)
                for (Int i = 0; i < n; i++)
                    work[c * size + i] = columns[c * width + offset[j] + i] * flux[lo[j] + i];
        }
        for (Int p = p_lo[j]; p < p_hi[j]; p++) {
            const Int left = greatest(start[p], begin), right = least(start[p] + pointer[p + 1] - pointer[p], end);
            const double *own = values + pointer[p] - start[p];
            for (Int c = 0; c < q; c++) {
                const double *seen = work + c * size - begin;
                double total = 0.0;
                for (Int g = left; g < right; g++)
                    total += own[g] * seen[g];
                out[c * out_width + p_offset[j] + p - p_lo[j]] = total * level[p];
            }
        }
    }
    free(work);
    return DONE;
}

static int response_multiply(const Argument *a)
{
    const Int *start = a[0].n, *pointer = a[1].n;
    const double *values = a[2].d, *flux = a[3].d;
    for (Int p = 0; p < a[0].shape[0]; p++) {
        const double *own = values + pointer[p], *seen = flux + start[p];
        double total = 0.0;
        for (Int i = 0; i < pointer[p + 1] - pointer[p]; i++)
            total += own[i] * seen[i];
        a[4].d[p] = total;
    }
    return DONE;
}

static int response_adjoint(const Argument *a)
{
    const Int *start = a[0].n, *pointer = a[1].n;
    const double *values = a[2].d, *pixels = a[3].d;
    for (Int p = 0; p < a[0].shape[0]; p++) {
        const double *restrict own = values + pointer[p], by = pixels[p];
        double *restrict out = a[4].d + start[p];
        for (Int i = 0; i < pointer[p + 1] - pointer[p]; i++)
            out[i] += own[i] * by;
    }
    return DONE;
}

/* A sparse matrix in coordinate form, added times every vector; fastest where its rows are sorted. */
static int sparse_multiply(const Argument *a)
{
    const Int *rows = a[0].n, *cols = a[1].n, n = a[0].shape[0], n_in = a[3].shape[1], n_out = a[4].shape[1];
    const double *values = a[2].d;
    for (Int v = 0; v < a[3].shape[0]; v++) {
        const double *seen = a[3].d + v * n_in;
        for (Int k = 0; k < n;) {
            const Int row = rows[k];
            double total = 0.0;
            if (row < 0 || row >= n_out)
                return NOT_INSIDE;
            do {
                if (cols[k] < 0 || cols[k] >= n_in)
                    return NOT_INSIDE;
                total += values[k] * seen[cols[k]];
            } while (++k < n && rows[k] == row);
            a[4].d[v * n_out + row] += total;
        }
    }
    return DONE;
}

/* The error function, by its Taylor series about the next node of a table: exact to 4e-16. */
static inline double error_function(double x, const double *table)
{
    x = x < -ERF_END ? -ERF_END : x > ERF_END ? ERF_END : x;
    const Int n = (Int)floor(x * ERF_NODES + 0.5);
    const double d = x - (double)n / ERF_NODES, *own = table + (n + ERF_END * ERF_NODES) * ERF_TERMS;
    double total = own[ERF_TERMS - 1];
    for (int k = ERF_TERMS - 2; k >= 0; k--)
        total = own[k] + d * total;
    return total;
}

/* Rows begin..end of the response of pixels that see a Gaussian line spread function. */
static int gaussian_pixels(const Argument *a)
{
    const double *grid = a[0].d, log_step = a[1].f, *lower = a[2].d, *upper = a[3].d, *sigma = a[4].d, *table = a[9].d;
    const Int *first = a[5].n, *last = a[6].n, *start = a[7].n, *pointer = a[8].n, n_grid = a[0].shape[0];
    for (Int p = a[10].i; p < a[11].i; p++) {
        const double scale = sqrt(0.5) / sigma[p], factor = 0.5 * log_step / (upper[p] - lower[p]);
        double *own = a[12].d + pointer[p] - start[p];
        for (Int k = first[p]; k <= last[p]; k++) {
            /* grid points beyond the ends are virtual: they carry the flux of the end point */
            const Int at = k < 0 ? 0 : k < n_grid ? k : n_grid - 1;
            const double wave = k == at ? grid[k] : grid[0] * exp(k * log_step);
            const double area =
                error_function((upper[p] - wave) * scale, table) - error_function((lower[p] - wave) * scale, table);
            own[at] += area * factor * wave;
        }
    }
    return DONE;
}

/* Columns of numbers that many lines share: the sums of the terms of their members. */
static int add_members(const Argument *a)
{
    const double *term = a[0].d;
    const Int *offset = a[1].n, *lo = a[2].n, *hi = a[3].n, *member = a[4].n, n_pix = a[5].shape[1];
    for (Int j = 0; j < a[2].shape[0]; j++)
        if (member[j] >= 0)
            for (Int i = 0; i < hi[j] - lo[j]; i++)
                a[5].d[member[j] * n_pix + lo[j] + i] += term[offset[j] + i];
    return DONE;
}

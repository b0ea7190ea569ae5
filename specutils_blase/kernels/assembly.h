/* The normal equations of flat columns; Python's assembly.py says what they are. */

/* Sums of a c, a d, b c, b d. */
static inline void four_products(Int n, const double *a, const double *b, const double *c, const double *d,
                                 double sum[4])
{
    double ac = 0.0, ad = 0.0, bc = 0.0, bd = 0.0;
    for (Int i = 0; i < n; i++) {
        ac += a[i] * c[i];
        ad += a[i] * d[i];
        bc += b[i] * c[i];
        bd += b[i] * d[i];
    }
    sum[0] = ac, sum[1] = ad, sum[2] = bc, sum[3] = bd;
}

/* rows rows' (not by BLAS, whose idle threads would go on spinning beside these kernels). */
static int products(const Argument *a)
{
    const double *rows = a[0].d;
    const Int m = a[0].shape[0], n = a[0].shape[1];
    double *out = a[1].d;
    for (Int p = 0; p < m; p += 2)
        for (Int q = 0; q <= p; q += 2) { /* two rows at a time; an odd one goes with itself */
            const Int p1 = least(p + 1, m - 1), q1 = least(q + 1, m - 1);
            double sum[4];
            four_products(n, rows + p * n, rows + p1 * n, rows + q * n, rows + q1 * n, sum);
            out[p * m + q] = out[q * m + p] = sum[0], out[p * m + q1] = out[q1 * m + p] = sum[1];
            out[p1 * m + q] = out[q * m + p1] = sum[2], out[p1 * m + q1] = out[q1 * m + p1] = sum[3];
        }
    return DONE;
}

#define BLOCK 64 /* rows that are multiplied at a time, a multiple of four */

/* rows' rows of (n, m): columns that are zero for long stretches, those of single echelle orders, cost only where not. */
static int gram_rows(const Argument *a)
{
    const Int n = a[0].shape[0], m = a[0].shape[1];
    double *out = a[1].d, *some = malloc((BLOCK * m + m * m) * sizeof(double)), *sum = some + BLOCK * m;
    Int *column = malloc(m * sizeof(Int));
    if (!some || !column) {
        free(some), free(column);
        return NO_MEMORY;
    }
    for (Int first = 0; first < n; first += BLOCK) {
        const double *rows = a[0].d + first * m;
        const Int count = least(n - first, BLOCK);
        Int active = 0;
        for (Int c = 0; c < m; c++) {
            int felt = 0;
            for (Int r = 0; r < count; r++)
                felt |= rows[r * m + c] != 0.0;
            if (felt)
                column[active++] = c;
        }
        for (Int r = 0; r < BLOCK; r++)
            for (Int k = 0; k < active; k++)
                some[r * active + k] = r < count ? rows[r * m + column[k]] : 0.0;
        for (Int k = 0; k < active; k++) {
            double *restrict own = sum + k * active;
            for (Int l = 0; l <= k; l++)
                own[l] = 0.0;
            for (Int r = 0; r < BLOCK; r += 4) {
                const double *x = some + r * active, *y = x + active, *z = y + active, *w = z + active;
                for (Int l = 0; l <= k; l++)
                    own[l] += x[k] * x[l] + y[k] * y[l] + z[k] * z[l] + w[k] * w[l];
            }
        }
        for (Int k = 0; k < active; k++)
            for (Int l = 0; l <= k; l++)
                out[column[k] * m + column[l]] += sum[k * active + l];
    }
    for (Int k = 0; k < m; k++)
        for (Int l = 0; l < k; l++)
            out[l * m + k] = out[k * m + l];
    free(some), free(column);
    return DONE;
}

/* The blocks of lines first..last with themselves and those that follow, into the tiles. */
static int gram_columns(const Argument *a)
{
    const double *terms = a[0].d;
    const Int *offset = a[1].n, *lo = a[2].n, *hi = a[3].n, *near_lo = a[4].n, *near_hi = a[5].n, *last_near = a[6].n;
    const Int first = a[7].i, last = a[8].i, *start = a[9].n, q = a[0].shape[0], width = a[0].shape[1];
    double *tiles = a[10].d;
    for (Int j = first; j < last; j++)
        for (Int k = j; k <= last_near[j]; k++) {
            const Int begin = k == j ? lo[j] : greatest(near_lo[j], near_lo[k]);
            const Int stop = k == j ? hi[j] : least(near_hi[j], near_hi[k]);
            if (begin >= stop)
                continue;
            const double *tj = terms + offset[j] + begin - lo[j], *tk = terms + offset[k] + begin - lo[k];
            for (Int p = 0; p < q; p += 2)
                for (Int r = 0; r < q; r += 2) { /* two parameters at a time; an odd one goes with itself */
                    const Int p1 = least(p + 1, q - 1), r1 = least(r + 1, q - 1);
                    double sum[4];
                    four_products(stop - begin, tj + p * width, tj + p1 * width, tk + r * width, tk + r1 * width, sum);
                    for (int s = 0; s < 4; s++) {
                        const Int column = j * q + (s < 2 ? p : p1), row = k * q + (s % 2 ? r1 : r);
                        const Int tile = start[column / TILE] + row / TILE - column / TILE;
                        if (row >= column)
                            tiles[AREA * tile + TILE * (column % TILE) + row % TILE] = sum[s];
                    }
                }
        }
    return DONE;
}

/* J' vector of lines first..last, into `out`. */
static int project_columns(const Argument *a)
{
    const double *terms = a[0].d, *vector = a[4].d;
    const Int *offset = a[1].n, *lo = a[2].n, *hi = a[3].n, q = a[0].shape[0], width = a[0].shape[1];
    for (Int j = a[5].i; j < a[6].i; j++)
        for (Int p = 0; p < q; p++) {
            const double *column = terms + p * width + offset[j], *rest = vector + lo[j];
            double total = 0.0;
            for (Int i = 0; i < hi[j] - lo[j]; i++)
                total += column[i] * rest[i];
            a[7].d[j * q + p] = total;
        }
    return DONE;
}

/* Products of the columns of lines first..last with `dense` (m, n_pix), into the first m columns of `border`. */
static int border_columns(const Argument *a)
{
    const double *terms = a[0].d, *dense = a[5].d;
    const Int *offset = a[1].n, *lo = a[2].n, *near_lo = a[3].n, *near_hi = a[4].n;
    const Int q = a[0].shape[0], width = a[0].shape[1], m = a[5].shape[0], n_pix = a[5].shape[1], wide = a[8].shape[1];
    for (Int j = a[6].i; j < a[7].i; j++) {
        const double *t = terms + offset[j] + near_lo[j] - lo[j];
        for (Int p = 0; p < q; p += 2)
            for (Int g = 0; g < m; g += 2) {
                const Int p1 = least(p + 1, q - 1), g1 = least(g + 1, m - 1);
                double sum[4], *one = a[8].d + (j * q + p) * wide, *other = a[8].d + (j * q + p1) * wide;
                four_products(near_hi[j] - near_lo[j], t + p * width, t + p1 * width, dense + g * n_pix + near_lo[j],
                              dense + g1 * n_pix + near_lo[j], sum);
                one[g] = sum[0], one[g1] = sum[1], other[g] = sum[2], other[g1] = sum[3];
            }
    }
    return DONE;
}

/* The same with the columns that the parts of the pixels have for themselves, added to `border` from column m on. */
static int part_border(const Argument *a)
{
    const double *terms = a[0].d, *values = a[5].d;
    const Int *offset = a[1].n, *lo = a[2].n, *near_lo = a[3].n, *near_hi = a[4].n, *part = a[6].n, m = a[7].i;
    const Int q = a[0].shape[0], width = a[0].shape[1], d = a[5].shape[0], n_pix = a[5].shape[1], wide = a[10].shape[1];
    for (Int j = a[8].i; j < a[9].i; j++)
        for (Int p = near_lo[j]; p < near_hi[j]; p++) {
            const double *term = terms + offset[j] + p - lo[j];
            double *own = a[10].d + j * q * wide + m + part[p] * d;
            for (Int k = 0; k < d; k++) {
                const double value = values[k * n_pix + p];
                if (value == 0.0) /* splines are so nearly everywhere */
                    continue;
                for (Int c = 0; c < q; c++)
                    own[c * wide + k] += term[c * width] * value;
            }
        }
    return DONE;
}

/* Products of those columns (d, n_pix) with a vector, into `out` (n_parts, d). */
static int part_project(const Argument *a)
{
    const double *values = a[0].d, *vector = a[2].d;
    const Int *part = a[1].n, d = a[0].shape[0], n_pix = a[0].shape[1];
    for (Int k = 0; k < d; k++)
        for (Int p = 0; p < n_pix; p++)
            a[3].d[part[p] * d + k] += values[k * n_pix + p] * vector[p];
    return DONE;
}

/* Products of those columns with each other, into `out` (n_parts, d, d). */
static int part_products(const Argument *a)
{
    const double *values = a[0].d;
    const Int *part = a[1].n, d = a[0].shape[0], n_pix = a[0].shape[1];
    for (Int p = 0; p < n_pix; p++) {
        double *own = a[2].d + part[p] * d * d;
        for (Int k = 0; k < d; k++) {
            const double value = values[k * n_pix + p];
            if (value == 0.0)
                continue;
            for (Int l = 0; l <= k; l++)
                own[k * d + l] += value * values[l * n_pix + p];
        }
    }
    for (Int part_of = 0; part_of < a[2].shape[0]; part_of++)
        for (Int k = 0; k < d; k++)
            for (Int l = 0; l < k; l++)
                a[2].d[(part_of * d + l) * d + k] = a[2].d[(part_of * d + k) * d + l];
    return DONE;
}

/* Banded matrices in tiles of 4 by 4, as Python's banded.py describes them: element [column][row] of a tile. */

#define AREA (TILE * TILE)

/* out += A vector */
static int multiply(const Argument *a)
{
    const double *tiles = a[0].d, *vector = a[2].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1;
    double *out = a[3].d;
    for (Int j = 0; j < n; j++)
        for (Int d = 0; d < start[j + 1] - start[j]; d++) {
            const double *t = tiles + AREA * (start[j] + d), *y = vector + TILE * (j + d), *x = vector + TILE * j;
            for (int c = 0; c < TILE; c++) {
                double total = 0.0;
                for (int r = d ? 0 : c; r < TILE; r++) {
                    out[TILE * (j + d) + r] += t[TILE * c + r] * x[c];
                    if (d || r > c)
                        total += t[TILE * c + r] * y[r];
                }
                out[TILE * j + c] += total;
            }
        }
    return DONE;
}

/* Cholesky factor of one tile in place; 0 if it is not positive definite.  What lies above is not used. */
static int factor_tile(double *t)
{
    for (int c = 0; c < TILE; c++) {
        double *own = t + TILE * c;
        if (!(own[c] > 0.0))
            return 0;
        own[c] = sqrt(own[c]);
        for (int r = c + 1; r < TILE; r++)
            own[r] *= 1.0 / own[c];
        for (int k = c + 1; k < TILE; k++)
            for (int r = k; r < TILE; r++)
                t[TILE * k + r] -= own[r] * own[k];
    }
    return 1;
}

/* Every one of `count` tiles t becomes t lower'^-1. */
static void divide_tiles(Int count, double *restrict tiles, const double *restrict lower)
{
    const double i0 = 1.0 / lower[0], i1 = 1.0 / lower[5], i2 = 1.0 / lower[10], i3 = 1.0 / lower[15];
    const double l10 = lower[1], l20 = lower[2], l30 = lower[3], l21 = lower[6], l31 = lower[7], l32 = lower[11];
    for (Int d = 0; d < count; d++) {
        double *t = tiles + AREA * d;
        for (int r = 0; r < TILE; r++) {
            const double x0 = t[r] * i0;
            const double x1 = (t[4 + r] - x0 * l10) * i1;
            const double x2 = (t[8 + r] - x0 * l20 - x1 * l21) * i2;
            const double x3 = (t[12 + r] - x0 * l30 - x1 * l31 - x2 * l32) * i3;
            t[r] = x0, t[4 + r] = x1, t[8 + r] = x2, t[12 + r] = x3;
        }
    }
}

/* t -= a b' */
static inline void subtract_product(double *restrict t, const double *restrict a, const double *restrict b)
{
    for (int c = 0; c < TILE; c++)
        for (int r = 0; r < TILE; r++)
            t[TILE * c + r] -= a[r] * b[c] + a[4 + r] * b[4 + c] + a[8 + r] * b[8 + c] + a[12 + r] * b[12 + c];
}

/* Cholesky factor in place.  (LAPACK's dpbtrf pays for the full band, and its threads make it slower here.) */
static int banded_cholesky(const Argument *a)
{
    double *tiles = a[0].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1;
    for (Int j = 0; j < n; j++) {
        double *own = tiles + AREA * start[j];
        const Int count = start[j + 1] - start[j];
        if (!factor_tile(own))
            return NOT_DEFINITE;
        divide_tiles(count - 1, own + AREA, own);
        for (Int d = 1; d < count; d++)
            for (Int e = d; e < count; e++)
                subtract_product(tiles + AREA * (start[j + d] + e - d), own + AREA * e, own + AREA * d);
    }
    return DONE;
}

/* Replace rhs (n, m), whose rows fill the tiles, by L^-1 rhs. */
static int forward_substitute(const Argument *a)
{
    const double *tiles = a[0].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1, m = a[2].shape[1];
    for (Int j = 0; j < n; j++) {
        const double *t = tiles + AREA * start[j];
        double *x = a[2].d + TILE * j * m;
        for (Int k = 0; k < m; k++) {
            const double x0 = x[k] / t[0];
            const double x1 = (x[m + k] - t[1] * x0) / t[5];
            const double x2 = (x[2 * m + k] - t[2] * x0 - t[6] * x1) / t[10];
            const double x3 = (x[3 * m + k] - t[3] * x0 - t[7] * x1 - t[11] * x2) / t[15];
            x[k] = x0, x[m + k] = x1, x[2 * m + k] = x2, x[3 * m + k] = x3;
        }
        for (Int d = 1; d < start[j + 1] - start[j]; d++) {
            t += AREA;
            for (int r = 0; r < TILE; r++) {
                double *restrict y = a[2].d + (TILE * (j + d) + r) * m;
                for (Int k = 0; k < m; k++)
                    y[k] -= t[r] * x[k] + t[4 + r] * x[m + k] + t[8 + r] * x[2 * m + k] + t[12 + r] * x[3 * m + k];
            }
        }
    }
    return DONE;
}

/* Replace rhs (n, m), whose rows fill the tiles, by L'^-1 rhs. */
static int back_substitute(const Argument *a)
{
    const double *tiles = a[0].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1, m = a[2].shape[1];
    for (Int j = n - 1; j >= 0; j--) {
        const double *own = tiles + AREA * start[j];
        double *x = a[2].d + TILE * j * m;
        for (Int d = 1; d < start[j + 1] - start[j]; d++) {
            const double *t = own + AREA * d, *y = a[2].d + TILE * (j + d) * m;
            for (int c = 0; c < TILE; c++) {
                double *restrict z = x + c * m;
                const double t0 = t[4 * c], t1 = t[4 * c + 1], t2 = t[4 * c + 2], t3 = t[4 * c + 3];
                for (Int k = 0; k < m; k++)
                    z[k] -= t0 * y[k] + t1 * y[m + k] + t2 * y[2 * m + k] + t3 * y[3 * m + k];
            }
        }
        for (Int k = 0; k < m; k++) {
            const double x3 = x[3 * m + k] / own[15];
            const double x2 = (x[2 * m + k] - own[11] * x3) / own[10];
            const double x1 = (x[m + k] - own[6] * x2 - own[7] * x3) / own[5];
            const double x0 = (x[k] - own[1] * x1 - own[2] * x2 - own[3] * x3) / own[0];
            x[k] = x0, x[m + k] = x1, x[2 * m + k] = x2, x[3 * m + k] = x3;
        }
    }
    return DONE;
}

/* out = lower'^-1 lower^-1, both triangles. */
static void inverse_tile(const double *lower, double *out)
{
    double inv[TILE][TILE] = {{0.0}}; /* [column][row] of lower^-1 */
    for (int c = 0; c < TILE; c++) {
        inv[c][c] = 1.0 / lower[TILE * c + c];
        for (int r = c + 1; r < TILE; r++) {
            double total = 0.0;
            for (int k = c; k < r; k++)
                total += lower[TILE * k + r] * inv[c][k];
            inv[c][r] = -total / lower[TILE * r + r];
        }
    }
    for (int c = 0; c < TILE; c++)
        for (int r = 0; r < TILE; r++) {
            double total = 0.0;
            for (int k = c > r ? c : r; k < TILE; k++)
                total += inv[c][k] * inv[r][k];
            out[TILE * c + r] = total;
        }
}

/* Elements of (L L')^-1 in the tiles of L (Takahashi's recursion, tile by tile). */
static int selected_inverse(const Argument *a)
{
    const double *tiles = a[0].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1;
    double *out = a[2].d;
    Int widest = 1;
    for (Int j = 0; j < n; j++)
        if (start[j + 1] - start[j] > widest)
            widest = start[j + 1] - start[j];
    double *right = malloc(widest * AREA * sizeof(double)); /* L_ij L_jj^-1 */
    if (!right)
        return NO_MEMORY;
    for (Int j = n - 1; j >= 0; j--) {
        const Int first = start[j], count = start[j + 1] - first;
        const double *l = tiles + AREA * first;
        double *diagonal = out + AREA * first;
        inverse_tile(l, diagonal);
        for (Int d = 1; d < count; d++) {
            const double *t = l + AREA * d;
            double *own = right + AREA * d;
            for (int r = 0; r < TILE; r++) {
                const double x3 = t[12 + r] / l[15];
                const double x2 = (t[8 + r] - x3 * l[11]) / l[10];
                const double x1 = (t[4 + r] - x2 * l[6] - x3 * l[7]) / l[5];
                own[r] = (t[r] - x1 * l[1] - x2 * l[2] - x3 * l[3]) / l[0];
                own[4 + r] = x1, own[8 + r] = x2, own[12 + r] = x3;
            }
        }
        for (Int d = 1; d < count; d++) {
            double sum[AREA] = {0.0};
            for (Int e = 1; e < count; e++) {
                const double *by = right + AREA * e;
                double other[AREA]; /* [k][r]: of the symmetric inverse only the lower half is kept */
                if (d >= e) {
                    const double *kept = out + AREA * (start[j + e] + d - e);
                    for (int k = 0; k < AREA; k++)
                        other[k] = kept[k];
                } else {
                    const double *kept = out + AREA * (start[j + d] + e - d);
                    for (int k = 0; k < TILE; k++)
                        for (int r = 0; r < TILE; r++)
                            other[TILE * k + r] = kept[TILE * r + k];
                }
                for (int c = 0; c < TILE; c++)
                    for (int r = 0; r < TILE; r++)
                        sum[TILE * c + r] += other[r] * by[TILE * c] + other[4 + r] * by[TILE * c + 1]
                            + other[8 + r] * by[TILE * c + 2] + other[12 + r] * by[TILE * c + 3];
            }
            for (int k = 0; k < AREA; k++)
                out[AREA * (first + d) + k] -= sum[k];
        }
        for (Int d = 1; d < count; d++)
            for (int c = 0; c < TILE; c++)
                for (int r = 0; r < TILE; r++) {
                    const double *by = right + AREA * d + TILE * r, *own = out + AREA * (first + d) + TILE * c;
                    diagonal[TILE * c + r] -= by[0] * own[0] + by[1] * own[1] + by[2] * own[2] + by[3] * own[3];
                }
        /* the recursion damps errors as long as they are symmetric, and can amplify others without limit */
        for (int c = 0; c < TILE; c++)
            for (int r = 0; r < c; r++)
                diagonal[TILE * c + r] = diagonal[TILE * r + c] =
                    0.5 * (diagonal[TILE * c + r] + diagonal[TILE * r + c]);
    }
    free(right);
    return DONE;
}

/* Subtract left right' from the tiles; their rows (n, m) fill the tiles. */
static int subtract_products(const Argument *a)
{
    double *tiles = a[0].d;
    const Int *start = a[1].n, n = a[1].shape[0] - 1, m = a[2].shape[1];
    for (Int j = 0; j < n; j++)
        for (Int d = 0; d < start[j + 1] - start[j]; d++)
            for (int c = 0; c < TILE; c++)
                for (int r = 0; r < TILE; r++) {
                    const double *left = a[2].d + (TILE * (j + d) + r) * m, *right = a[3].d + (TILE * j + c) * m;
                    double total = 0.0;
                    for (Int k = 0; k < m; k++)
                        total += left[k] * right[k];
                    tiles[AREA * (start[j] + d) + TILE * c + r] -= total;
                }
    return DONE;
}

/* Variances of sums of numbers near each other, in groups: weights' H^-1 weights, H = M M'.

   Of the inverse the tiles and the border are known.  From H^-1's row i outwards M' H^-1 = M^-1, whose upper triangle is
   zero, gives the elements beyond the tiles one after the other. */
static int group_variances(const Argument *a)
{
    const double *tiles = a[0].d, *border = a[2].d, *inverse = a[3].d, *far = a[4].d, *weights = a[6].d;
    const Int *start = a[1].n, *rows = a[5].n, *pointer = a[7].n, m = a[2].shape[1];
    Int longest_span = 1;
    for (Int g = 0; g < a[8].shape[0]; g++)
        if (rows[pointer[g + 1] - 1] - rows[pointer[g]] > longest_span)
            longest_span = rows[pointer[g + 1] - 1] - rows[pointer[g]];
    double *x = malloc((longest_span + 2 * TILE) * sizeof(double));
    if (!x)
        return NO_MEMORY;
    for (Int g = 0; g < a[8].shape[0]; g++) {
        const Int first = rows[pointer[g]], lowest = first / TILE * TILE;
        double sum = 0.0;
        for (Int u = pointer[g]; u < pointer[g + 1]; u++) {
            const Int i = rows[u], own = i / TILE;
            for (Int j = i; j >= first; j--) {
                const Int column = j / TILE, count = start[column + 1] - start[column];
                const Int c = j % TILE;
                if (own - column < count) {
                    x[j - lowest] = inverse[AREA * (start[column] + own - column) + TILE * c + i % TILE];
                    continue;
                }
                const double *t = tiles + AREA * start[column] + TILE * c, *near = x + TILE * column - lowest;
                double total = 0.0;
                for (int r = c + 1; r < TILE; r++)
                    total += t[r] * near[r];
                for (Int d = 1; d < count; d++)
                    for (int r = 0; r < TILE; r++)
                        total += t[AREA * d + r] * near[TILE * d + r];
                for (Int k = 0; k < m; k++)
                    total += border[j * m + k] * far[i * m + k];
                x[j - lowest] = -total / t[c];
            }
            for (Int v = pointer[g]; v <= u; v++)
                sum += (v < u ? 2.0 : 1.0) * weights[u] * weights[v] * x[rows[v] - lowest];
        }
        a[8].d[g] = sum;
    }
    free(x);
    return DONE;
}

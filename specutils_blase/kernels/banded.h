/* Banded matrices in tiles of 4 by 4, as Python's banded.py describes them: element [column][row] of a tile. */

#define AREA (TILE * TILE)

static inline Int least(Int a, Int b)
{
    return a < b ? a : b;
}

static inline Int greatest(Int a, Int b)
{
    return a > b ? a : b;
}

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

/* What the variance of a weighted sum g of numbers in a stretch of rows is made of, group after group.

   With A = L L' and the inverse Z of the bordered matrix known in the tiles, and y = L^-1 g in the stretch, what lies
   below it needs no substitution: |L^-1 v|^2 = v' A^-1 v for the right-hand side v that is left there, within the band.
   Of g: |y|^2 + v' Z v, and the rows W' y and U' v of the border W = L^-1 B and of U = A^-1 B. */
static int group_sums(const Argument *a)
{
    const double *tiles = a[0].d, *border = a[2].d, *inverse = a[3].d, *solved = a[4].d, *weights = a[6].d;
    const Int *start = a[1].n, *rows = a[5].n, *pointer = a[7].n, n = a[2].shape[0], m = a[2].shape[1];
    Int longest_span = 0;
    for (Int g = 0; g < a[8].shape[0]; g++) {
        const Int first = rows[pointer[g]] / TILE, last = rows[pointer[g + 1] - 1] / TILE;
        longest_span = greatest(longest_span, last + start[last + 1] - start[last] - first);
    }
    double *y = malloc((longest_span + 1) * TILE * sizeof(double));
    if (!y)
        return NO_MEMORY;
    for (Int g = 0; g < a[8].shape[0]; g++) {
        const Int first = rows[pointer[g]] / TILE, last = rows[pointer[g + 1] - 1] / TILE;
        const Int end = last + start[last + 1] - start[last];
        double *const at = y - TILE * first, *by_stretch = a[9].d + g * m, *by_rest = a[10].d + g * m, sum = 0.0;
        for (Int i = TILE * first; i < TILE * end; i++)
            at[i] = 0.0;
        for (Int k = pointer[g]; k < pointer[g + 1]; k++)
            at[rows[k]] += weights[k];
        for (Int j = first; j <= last; j++) {
            const double *t = tiles + AREA * start[j];
            double *x = at + TILE * j;
            for (int c = 0; c < TILE; c++) {
                x[c] /= t[TILE * c + c];
                for (int r = c + 1; r < TILE; r++)
                    x[r] -= t[TILE * c + r] * x[c];
                sum += x[c] * x[c];
            }
            for (Int d = 1; d < start[j + 1] - start[j]; d++)
                for (int c = 0; c < TILE; c++)
                    for (int r = 0; r < TILE; r++)
                        x[TILE * d + r] -= t[AREA * d + TILE * c + r] * x[c];
        }
        for (Int j = last + 1; j < end; j++)
            for (Int i = j; i < end; i++) {
                const double *t = inverse + AREA * (start[j] + i - j);
                for (int c = 0; c < TILE; c++)
                    for (int r = 0; r < TILE; r++)
                        sum += (i > j ? 2.0 : 1.0) * t[TILE * c + r] * at[TILE * j + c] * at[TILE * i + r];
            }
        for (Int i = TILE * first; i < least(n, TILE * end); i++) {
            const double *row = (i < TILE * (last + 1) ? border : solved) + i * m;
            double *out = i < TILE * (last + 1) ? by_stretch : by_rest;
            for (Int k = 0; k < m; k++)
                out[k] += at[i] * row[k];
        }
        a[8].d[g] = sum;
    }
    free(y);
    return DONE;
}

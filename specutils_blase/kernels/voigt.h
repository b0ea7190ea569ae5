/* One exact Voigt line on contiguous pixels: its value, or its optical depth with the four derivatives.

   The line is split into the core |x| < 10 (Weideman 1994, SIAM J. Numer. Anal. 31, 1497, N = 32, error 4e-14 of the
   peak) and two wings (asymptotic series of w(z), nine terms: relative error about 1e-11, and 1e-9 in the derivatives).
   x = (wavelength - centre)/(sqrt(2) sigma), y = gamma/(sqrt(2) sigma), V = Re w(x + iy)/(sqrt(2 pi) sigma). */
#include <math.h>
#include <stdlib.h>

#include "argument.h"

#if defined(__GNUC__)
#define APART static __attribute__((noinline)) /* keeps what `restrict` says from being lost by inlining */
#else
#define APART static
#endif

#define PI 3.14159265358979323846
#define SQRT2 1.41421356237309504880
#define RSQRTPI 0.56418958354775628695
#define CORE 10.0 /* |x| and y below which the rational expansion is used */

/* (2k - 1)!!/2^k, the coefficients of the asymptotic series */
#define A1 0.5
#define A2 0.75
#define A3 1.875
#define A4 6.5625
#define A5 29.53125
#define A6 162.421875
#define A7 1055.7421875
#define A8 7918.06640625

/* w(z) = 2 p(Z)/(L - iz)^2 + (1/sqrt(pi))/(L - iz), Z = (L + iz)/(L - iz): L, and the coefficients of p from the
   highest power down (a test computes them anew). */
#define SCALE 4.756828460010884
static const double C[32] = {
    -1.3031797863050087e-12, 3.7408812931653625e-12, 8.03036789996389e-12, -2.154363207783877e-11,
    -5.5442359481664624e-11, 1.1658251093523774e-10, 4.153743091833453e-10, -5.231020481196329e-10,
    -3.208015091723369e-09, 8.124889456846652e-10, 2.3797556779897417e-08, 2.2930439065099966e-08,
    -1.4813078915120977e-07, -4.1840763702169776e-07, 4.2558331375750085e-07, 4.40153173157855e-06,
    6.821031944001985e-06, -2.140961920171075e-05, -0.00013075449254615346, -0.0002453298027002143,
    0.0003925913607007031, 0.004519541105349217, 0.019006155784845408, 0.05730440352983722,
    0.14060716226893769, 0.2954445107150873, 0.5460139720639341, 0.9019254893647999,
    1.345544169234545, 1.8256696296324815, 2.2635372999002676, 2.5722534081245696,
};

/* w(x + iy) for |x|, y of order 10 and less; a real-coefficient Horner scheme (two multiply-adds per term), written
   out because only then is it kept in registers, four or eight pixels at a time. */
APART void core(Int n, const double *restrict x, double y, double *restrict re, double *restrict im)
{
    const double plus = SCALE + y, minus = SCALE - y;
    for (Int i = 0; i < n; i++) {
        const double q = 1.0 / (plus * plus + x[i] * x[i]);
        const double ir = plus * q, ii = x[i] * q;
        const double zr = (minus * plus - x[i] * x[i]) * q, zi = (plus + minus) * ii;
        const double s = 2.0 * zr, m = zr * zr + zi * zi;
        double r = C[0], p = C[1] + s * r;
#define TWO_TERMS(k) r = C[k] + s * p - m * r, p = C[k + 1] + s * r - m * p
        TWO_TERMS(2), TWO_TERMS(4), TWO_TERMS(6), TWO_TERMS(8), TWO_TERMS(10);
        TWO_TERMS(12), TWO_TERMS(14), TWO_TERMS(16), TWO_TERMS(18), TWO_TERMS(20);
        TWO_TERMS(22), TWO_TERMS(24), TWO_TERMS(26), TWO_TERMS(28), TWO_TERMS(30);
#undef TWO_TERMS
        const double pr = p - zr * r, pi = zi * r;
        const double sr = 2.0 * (pr * ir - pi * ii) + RSQRTPI, si = 2.0 * (pr * ii + pi * ir);
        re[i] = sr * ir - si * ii;
        im[i] = sr * ii + si * ir;
    }
}

/* Re w by the asymptotic series w = i/(sqrt(pi) z) sum_k (2k-1)!!/(2 z^2)^k, nine terms, in real arithmetic. */
APART void wing_value(Int n, const double *restrict x, double y, double *restrict re)
{
    for (Int i = 0; i < n; i++) {
        const double x2 = x[i] * x[i];
        const double q = 1.0 / (x2 + y * y);
        const double m = q * q;                   /* |u|^2 with u = 1/z^2 */
        const double s = 2.0 * (x2 - y * y) * m; /* 2 Re u */
        double a = A8, b = A7 + s * a;
        a = A6 + s * b - m * a, b = A5 + s * a - m * b;
        a = A4 + s * b - m * a, b = A3 + s * a - m * b;
        a = A2 + s * b - m * a, b = A1 + s * a - m * b;
        a = 1.0 + s * b - m * a;
        const double r = a - 0.5 * s * b, t = -2.0 * x[i] * y * m * b;
        re[i] = RSQRTPI * q * (r * y - t * x[i]);
    }
}

/* What `terms_line` returns, by the same series written as w = i/(sqrt(pi) z) (1 + u C), C = 1/2 + u G.

   Then w' = -2i/sqrt(pi) u C and w'' = 2i/sqrt(pi) u/z (2 G - C), in which nothing cancels at large |z|. */
APART void wing_terms(Int n, const double *restrict x, double y, double inv, const double *restrict factor,
                      const double w[4], double *restrict t0, double *restrict t1, double *restrict t2,
                      double *restrict t3)
{
    const double w0 = -w[0] * RSQRTPI, w1 = -w[1] * RSQRTPI;
    const double w2 = 2.0 * y * w[2] * RSQRTPI, w3 = -2.0 * inv * w[3] * RSQRTPI;
    for (Int i = 0; i < n; i++) {
        const double f = factor[i];
        const double q = 1.0 / (x[i] * x[i] + y * y);
        const double vr = x[i] * q, vi = -y * q; /* 1/z */
        const double ur = vr * vr - vi * vi, ui = 2.0 * vr * vi;
        const double s = 2.0 * ur, m = q * q;
        double a = A8, b = A7 + s * a;
        a = A6 + s * b - m * a, b = A5 + s * a - m * b;
        a = A4 + s * b - m * a, b = A3 + s * a - m * b;
        a = A2 + s * b - m * a;
        const double gr = a - ur * b, gi = ui * b;
        const double cr = A1 + ur * gr - ui * gi, ci = ur * gi + ui * gr;
        const double br = ur * cr - ui * ci, bi = ur * ci + ui * cr; /* u C */
        const double hr = 2.0 * gr - cr, hi = 2.0 * gi - ci;
        const double kr = ur * hr - ui * hi, ki = ur * hi + ui * hr;
        t0[i] = w0 * f * (vr * bi + vi * (1.0 + br));
        t1[i] = w1 * f * (vr * ki + vi * kr);
        t2[i] = w2 * f * br;
        t3[i] = w3 * f * bi;
    }
}

/* What `terms_line` returns, for |x|, y of order 10 and less. */
APART void core_terms(Int n, const double *restrict x, double y, double inv, const double *restrict factor,
                      const double w[4], double *restrict t0, double *restrict t1, double *restrict t2,
                      double *restrict t3)
{
    core(n, x, y, t0, t2);
    const double w0 = w[0], w1 = -w[1], w2 = -y * w[2], w3 = -inv * w[3];
    for (Int i = 0; i < n; i++) {
        const double wr = t0[i], wi = t2[i], f = factor[i];
        const double dr = -2.0 * (x[i] * wr - y * wi);
        const double di = -2.0 * (x[i] * wi + y * wr) + 2.0 * RSQRTPI;
        t0[i] = w0 * f * wr;
        t1[i] = w1 * f * (wr + (x[i] * dr - y * di)); /* sigma dV/dsigma = sigma^2 d2V/dx2 */
        t2[i] = w2 * f * di;                          /* dV/dgamma = -Im w' */
        t3[i] = w3 * f * dr;
    }
}

/* First pixel of lo..hi whose wavelength is not below `value`. */
static Int first_above(const double *wave, Int lo, Int hi, double value)
{
    while (lo < hi) {
        const Int middle = (lo + hi) / 2;
        if (wave[middle] < value)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

/* x = (wave - center) inv on pixels lo..hi, continued by PAD pixels; where the core begins and ends in it. */
static void place(const double *restrict wave, Int lo, Int hi, double center, double inv, double y, double *restrict x,
                  Int *first, Int *last)
{
    const Int n = hi - lo;
    for (Int i = 0; i < n; i++)
        x[i] = (wave[lo + i] - center) * inv;
    for (Int i = n; i < n + PAD; i++)
        x[i] = CORE;
    *first = *last = 0;
    if (y < CORE && n > 0) {
        *last = n;
        if (x[0] < -CORE)
            *first = first_above(wave, lo, hi, center - CORE / inv) - lo;
        if (x[n - 1] >= CORE)
            *last = first_above(wave, lo, hi, center + CORE / inv) - lo;
    }
}

/* n rounded up to whole vectors: with the rest pixel by pixel it takes longer. */
static inline Int whole(Int n)
{
    return (n + PAD - 1) / PAD * PAD;
}

/* V on pixels lo..hi into value[0..hi - lo]; x, value and scratch are longer than that by PAD. */
static void value_line(const double *wave, Int lo, Int hi, double center, double sigma, double gamma, double *x,
                       double *value, double *scratch)
{
    const double inv = 1.0 / (sigma * SQRT2), y = gamma * inv, norm = inv * RSQRTPI;
    const Int n = hi - lo;
    Int a, b;
    place(wave, lo, hi, center, inv, y, x, &a, &b);
    /* a stretch may run into the one that follows, which then overwrites it */
    if (a > 0)
        wing_value(whole(a), x, y, value);
    if (b > a)
        core(whole(b - a), x + a, y, value + a, scratch + a);
    if (n > b)
        wing_value(whole(n - b), x + b, y, value + b);
    for (Int i = 0; i < n; i++)
        value[i] *= norm;
}

/* d tau / d (ln strength, ln sigma, ln gamma, center) on pixels lo..hi into t[0]..t[3]; the first is tau itself.

   They are multiplied by `factor` (which begins with pixel lo) and each by its weight.  All these arrays are longer
   than that by PAD. */
static void terms_line(const double *wave, Int lo, Int hi, double center, double strength, double sigma, double gamma,
                       const double *factor, const double weight[4], double *x, double *const t[4])
{
    const double inv = 1.0 / (sigma * SQRT2), y = gamma * inv, norm = strength * inv * RSQRTPI;
    const double w[4] = {norm * weight[0], norm * weight[1], norm * weight[2], norm * weight[3]};
    const Int n = hi - lo;
    Int a, b;
    place(wave, lo, hi, center, inv, y, x, &a, &b);
    if (a > 0)
        wing_terms(whole(a), x, y, inv, factor, w, t[0], t[1], t[2], t[3]);
    if (b > a)
        core_terms(whole(b - a), x + a, y, inv, factor + a, w, t[0] + a, t[1] + a, t[2] + a, t[3] + a);
    if (n > b)
        wing_terms(whole(n - b), x + b, y, inv, factor + b, w, t[0] + b, t[1] + b, t[2] + b, t[3] + b);
}

//! Products of small matrices: the whole cost of a small network.
//!
//! Invariant: matrices are dense and row by row; each product is a sum in one order, so the same numbers give
//! the same result on machines of one kind; those with fused multiplication round less. Tiles of 4 x 16 results stay in registers while their sums run, or of
//! 4 x 32 where registers are wide. Long sums
//! over rows, as of gradients by weights, are taken in parts whose numbers stay in a cache. Left out: such parts for wide layers, and threads.

use super::simd::{self, Kernel, multiply_add};

/// What the sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// Zero.
    Zero,
    /// The same row for each row of the result.
    Row(&'a [f32]),
    /// What the result has.
    Result,
}

/// Rows of a part of a long sum.
const PART: usize = 256;

/// `c = begin + a * b`, with `a` of `m x k`, `b` of `k x n` and `c` of `m x n`. With `transposed`, `a` lies in memory
/// as `k x m`.
pub(super) struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: &'a [f32],
    pub transposed: bool,
    pub b: &'a [f32],
    pub begin: Begin<'a>,
    pub c: &'a mut [f32],
}

impl Product<'_> {
    /// Computes it.
    pub fn compute(self) {
        assert!(
            self.a.len() == self.m * self.k
                && self.b.len() == self.k * self.n
                && self.c.len() == self.m * self.n,
            "the matrices of a product fit together"
        );
        if !self.transposed || self.k <= PART {
            return simd::run(self);
        }
        let (a, b) = (self.a.chunks(PART * self.m), self.b.chunks(PART * self.n));
        let mut begin = self.begin;
        for (a, b) in a.zip(b) {
            simd::run(Product {
                k: b.len() / self.n,
                a,
                b,
                begin,
                c: self.c,
                ..self
            });
            begin = Begin::Result;
        }
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.tiles::<FMA, 16>();
    }

    #[inline(always)]
    fn run_wide(self) {
        self.tiles::<true, 32>();
    }
}

impl Product<'_> {
    /// The whole product, in tiles of at most so many columns: 16 or 32.
    #[inline(always)]
    fn tiles<const FMA: bool, const WIDEST: usize>(mut self) {
        let mut panel = Vec::new();
        let mut column = 0;
        while column < self.n {
            let left = self.n - column;
            if left >= 16 {
                let b = Panel {
                    numbers: self.b.get(column..).unwrap_or_default(),
                    stride: self.n,
                };
                if left >= WIDEST {
                    self.columns::<FMA, WIDEST>(&b, column, WIDEST);
                    column += WIDEST;
                } else {
                    self.columns::<FMA, 16>(&b, column, 16);
                    column += 16;
                }
            } else {
                // The last columns are copied to rows of a whole width, with zeros behind.
                let width = if left <= 8 { 8 } else { 16 };
                panel.clear();
                panel.resize(self.k * width, 0.0);
                for (to, from) in panel
                    .chunks_exact_mut(width)
                    .zip(self.b.chunks_exact(self.n))
                {
                    to[..left].copy_from_slice(&from[column..]);
                }
                let b = Panel {
                    numbers: &panel,
                    stride: width,
                };
                if width == 8 {
                    self.columns::<FMA, 8>(&b, column, left);
                } else {
                    self.columns::<FMA, 16>(&b, column, left);
                }
                column += left;
            }
        }
    }
}

/// Some columns of `b`.
struct Panel<'a> {
    numbers: &'a [f32],
    stride: usize,
}

impl Product<'_> {
    /// `W` columns of the result, of which `used` are wanted.
    #[inline(always)]
    fn columns<const FMA: bool, const W: usize>(
        &mut self,
        b: &Panel<'_>,
        column: usize,
        used: usize,
    ) {
        let mut row = 0;
        while row + 4 <= self.m {
            self.four_rows::<FMA, W>(b, row, column, used);
            row += 4;
        }
        while row < self.m {
            self.one_row::<FMA, W>(b, row, column, used);
            row += 1;
        }
    }

    /// What the sums of a row begin with.
    #[inline(always)]
    fn first<const W: usize>(&self, row: usize, column: usize, used: usize) -> [f32; W] {
        let mut first = [0.0f32; W];
        match self.begin {
            Begin::Zero => {}
            Begin::Row(begin) => first[..used].copy_from_slice(&begin[column..column + used]),
            Begin::Result => {
                first[..used].copy_from_slice(&self.c[row * self.n + column..][..used]);
            }
        }
        first
    }

    /// Four rows at once. Each row's sums are a variable of their own: as an array of arrays the compiler keeps them in
    /// memory, which is thirty times slower.
    #[inline(always)]
    fn four_rows<const FMA: bool, const W: usize>(
        &mut self,
        b: &Panel<'_>,
        row: usize,
        column: usize,
        used: usize,
    ) {
        let first = |row| self.first::<W>(row, column, used);
        let (mut s0, mut s1, mut s2, mut s3) =
            (first(row), first(row + 1), first(row + 2), first(row + 3));
        if self.transposed {
            for p in 0..self.k {
                let a = &self.a[p * self.m + row..][..4];
                let b = b.row(p);
                s0 = add::<FMA, W>(s0, a[0], b);
                s1 = add::<FMA, W>(s1, a[1], b);
                s2 = add::<FMA, W>(s2, a[2], b);
                s3 = add::<FMA, W>(s3, a[3], b);
            }
        } else {
            let [a0, a1, a2, a3] = [0, 1, 2, 3].map(|i| &self.a[(row + i) * self.k..][..self.k]);
            for p in 0..self.k {
                let b = b.row(p);
                s0 = add::<FMA, W>(s0, a0[p], b);
                s1 = add::<FMA, W>(s1, a1[p], b);
                s2 = add::<FMA, W>(s2, a2[p], b);
                s3 = add::<FMA, W>(s3, a3[p], b);
            }
        }
        for (i, sums) in [s0, s1, s2, s3].iter().enumerate() {
            self.put(row + i, column, &sums[..used]);
        }
    }

    /// One row.
    #[inline(always)]
    fn one_row<const FMA: bool, const W: usize>(
        &mut self,
        b: &Panel<'_>,
        row: usize,
        column: usize,
        used: usize,
    ) {
        let mut sums = self.first::<W>(row, column, used);
        for p in 0..self.k {
            let a = match self.transposed {
                true => self.a[p * self.m + row],
                false => self.a[row * self.k + p],
            };
            sums = add::<FMA, W>(sums, a, b.row(p));
        }
        self.put(row, column, &sums[..used]);
    }

    #[inline(always)]
    fn put(&mut self, row: usize, column: usize, sums: &[f32]) {
        self.c[row * self.n + column..][..sums.len()].copy_from_slice(sums);
    }
}

impl Panel<'_> {
    #[inline(always)]
    fn row<const W: usize>(&self, p: usize) -> &[f32; W] {
        self.numbers[p * self.stride..][..W]
            .first_chunk()
            .expect("as long as asked for")
    }
}

/// `sums + a * b`.
#[inline(always)]
fn add<const FMA: bool, const W: usize>(sums: [f32; W], a: f32, b: &[f32; W]) -> [f32; W] {
    let mut out = sums;
    for j in 0..W {
        out[j] = multiply_add::<FMA>(a, b[j], sums[j]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::rng::Rng;

    #[test]
    fn agrees_with_the_definition() {
        let mut rng = Rng::new(1);
        for (m, n, k) in [
            (1, 1, 1),
            (7, 2, 5),
            (13, 17, 9),
            (8, 64, 4),
            (6, 40, 33),
            (9, 100, 21),
            (6, 19, 2 * PART + 7),
            (3, 11, 0),
        ] {
            let mut numbers =
                |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
            let (a, b, bias) = (numbers(m * k), numbers(k * n), numbers(n));
            let turned: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
            let mut want = vec![0.0f32; m * n];
            for (i, x) in want.iter_mut().enumerate() {
                let (row, column) = (i / n, i % n);
                *x = bias[column]
                    + (0..k)
                        .map(|p| a[row * k + p] * b[p * n + column])
                        .sum::<f32>();
            }
            for transposed in [false, true] {
                let mut c = vec![f32::NAN; m * n];
                Product {
                    m,
                    n,
                    k,
                    a: if transposed { &turned } else { &a },
                    transposed,
                    b: &b,
                    begin: Begin::Row(&bias),
                    c: &mut c,
                }
                .compute();
                // Tiles of both widths take the sums in one order.
                let tiled = |wide: bool| {
                    let mut c = vec![f32::NAN; m * n];
                    let product = Product {
                        m,
                        n,
                        k,
                        a: if transposed { &turned } else { &a },
                        transposed,
                        b: &b,
                        begin: Begin::Row(&bias),
                        c: &mut c,
                    };
                    match wide {
                        true => product.tiles::<false, 32>(),
                        false => product.tiles::<false, 16>(),
                    }
                    c
                };
                assert_eq!(tiled(true), tiled(false), "{m} {n} {k}");
                for (got, want) in c.iter().zip(&want) {
                    assert!(
                        (got - want).abs() < 1e-5 * (10 + k) as f32,
                        "{m} {n} {k} {transposed}: {got} {want}"
                    );
                }
            }
        }
    }
}

//! Runs plain loops compiled for the vector instructions that the machine has.
//!
//! Invariant: a kernel is ordinary safe code, compiled three times: for every machine of the architecture, for AVX2 with FMA, and for
//! AVX-512. Which one runs is asked of the machine, never assumed. Left out: other architectures' extensions beyond what their
//! targets have anyway.

/// A loop to be compiled for several sets of instructions. `run` is to be `#[inline(always)]`, as all that it calls.
pub(super) trait Kernel {
    /// What it gives.
    type Output;

    /// The loop. `FMA` says whether fused multiplication and addition is one instruction.
    fn run<const FMA: bool>(self) -> Self::Output;

    /// The loop for twice as many registers, each twice as wide; the same result bit by bit.
    #[inline(always)]
    fn run_wide(self) -> Self::Output
    where
        Self: Sized,
    {
        self.run::<true>()
    }
}

/// Runs a kernel in the best form that this machine can.
#[inline]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vl") {
        // SAFETY: the machine has both, as the line above found, and with them AVX2 and FMA.
        return unsafe { run_avx512(kernel) };
    }
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: the machine has AVX2 and FMA, as the line above found.
        return unsafe { run_avx2(kernel) };
    }
    kernel.run::<false>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run_wide()
}

/// `a * b + c`, rounded once where that is one instruction.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The exponential, without branch or call; within 3e-7 of its size for `|x| < 87`, beyond which it stays at the
/// value there.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// Added and taken away again, it rounds to a whole number.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    /// The logarithm of 2 in two parts; multiples of the first are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = multiply_add::<FMA>(x, LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let r = multiply_add::<FMA>(whole, -LN2_HIGH, x);
    let r = multiply_add::<FMA>(whole, -LN2_LOW, r);
    // Taylor's series for |r| <= ln(2)/2.
    let mut p = 1.0 / 5_040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = multiply_add::<FMA>(p, r, c);
    }
    let power = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    p * f32::from_bits(power << 23)
}

/// The hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f32) -> f32 {
    1.0 - 2.0 / (exp::<FMA>(2.0 * x.clamp(-12.0, 12.0)) + 1.0)
}

/// The logistic function, `1 / (1 + exp(-x))`, within 2e-7.
#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_the_standard_library() {
        for i in -2000..2000 {
            let x = i as f32 * 0.043_3;
            let (want, got) = (x.exp(), exp::<false>(x));
            assert!(
                (got - want).abs() <= 4e-7 * want || x.abs() > 87.0,
                "exp {x}: {got} {want}"
            );
            let x = i as f32 * 0.007_1;
            assert!((tanh::<false>(x) - x.tanh()).abs() < 3e-7, "tanh {x}");
            let want = 1.0 / (1.0 + (-x).exp());
            assert!((sigmoid::<false>(x) - want).abs() < 2e-7, "sigmoid {x}");
        }
    }
}

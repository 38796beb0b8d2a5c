//! Draws from a seeded generator.

use fastrand::Rng;

/// One of some values. The list must not be empty; of an empty one the default comes back.
pub(super) fn pick<T: Copy + Default>(rng: &mut Rng, values: &[T]) -> T {
    let index = rng.usize(0..values.len().max(1));
    values.get(index).copied().unwrap_or_default()
}

/// A value whose logarithm is uniform between those of the bounds.
pub(super) fn log_uniform(rng: &mut Rng, least: f64, most: f64) -> f64 {
    (least.ln() + rng.f64() * (most.ln() - least.ln())).exp()
}

/// A value rounded to a multiple of `step`, at least one step.
pub(super) fn rounded(value: f64, step: i64) -> i64 {
    // Far inside the range of i64: cores in thousandths, memory in MiB.
    ((value / step as f64).round() as i64).max(1).saturating_mul(step)
}

/// Shares of a total by Zipf's law with exponent 1, in random order, at least one each as long as
/// the total allows.
pub(super) fn zipf(rng: &mut Rng, total: usize, parts: usize) -> Vec<usize> {
    let harmonic: f64 = (1..=parts).map(|rank| 1.0 / rank as f64).sum();
    let spare = total.saturating_sub(parts);
    let mut shares: Vec<usize> = (1..=parts)
        .map(|rank| (spare as f64 / rank as f64 / harmonic).floor() as usize)
        .map(|share| share + usize::from(total >= parts))
        .collect();
    let given: usize = shares.iter().sum();
    if let Some(first) = shares.first_mut() {
        *first += total.saturating_sub(given);
    }
    rng.shuffle(&mut shares);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for total in [0, 7, 200, 1000, 12_345] {
            let shares = zipf(&mut Rng::with_seed(1), total, 200);
            assert_eq!(shares.iter().sum::<usize>(), total);
        }
        let shares = zipf(&mut Rng::with_seed(1), 10_000, 200);
        assert!(shares.iter().all(|share| *share > 0));
        assert!(shares.iter().max() > Some(&1500));
    }
}

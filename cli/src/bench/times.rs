//! Shares of measured times.

use std::time::Duration;

/// The times below which these percentages of all lie, by the nearest rank: of a hundred times the 99th is the
/// 99th. In seconds; zeros if there are none.
pub(super) fn percentiles<const N: usize>(times: &[Duration], shares: [usize; N]) -> [f64; N] {
    let mut times = times.to_vec();
    times.sort_unstable();
    shares.map(|share| {
        let rank = (times.len() * share).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default().as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_by_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(&times, [50, 99, 100]), [0.1, 0.198, 0.2]);
        assert_eq!(percentiles(&times[..1], [50, 99]), [0.2, 0.2]);
        assert_eq!(percentiles(&[], [50]), [0.0]);
    }
}

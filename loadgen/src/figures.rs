//! Medians and rates.

use std::time::Duration;

use serde::Serialize;

/// A figure over several rounds: the median, the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// `None` for no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: middle(&sorted), least, greatest })
    }
}

/// The median; 0 for no figures.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(figures).map_or(0.0, |spread| spread.median)
}

/// Of sorted figures, at least one.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { sorted[half - 1].midpoint(sorted[half]) }
}

/// Milliseconds.
pub(crate) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "a rate of counts")]
pub(crate) fn rate(count: u64, span: Duration) -> f64 {
    count as f64 / span.as_secs_f64()
}

/// How many for each.
#[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
pub(crate) fn each(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

/// Milliseconds that `share` percent stay under.
pub(crate) fn percentile(sorted: &[Duration], share: usize) -> f64 {
    let at = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(0.0, |span| ms(*span))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A figure of an even number of rounds stands between the two in the middle.
    #[test]
    fn a_median_has_as_many_above_as_below() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(Spread::of([]), None);
        let spread = Spread { median: 2.0, least: 1.0, greatest: 3.0 };
        assert_eq!(Spread::of([2.0, 3.0, 1.0]), Some(spread));
    }
}

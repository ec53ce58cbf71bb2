//! Time to place. What happens within microseconds must be seen beside what takes a second: between
//! each two moments at which something begins or ends lies at least a little room, and the rest
//! of it grows with the cube root of the time.

use crate::judge::timeline::Timeline;

/// Share of the room that each two moments get whatever lies between them.
const EVEN: f64 = 0.35;

/// The places of all moments of a timeline.
#[derive(Debug)]
pub(super) struct Scale {
    /// Moments, ascending, each with its place from 0 to 1.
    places: Vec<(u64, f64)>,
}

impl Scale {
    /// Of this timeline.
    pub(super) fn of(timeline: &Timeline) -> Self {
        let bars = timeline.lanes.iter().flat_map(|lane| &lane.bars);
        let mut moments: Vec<_> = bars.flat_map(|bar| [bar.from_ns, bar.to_ns]).collect();
        moments.extend(timeline.faults.iter().map(|fault| fault.at_ns));
        moments.extend([0, timeline.length_ns]);
        moments.sort_unstable();
        moments.dedup();
        let roots = moments
            .windows(2)
            .map(|two| ((two[1] - two[0]) as f64).cbrt());
        let roots: Vec<_> = roots.collect();
        let sum: f64 = roots.iter().sum();
        let even = EVEN / roots.len().max(1) as f64;
        let mut at = 0.0;
        let mut places = Vec::new();
        for (index, moment) in moments.iter().enumerate() {
            places.push((*moment, at));
            if let Some(root) = roots.get(index) {
                at += even + (1.0 - EVEN) * root / sum.max(f64::MIN_POSITIVE);
            }
        }
        Self { places }
    }

    /// A moment's place, from 0 to 1.
    pub(super) fn place(&self, ns: u64) -> f64 {
        match self.places.binary_search_by_key(&ns, |(at, _)| *at) {
            Ok(index) => self.places[index].1,
            // Between two: nothing begins or ends there.
            Err(index) => self.places[index.min(self.places.len() - 1)].1,
        }
    }

    /// Moments with room between them for a label as wide as this share.
    pub(super) fn ticks(&self, apart: f64) -> Vec<(u64, f64)> {
        let mut ticks: Vec<(u64, f64)> = Vec::new();
        for (ns, at) in &self.places {
            if ticks.last().is_none_or(|(_, last)| at - last >= apart) {
                ticks.push((*ns, *at));
            }
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::timeline::{Bar, BarKind, Lane, LaneKind, VERSION};
    use proptest::prelude::*;

    fn timeline(ends: &[u64]) -> Timeline {
        let length_ns = ends.iter().max().copied().unwrap_or(0) + 1;
        let bars = ends.iter().map(|end| Bar {
            from_ns: end / 2,
            to_ns: *end,
            kind: BarKind::Step,
            says: String::new(),
            result: None,
            failed: false,
            open: false,
        });
        Timeline {
            version: VERSION,
            begin_ns: 0,
            length_ns,
            lanes: vec![Lane {
                name: "a".into(),
                kind: LaneKind::Actor,
                bars: bars.collect(),
            }],
            faults: Vec::new(),
        }
    }

    proptest! {
        /// Later is further right, all is within the picture, and no two moments are one.
        #[test]
        fn order_is_kept(ends in proptest::collection::vec(0u64..10_000_000_000, 0..20)) {
            let timeline = timeline(&ends);
            let scale = Scale::of(&timeline);
            let mut moments = ends.clone();
            moments.sort_unstable();
            moments.dedup();
            let places: Vec<_> = moments.iter().map(|ns| scale.place(*ns)).collect();
            prop_assert!(places.windows(2).all(|two| two[0] < two[1]));
            prop_assert!(places.iter().all(|at| (0.0..=1.0 + 1e-9).contains(at)));
            let ticks = scale.ticks(0.1);
            prop_assert!(ticks.windows(2).all(|two| two[1].1 - two[0].1 >= 0.1));
        }
    }
}

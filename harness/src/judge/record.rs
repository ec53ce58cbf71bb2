//! What an episode in fact did, by the guest's clock: the base of a finding's timeline.

use std::collections::VecDeque;

use dk_control::Event;
use knobrig_proto::{EpisodeReport, Rest};
use knobrig_vcpu_proto::Ordered;
use serde::{Deserialize, Serialize};

/// An episode as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the agent tells of it; absent if the guest was gone before it could.
    pub report: Option<EpisodeReport>,
    /// What the device's gates did.
    pub gates: Vec<Seen>,
    /// Which teardowns were seen asleep in the kernel, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asleep: Vec<Rest>,
    /// How far the kernel log's clock is ahead of the guest's `CLOCK_MONOTONIC`, where that is
    /// known.
    #[serde(default)]
    pub log_ahead_ns: Option<i64>,
    /// What came of its delays; absent if there were none, or QEMU was gone before they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delays: Option<Delayed>,
    /// What came of the edges of its order, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Ordered>,
}

/// What came of an episode's delays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delayed {
    /// Instructions that vCPUs passed in the code that was delayed.
    pub instructions: u64,
    /// Delays.
    pub delays: u64,
    /// Their lengths together, in microseconds.
    pub delayed_us: u64,
    /// The last ones, vCPU by vCPU, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Stood>,
}

/// A delay: where a vCPU stood, and where it was next, in bytes of a module's `.text`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stood {
    /// The vCPU.
    pub vcpu: u32,
    /// The module.
    pub module: String,
    /// The instruction that it had not run yet.
    pub at: u64,
    /// The one that it ran next after that, if it did.
    pub next: Option<u64>,
}

impl Record {
    /// A time of the kernel log, in microseconds, as the guest's.
    pub fn of_log(&self, time_us: u64) -> Option<u64> {
        let log_ns = time_us.checked_mul(1000)?;
        log_ns.checked_add_signed(self.log_ahead_ns?.checked_neg()?)
    }
}

/// Something that the device told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The guest's `CLOCK_MONOTONIC`, in nanoseconds. The device has the host's clock; what lies
    /// between the two is taken from the guest's own messages, and may be wrong by as long as the
    /// quickest of these was under way, well below a millisecond.
    pub guest_ns: u64,
    /// What.
    pub event: Event,
}

/// What lies between the guest's clock and its kernel log's: the same markers by either. The agent
/// tells of an episode's marker when that is over, the console when it comes to it.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    written: VecDeque<(String, u64)>,
    logged: VecDeque<(String, u64)>,
    ahead_ns: Option<i64>,
}

/// Markers that a [`LogClock`] keeps of either kind; a console is episodes behind at times.
const MARKERS: usize = 64;

impl LogClock {
    /// A marker was written at this time of the guest's, in nanoseconds.
    pub fn written(&mut self, marker: &str, ns: u64) {
        keep(&mut self.written, marker, ns);
        self.compare(marker);
    }

    /// The log has a marker at this time of its own, in microseconds.
    pub fn logged(&mut self, marker: &str, us: u64) {
        keep(&mut self.logged, marker, us);
        self.compare(marker);
    }

    /// How far the log's clock is ahead, if a marker is known by both.
    pub fn ahead_ns(&self) -> Option<i64> {
        self.ahead_ns
    }

    fn compare(&mut self, marker: &str) {
        let of = |markers: &VecDeque<(String, u64)>| {
            let found = markers.iter().rfind(|(name, _)| name == marker);
            found.map(|(_, time)| *time)
        };
        if let (Some(ns), Some(us)) = (of(&self.written), of(&self.logged)) {
            let log_ns = us.checked_mul(1000).and_then(|ns| i64::try_from(ns).ok());
            let apart = log_ns.zip(i64::try_from(ns).ok());
            self.ahead_ns = apart.map(|(log, ns)| log - ns).or(self.ahead_ns);
        }
    }
}

fn keep(markers: &mut VecDeque<(String, u64)>, marker: &str, time: u64) {
    if markers.len() == MARKERS {
        markers.pop_front();
    }
    markers.push_back((marker.to_owned(), time));
}

/// What lies between the guest's clock and the host's.
///
/// A message that says when it was sent came at least as much later as it was under way: the least
/// difference of all is the best.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    least: Option<i128>,
}

impl Clocks {
    /// A message sent at `guest_ns` was there at `host_ns`.
    pub fn message(&mut self, guest_ns: u64, host_ns: u64) {
        let apart = i128::from(host_ns) - i128::from(guest_ns);
        self.least = Some(self.least.map_or(apart, |least| least.min(apart)));
    }

    /// The host's time as the guest's; none before the first message.
    pub fn to_guest(self, host_ns: u64) -> Option<u64> {
        u64::try_from(i128::from(host_ns) - self.least?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_that_both_know_tells_the_log_s_clock() {
        let mut clock = LogClock::default();
        clock.written("episode 1", 5_000);
        clock.logged("episode 0", 1);
        assert_eq!(clock.ahead_ns(), None);
        clock.written("episode 2", 9_000);
        // The console is an episode behind.
        clock.logged("episode 1", 7);
        assert_eq!(clock.ahead_ns(), Some(2_000));
        clock.logged("episode 2", 12);
        assert_eq!(clock.ahead_ns(), Some(3_000));
    }

    #[test]
    fn the_quickest_message_tells_the_difference() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.to_guest(5_000), None);
        clocks.message(1_000, 5_400);
        clocks.message(2_000, 6_100);
        clocks.message(3_000, 7_900);
        assert_eq!(clocks.to_guest(9_100), Some(5_000));
        assert_eq!(clocks.to_guest(100), None);
    }
}

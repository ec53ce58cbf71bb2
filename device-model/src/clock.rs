//! The time of every record, event and deadline: the host's `CLOCK_MONOTONIC`.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// Nanoseconds of the host's `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Counts from the boot: neither part is negative, and 64 bits of ns last 584 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

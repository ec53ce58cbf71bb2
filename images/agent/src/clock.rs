//! The one clock of every time that the agent tells: `CLOCK_MONOTONIC`, which starts at boot.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither part of a monotonic time is negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Milliseconds since boot.
pub fn uptime_ms() -> u64 {
    now_ns() / 1_000_000
}

//! The rate of this machine's time-stamp counter, which is a TCG guest's.
//!
//! QEMU hands the host's counter on (cpu_get_host_ticks()), and a guest kernel measures its rate
//! against the emulated PIT as it boots. On a busy host that goes wrong by a factor of eight, and
//! so does all of that guest's time: deadlines are over long before they are. So it is told.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Between the two looks. The clocks are read within some ten nanoseconds of each other, so that
/// the rate is good to some parts in a million.
const APART: Duration = Duration::from_millis(10);
/// A look is disturbed if the thread is preempted in it; the best of so many isn't.
const LOOKS: usize = 32;

/// Its rate in kHz; none on a machine that has no such counter.
pub(super) fn khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(|| {
        let (first, then) = look()?;
        std::thread::sleep(APART);
        let (last, now) = look()?;
        rate(last.checked_sub(first)?, now - then)
    })
}

fn rate(ticks: u64, time: Duration) -> Option<u64> {
    let khz = u128::from(ticks) * 1_000_000 / time.as_nanos().max(1);
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// The counter, and when it stood so.
fn look() -> Option<(u64, Instant)> {
    (0..LOOKS)
        .map(|_| {
            let before = Instant::now();
            let ticks = counter()?;
            let after = Instant::now();
            Some((after - before, ticks, before + (after - before) / 2))
        })
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .min_by_key(|(took, ..)| *took)
        .map(|(_, ticks, at)| (ticks, at))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 CPU has the instruction, and Linux doesn't keep it from user space.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_ticks_in_a_millisecond() {
        assert_eq!(rate(24_450_000, Duration::from_millis(10)), Some(2_445_000));
        assert_eq!(rate(0, Duration::from_millis(10)), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree() {
        let once = || {
            let (first, then) = look().expect("a counter");
            std::thread::sleep(APART);
            let (last, now) = look().expect("a counter");
            rate(last - first, now - then).expect("it counts")
        };
        let (one, other) = (once(), once());
        assert!(one.abs_diff(other) < one / 1000, "{one} and {other} kHz");
    }
}

//! What is armed. One thread arms and disarms; vCPUs only look, without a lock, since each
//! instruction of a driver comes by here.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use knobrig_vcpu_proto::{Counts, Dice, Law, MOST_RANGES, RECENT, Range, Stood};

/// vCPUs that are told apart; QEMU's are numbered from 0. More than a guest of ours has.
const VCPUS: usize = 64;
/// Shorter delays are spun: the host's timers take longer than that.
const SPUN: Duration = Duration::from_micros(60);

/// An armed law, or none.
#[derive(Debug)]
pub struct Armed {
    /// Which law it is, counted; 0 while nothing is armed.
    epoch: AtomicU64,
    ranges: [(AtomicU64, AtomicU64); MOST_RANGES],
    count: AtomicUsize,
    seed: AtomicU64,
    one_in: AtomicU32,
    longest_us: AtomicU32,
    vcpus: [Vcpu; VCPUS],
    /// The last law's number.
    last: AtomicU64,
}

/// What one vCPU has come to; only its own thread changes it. On a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Vcpu {
    /// The law that the rest is of.
    epoch: AtomicU64,
    dice: AtomicU64,
    /// Instructions up to the next delay.
    left: AtomicU64,
    instructions: AtomicU64,
    delays: AtomicU64,
    delayed_us: AtomicU64,
    /// The last delays, in turns: where, and where it was next.
    recent: [(AtomicU64, AtomicU64); RECENT],
}

impl Vcpu {
    const fn new() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            dice: AtomicU64::new(0),
            left: AtomicU64::new(0),
            instructions: AtomicU64::new(0),
            delays: AtomicU64::new(0),
            delayed_us: AtomicU64::new(0),
            recent: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; RECENT],
        }
    }

    /// The place of the how-manieth delay, from 1.
    fn place(&self, delay: u64) -> Option<&(AtomicU64, AtomicU64)> {
        self.recent.get(delay.checked_sub(1)? as usize % RECENT)
    }

    /// The last delays, the latest first.
    fn recent(&self, number: u32) -> impl Iterator<Item = Stood> {
        let delays = self.delays.load(Ordering::Relaxed);
        let last = (1..=delays).rev().take(RECENT);
        last.filter_map(move |delay| {
            let (at, next) = self.place(delay)?;
            Some(Stood {
                vcpu: number,
                at: at.load(Ordering::Relaxed),
                next: next.load(Ordering::Relaxed),
            })
        })
    }
}

impl Armed {
    /// Nothing.
    pub const fn nothing() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            ranges: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; MOST_RANGES],
            count: AtomicUsize::new(0),
            seed: AtomicU64::new(0),
            one_in: AtomicU32::new(1),
            longest_us: AtomicU32::new(1),
            vcpus: [const { Vcpu::new() }; VCPUS],
            last: AtomicU64::new(0),
        }
    }

    /// Arms a law; the ranges beyond [`MOST_RANGES`] are left out. A vCPU that is just coming by may
    /// still go by the law before, once.
    pub fn arm(&self, ranges: &[Range], law: Law) {
        self.epoch.store(0, Ordering::Release);
        for (slot, range) in self.ranges.iter().zip(ranges) {
            slot.0.store(range.start, Ordering::Relaxed);
            slot.1.store(range.end, Ordering::Relaxed);
        }
        let count = ranges.len().min(MOST_RANGES);
        self.count.store(count, Ordering::Relaxed);
        self.seed.store(law.seed, Ordering::Relaxed);
        self.one_in.store(law.one_in, Ordering::Relaxed);
        self.longest_us.store(law.longest_us, Ordering::Relaxed);
        let epoch = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Disarms what is armed, and tells what came of it.
    pub fn disarm(&self) -> Counts {
        self.epoch.store(0, Ordering::Release);
        let last = self.last.load(Ordering::Relaxed);
        let mut counts = Counts::default();
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            if last != 0 && vcpu.epoch.load(Ordering::Acquire) == last {
                counts.instructions += vcpu.instructions.load(Ordering::Relaxed);
                counts.delays += vcpu.delays.load(Ordering::Relaxed);
                counts.delayed_us += vcpu.delayed_us.load(Ordering::Relaxed);
                counts.recent.extend(vcpu.recent(number as u32));
            }
        }
        counts
    }

    /// A vCPU is about to run the instruction at this address. Returns when it may.
    pub fn pass(&self, vcpu: usize, address: u64) {
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 || !self.has(address) {
            return;
        }
        if let Some(us) = self.step(epoch, vcpu, address) {
            let length = Duration::from_micros(us);
            match length < SPUN {
                true => spin(length),
                false => std::thread::sleep(length),
            }
        }
    }

    fn has(&self, address: u64) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        (self.ranges.iter().take(count)).any(|(start, end)| {
            (start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&address)
        })
    }

    /// Counts an instruction; gives the delay that is due before it, in microseconds.
    fn step(&self, epoch: u64, number: usize, address: u64) -> Option<u64> {
        let vcpu = self.vcpus.get(number)?;
        let one_in = self.one_in.load(Ordering::Relaxed);
        if vcpu.epoch.load(Ordering::Relaxed) != epoch {
            let mut dice = Dice::new(self.seed.load(Ordering::Relaxed), number as u64);
            vcpu.left.store(dice.gap(one_in), Ordering::Relaxed);
            vcpu.dice.store(dice.state(), Ordering::Relaxed);
            for count in [&vcpu.instructions, &vcpu.delays, &vcpu.delayed_us] {
                count.store(0, Ordering::Relaxed);
            }
            vcpu.epoch.store(epoch, Ordering::Release);
        }
        add(&vcpu.instructions, 1);
        if let Some((_, next)) = vcpu.place(vcpu.delays.load(Ordering::Relaxed))
            && next.load(Ordering::Relaxed) == 0
        {
            next.store(address, Ordering::Relaxed);
        }
        let left = vcpu.left.load(Ordering::Relaxed);
        if left > 1 {
            vcpu.left.store(left - 1, Ordering::Relaxed);
            return None;
        }
        let mut dice = Dice::resume(vcpu.dice.load(Ordering::Relaxed));
        let us = dice.length(self.longest_us.load(Ordering::Relaxed));
        vcpu.left.store(dice.gap(one_in), Ordering::Relaxed);
        vcpu.dice.store(dice.state(), Ordering::Relaxed);
        add(&vcpu.delays, 1);
        add(&vcpu.delayed_us, us);
        if let Some((at, next)) = vcpu.place(vcpu.delays.load(Ordering::Relaxed)) {
            at.store(address, Ordering::Relaxed);
            next.store(0, Ordering::Relaxed);
        }
        Some(us)
    }
}

/// Adds to what only this thread changes.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

fn spin(length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Range = Range {
        start: 0x1000,
        end: 0x2000,
    };

    fn law(seed: u64) -> Law {
        Law {
            seed,
            one_in: 10,
            longest_us: 2,
        }
    }

    #[test]
    fn only_what_is_armed_is_delayed_and_counted() {
        let armed = Armed::nothing();
        for _ in 0..1000 {
            armed.pass(0, 0x1000);
        }
        assert_eq!(armed.disarm(), Counts::default());
        armed.arm(&[TEXT], law(1));
        for _ in 0..1000 {
            armed.pass(0, 0x0fff);
            armed.pass(0, 0x1fff);
            armed.pass(1, 0x1000);
            armed.pass(1, 0x2000);
            armed.pass(VCPUS, 0x1000);
        }
        let counts = armed.disarm();
        assert_eq!(counts.instructions, 2000);
        assert!((150..250).contains(&counts.delays), "{counts:?}");
        assert!((counts.delays..=2 * counts.delays).contains(&counts.delayed_us));
        for _ in 0..1000 {
            armed.pass(0, 0x1000);
        }
        assert_eq!(armed.disarm(), counts, "nothing comes after the end");
    }

    #[test]
    fn where_a_vcpu_stood_and_was_next_is_remembered() {
        let armed = Armed::nothing();
        let each = Law {
            one_in: 1,
            ..law(1)
        };
        armed.arm(&[TEXT], each);
        for address in 0x1000..0x1000 + RECENT as u64 + 2 {
            armed.pass(3, address);
        }
        let recent = armed.disarm().recent;
        assert_eq!(recent.len(), RECENT);
        let last = 0x1000 + RECENT as u64 + 1;
        let stood = |at, next| Stood { vcpu: 3, at, next };
        assert_eq!(recent[..2], [stood(last, 0), stood(last - 1, last)]);
    }

    #[test]
    fn a_law_that_is_armed_again_is_the_same() {
        let armed = Armed::nothing();
        let run = |seed| {
            armed.arm(&[TEXT], law(seed));
            for _ in 0..500 {
                armed.pass(0, 0x1800);
            }
            armed.disarm()
        };
        let first = run(7);
        let other = run(8);
        assert_eq!(run(7), first);
        assert_ne!(other, first);
        armed.arm(&[TEXT], law(7));
        assert_eq!(armed.disarm(), Counts::default(), "counts begin anew");
    }
}

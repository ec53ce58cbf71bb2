//! Orders between points of vCPUs: who comes to the later end of an edge is held there until the
//! earlier end was reached. A vCPU that stands still keeps interrupts and RCU waiting, so each wait
//! has a deadline, and one that runs out ends all others: that order can't be.
//!
//! As in `armed`, one thread arms and disarms, and vCPUs look without a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use knobrig_vcpu_proto::{Edge, MOST_EDGES, Ordered, Point};

/// Who waits looks this often. The host gets the CPU meanwhile: the one that is waited for may
/// need it.
const LOOK: Duration = Duration::from_micros(20);

/// Armed orders, or none.
#[derive(Debug)]
pub struct Orders {
    /// Which orders they are, counted; 0 while none are armed.
    epoch: AtomicU64,
    last: AtomicU64,
    edges: [Held; MOST_EDGES],
    count: AtomicUsize,
    deadline_us: AtomicU32,
    /// A wait was in vain: nobody waits any more.
    free: AtomicBool,
}

/// An edge, and how far it has come.
#[derive(Debug)]
struct Held {
    before: Arrivals,
    after: Arrivals,
    waited_us: AtomicU64,
    in_vain: AtomicBool,
}

/// A point, and how often it was come to.
#[derive(Debug)]
struct Arrivals {
    vcpu: AtomicU32,
    address: AtomicU64,
    nth: AtomicU32,
    count: AtomicU32,
}

impl Arrivals {
    const fn none() -> Self {
        Self {
            vcpu: AtomicU32::new(0),
            address: AtomicU64::new(0),
            nth: AtomicU32::new(0),
            count: AtomicU32::new(0),
        }
    }

    fn set(&self, point: Point) {
        self.vcpu.store(point.vcpu, Ordering::Relaxed);
        self.address.store(point.address, Ordering::Relaxed);
        self.nth.store(point.nth, Ordering::Relaxed);
        self.count.store(0, Ordering::Relaxed);
    }

    /// The vCPU comes to the address; true if that is the point.
    fn comes(&self, vcpu: u32, address: u64) -> bool {
        self.address.load(Ordering::Relaxed) == address
            && self.vcpu.load(Ordering::Relaxed) == vcpu
            && self.count.fetch_add(1, Ordering::AcqRel) + 1 == self.nth.load(Ordering::Relaxed)
    }

    fn reached(&self) -> bool {
        self.count.load(Ordering::Acquire) >= self.nth.load(Ordering::Relaxed)
    }
}

impl Orders {
    /// None.
    pub const fn none() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            last: AtomicU64::new(0),
            edges: [const {
                Held {
                    before: Arrivals::none(),
                    after: Arrivals::none(),
                    waited_us: AtomicU64::new(0),
                    in_vain: AtomicBool::new(false),
                }
            }; MOST_EDGES],
            count: AtomicUsize::new(0),
            deadline_us: AtomicU32::new(0),
            free: AtomicBool::new(false),
        }
    }

    /// Arms these; edges beyond [`MOST_EDGES`] are left out.
    pub fn arm(&self, edges: &[Edge], deadline_us: u32) {
        self.epoch.store(0, Ordering::Release);
        for (held, edge) in self.edges.iter().zip(edges) {
            held.before.set(edge.before);
            held.after.set(edge.after);
            held.waited_us.store(0, Ordering::Relaxed);
            held.in_vain.store(false, Ordering::Relaxed);
        }
        let count = edges.len().min(MOST_EDGES);
        self.count.store(count, Ordering::Relaxed);
        self.deadline_us.store(deadline_us, Ordering::Relaxed);
        self.free.store(false, Ordering::Relaxed);
        let epoch = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Disarms them: whoever waits goes on. Tells what came of each.
    pub fn disarm(&self) -> Vec<Ordered> {
        self.epoch.store(0, Ordering::Release);
        let count = self.count.swap(0, Ordering::Relaxed);
        let edges = self.edges.iter().take(count);
        let ordered = edges.map(|held| Ordered {
            before: held.before.reached(),
            after: held.after.reached(),
            waited_us: held.waited_us.load(Ordering::Relaxed),
            in_vain: held.in_vain.load(Ordering::Relaxed),
        });
        ordered.collect()
    }

    /// A vCPU is about to run the instruction at this address. Returns when it may.
    pub fn pass(&self, vcpu: u32, address: u64) {
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            return;
        }
        let edges = &self.edges[..self.count.load(Ordering::Relaxed).min(MOST_EDGES)];
        // Whoever waits for this vCPU goes on before it waits itself.
        for held in edges {
            held.before.comes(vcpu, address);
        }
        for held in edges {
            if held.after.comes(vcpu, address) {
                self.wait(epoch, held);
            }
        }
    }

    fn wait(&self, epoch: u64, held: &Held) {
        let begun = Instant::now();
        let most = Duration::from_micros(self.deadline_us.load(Ordering::Relaxed).into());
        while self.epoch.load(Ordering::Acquire) == epoch
            && !held.before.reached()
            && !self.free.load(Ordering::Acquire)
        {
            if begun.elapsed() >= most {
                held.in_vain.store(true, Ordering::Relaxed);
                self.free.store(true, Ordering::Release);
            }
            std::thread::sleep(LOOK);
        }
        let waited = begun.elapsed().as_micros() as u64;
        held.waited_us.store(waited, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn point(vcpu: u32, address: u64) -> Point {
        Point {
            vcpu,
            address,
            nth: 1,
            thread: None,
        }
    }

    fn edge(before: Point, after: Point) -> Edge {
        Edge { before, after }
    }

    /// Long enough that a wait which should end by itself is seen to.
    const LONG_US: u32 = 10_000_000;

    /// Two threads as vCPUs, each through its addresses; gives the order in which they went on.
    fn run(orders: &Orders, ways: [&[u64]; 2]) -> Vec<(u32, u64)> {
        let went = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (vcpu, way) in (0..).zip(ways) {
                let went = &went;
                scope.spawn(move || {
                    for address in way {
                        orders.pass(vcpu, *address);
                        went.lock().expect("unpoisoned").push((vcpu, *address));
                    }
                });
            }
        });
        went.into_inner().expect("unpoisoned")
    }

    #[test]
    fn an_order_is_as_asked() {
        let orders = Orders::none();
        for _ in 0..50 {
            // 0 comes to 1, then 1 goes from 10 to 11, then 0 goes on at 2.
            let edges = [
                edge(point(0, 1), point(1, 10)),
                edge(point(1, 11), point(0, 2)),
            ];
            orders.arm(&edges, LONG_US);
            let went = run(&orders, [&[1, 2, 3], &[10, 11]]);
            let place = |it| went.iter().position(|at| *at == it);
            assert!(place((0, 2)) > place((1, 10)), "{went:?}");
            let ordered = orders.disarm();
            assert!(
                ordered
                    .iter()
                    .all(|it| it.before && it.after && !it.in_vain)
            );
        }
    }

    #[test]
    fn an_order_that_cannot_be_ends_by_its_deadline() {
        let orders = Orders::none();
        // Each waits for what the other does after its wait.
        let edges = [
            edge(point(0, 2), point(1, 10)),
            edge(point(1, 11), point(0, 1)),
        ];
        orders.arm(&edges, 2_000);
        let went = run(&orders, [&[1, 2], &[10, 11]]);
        assert_eq!(went.len(), 4);
        let ordered = orders.disarm();
        assert!(ordered.iter().any(|it| it.in_vain), "{ordered:?}");
    }

    #[test]
    fn only_the_occurrence_that_is_meant_waits() {
        let orders = Orders::none();
        let mut third = point(0, 7);
        third.nth = 3;
        orders.arm(&[edge(point(1, 9), third)], 2_000);
        for _ in 0..2 {
            orders.pass(0, 7);
        }
        assert!(!orders.disarm()[0].after);
        orders.arm(&[edge(point(1, 9), third)], 2_000);
        for _ in 0..4 {
            orders.pass(0, 7);
        }
        let ordered = orders.disarm();
        assert!(ordered[0].after && ordered[0].in_vain && !ordered[0].before);
    }

    #[test]
    fn a_disarmed_order_holds_nobody() {
        let orders = Orders::none();
        orders.arm(&[edge(point(1, 9), point(0, 7))], LONG_US);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| orders.pass(0, 7));
            while !orders.edges[0].after.reached() {
                std::thread::yield_now();
            }
            let ordered = orders.disarm();
            waiter.join().expect("it goes on");
            assert!(!ordered[0].in_vain);
        });
        orders.pass(0, 7);
        assert_eq!(orders.disarm(), []);
    }
}

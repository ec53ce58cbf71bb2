//! Orders between points of vCPUs, for a gate before which all vCPUs stop together: who has come
//! where, who is to wait, until when. Decides; carries out nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use knobrig_vcpu_proto::{Edge, Ordered, Point};

/// A vCPU that stands before an instruction at which it was to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stands {
    pub(super) vcpu: u32,
    pub(super) address: u64,
    /// Which thread of the guest runs on it.
    pub(super) thread: u64,
}

/// Orders, and how far they have come.
#[derive(Debug)]
pub(super) struct Board {
    edges: Vec<Held>,
    longest: Duration,
    /// A wait was in vain: nobody waits any more, and nobody is watched.
    free: bool,
}

#[derive(Debug)]
struct Held {
    before: Arrivals,
    after: Arrivals,
    /// Somebody has waited at its later end since then.
    since: Option<Instant>,
    waited: Duration,
    in_vain: bool,
}

/// A point, and how often it was come to.
#[derive(Debug)]
struct Arrivals {
    point: Point,
    count: u32,
}

impl Arrivals {
    fn of(point: Point) -> Self {
        Self { point, count: 0 }
    }

    /// Counts who comes; true if that is the point. Another thread that comes by is nobody's
    /// arrival.
    fn comes(&mut self, who: &Stands) -> bool {
        let here = (who.vcpu, who.address) == (self.point.vcpu, self.point.address);
        let meant = here && self.point.thread.is_none_or(|it| it == who.thread);
        self.count += u32::from(meant);
        meant && self.count == self.point.nth
    }

    fn reached(&self) -> bool {
        self.count >= self.point.nth
    }
}

impl Board {
    /// Nobody has come anywhere; nobody is to wait longer than so long.
    pub(super) fn new(edges: &[Edge], longest: Duration) -> Self {
        let held = |edge: &Edge| Held {
            before: Arrivals::of(edge.before),
            after: Arrivals::of(edge.after),
            since: None,
            waited: Duration::ZERO,
            in_vain: false,
        };
        Self {
            edges: edges.iter().map(held).collect(),
            longest,
            free: false,
        }
    }

    /// Instructions at which somebody is still to be stopped.
    pub(super) fn addresses(&self) -> BTreeSet<u64> {
        let points = self.edges.iter().flat_map(|it| [&it.before, &it.after]);
        let open = points.filter(|it| !self.free && !it.reached());
        open.map(|it| it.point.address).collect()
    }

    /// These have come there, all at once.
    pub(super) fn come(&mut self, all: &[Stands], now: Instant) {
        // Whoever waits for one of them goes on before that one waits itself.
        for held in &mut self.edges {
            for who in all {
                held.before.comes(who);
            }
        }
        for held in &mut self.edges {
            if all.iter().any(|who| held.after.comes(who)) && !self.free {
                held.since = Some(now);
            }
        }
        self.settle(now);
    }

    /// Ends the waits that have an end.
    fn settle(&mut self, now: Instant) {
        for held in &mut self.edges {
            if let Some(since) = held.since.filter(|_| self.free || held.before.reached()) {
                held.waited = now.saturating_duration_since(since);
                held.since = None;
            }
        }
    }

    /// Whether this vCPU is to stand still.
    pub(super) fn waits(&self, vcpu: u32) -> bool {
        let mut edges = self.edges.iter();
        edges.any(|it| it.since.is_some() && it.after.point.vcpu == vcpu)
    }

    /// When the next wait has lasted too long.
    pub(super) fn end(&self) -> Option<Instant> {
        let since = self.edges.iter().filter_map(|it| it.since).min()?;
        Some(since + self.longest)
    }

    /// Where a wait has lasted too long this order can't be, and all go on.
    pub(super) fn give_up(&mut self, now: Instant) {
        let longest = self.longest;
        self.free_if(now, |since| now >= since + longest);
    }

    /// All wait, so that nobody is left to come where one of them waits for him.
    pub(super) fn contradicts(&mut self, now: Instant) {
        self.free_if(now, |_| true);
    }

    fn free_if(&mut self, now: Instant, in_vain: impl Fn(Instant) -> bool) {
        for held in &mut self.edges {
            held.in_vain |= held.since.is_some_and(&in_vain);
            self.free |= held.in_vain;
        }
        self.settle(now);
    }

    /// What came of it. Nobody waits any more.
    pub(super) fn outcome(mut self, now: Instant) -> Vec<Ordered> {
        self.free = true;
        self.settle(now);
        let ordered = self.edges.iter().map(|held| Ordered {
            before: held.before.reached(),
            after: held.after.reached(),
            waited_us: held.waited.as_micros() as u64,
            in_vain: held.in_vain,
        });
        ordered.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(1);

    fn point(vcpu: u32, address: u64) -> Point {
        Point {
            vcpu,
            address,
            nth: 1,
            thread: None,
        }
    }

    fn stands(vcpu: u32, address: u64) -> Stands {
        Stands {
            vcpu,
            address,
            thread: 7,
        }
    }

    /// 0 comes to 1, then 1 goes from 10 to 11, then 0 goes on at 2.
    fn pair() -> Board {
        let edges = [(point(0, 1), point(1, 10)), (point(1, 11), point(0, 2))];
        let edges = edges.map(|(before, after)| Edge { before, after });
        Board::new(&edges, LONGEST)
    }

    #[test]
    fn who_is_too_early_waits_until_the_other_has_come() {
        let (mut board, now) = (pair(), Instant::now());
        board.come(&[stands(1, 10)], now);
        assert!(board.waits(1) && !board.waits(0));
        assert_eq!(board.addresses(), BTreeSet::from([1, 2, 11]));
        let later = now + Duration::from_millis(5);
        board.come(&[stands(0, 1)], later);
        assert!(!board.waits(1));
        board.come(&[stands(0, 2)], later);
        assert!(board.waits(0) && board.end() == Some(later + LONGEST));
        board.come(&[stands(1, 11)], later);
        assert!(!board.waits(0) && board.addresses().is_empty());
        let outcome = board.outcome(later);
        assert!(
            outcome
                .iter()
                .all(|it| it.before && it.after && !it.in_vain)
        );
        assert_eq!(outcome[0].waited_us, 5000);
    }

    #[test]
    fn who_comes_at_once_with_whom_he_waits_for_does_not_wait() {
        let (mut board, now) = (pair(), Instant::now());
        board.come(&[stands(1, 10), stands(0, 1)], now);
        assert!(!board.waits(0) && !board.waits(1));
    }

    #[test]
    fn a_wait_that_lasts_too_long_frees_all() {
        let (mut board, now) = (pair(), Instant::now());
        board.come(&[stands(1, 10)], now);
        board.give_up(now);
        assert!(board.waits(1));
        board.give_up(now + LONGEST);
        assert!(!board.waits(1) && board.addresses().is_empty() && board.end().is_none());
        let outcome = board.outcome(now + LONGEST);
        assert!(outcome[0].in_vain && outcome[0].after && !outcome[0].before);
        assert!(!outcome[1].in_vain && outcome[0].waited_us == 1_000_000);
    }

    #[test]
    fn when_all_wait_nobody_is_waited_for() {
        let (mut board, now) = (pair(), Instant::now());
        board.come(&[stands(1, 10), stands(0, 2)], now);
        assert!(board.waits(0) && board.waits(1));
        board.contradicts(now);
        assert!(!board.waits(0) && !board.waits(1));
        assert!(board.outcome(now).iter().all(|it| it.in_vain));
    }

    #[test]
    fn only_the_thread_and_the_occurrence_that_are_meant_count() {
        let after = Point {
            nth: 2,
            thread: Some(7),
            ..point(0, 5)
        };
        let edge = Edge {
            before: point(1, 9),
            after,
        };
        let (mut board, now) = (Board::new(&[edge], LONGEST), Instant::now());
        let other = Stands {
            thread: 8,
            ..stands(0, 5)
        };
        for (who, waits) in [
            (other, false),
            (stands(0, 5), false),
            (other, false),
            (stands(1, 5), false),
            (stands(0, 5), true),
        ] {
            board.come(&[who], now);
            assert_eq!(board.waits(0), waits, "{who:?}");
        }
    }
}

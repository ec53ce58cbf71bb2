//! Which shape an episode has: the usual mix, moved by what pays.
//!
//! A bandit of many arms whose payoffs change while it plays (Exp3.S: P. Auer, N. Cesa-Bianchi,
//! Y. Freund, R. E. Schapire, "The nonstochastic multiarmed bandit problem", SIAM J. Comput. 32(1),
//! 2002), with the usual mix in place of the uniform one: of each shape at least half of its usual
//! share remains, since what did not pay so far may be what finds the next bug. It opens with each kind
//! of each shape once, the quickest first ([`Shape::opens`]), so that half of all is done in a third of the
//! time. A shape of most of the share may come again before any of them: a target that is nearly all of
//! one shape is not to spend its first seconds on the others.
//! The same seed and the same payoffs give the same choices.

use std::collections::{BTreeSet, HashSet, VecDeque};

use knobrig_proto::{EpisodeReport, Repeat};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::oracle::Collisions;
use super::plan::{Plan, Shape};

/// Share of the choices that the usual mix keeps.
const USUAL: f64 = 0.5;
/// Above this usual share, a shape does not wait for the others to have come once.
const MOST: f64 = 0.5;
/// How much a payoff moves.
const RATE: f64 = 0.15;
/// Share of all weight that goes back to the usual mix with each payoff: what paid long ago is
/// forgotten.
const SHARED: f64 = 0.01;
/// Keeps the payoff of a rare shape from counting without bounds (implicit exploration: G. Neu,
/// "Explore no more", NIPS 2015).
const IMPLICIT: f64 = 0.1;
/// Episodes' own random numbers are of the streams below.
const STREAM: u64 = 1 << 63;
/// Orders that are kept. When so many were seen, no order is new.
const ORDERS: usize = 1 << 16;

/// A failure that was not seen before pays this; all else is less.
const NEW_FAILURE: f64 = 1.0;
/// An order of points that was not seen before.
const NEW_ORDER: f64 = 0.2;
/// A teardown that met an op inside the driver.
const OVERLAP: f64 = 0.02;

/// A shape, and how it did.
#[derive(Clone, Debug)]
struct Arm {
    shape: Shape,
    usual: f64,
    weight: f64,
}

/// Chooses shapes.
#[derive(Clone, Debug)]
pub struct Bandit {
    seed: u64,
    arms: Vec<Arm>,
    /// The shapes that were not chosen yet, in the order in which they come, as often as they have kinds.
    opening: VecDeque<Shape>,
}

impl Bandit {
    /// With this usual mix, of any weights, whose shapes have so many kinds.
    pub fn new(seed: u64, usual: &[(Shape, f64)], kinds: impl Fn(Shape) -> usize) -> Self {
        let sum: f64 = usual.iter().map(|(_, weight)| weight).sum();
        let arms = usual.iter().map(|(shape, weight)| Arm {
            shape: *shape,
            usual: weight / sum,
            weight: weight / sum,
        });
        let arms: Vec<_> = arms.collect();
        let any = arms.iter().filter(|arm| arm.usual > 0.0);
        let opening = any.flat_map(|arm| {
            let kinds = 0..kinds(arm.shape).max(1);
            kinds.map(|kind| (arm.shape.opens(kind), arm.shape))
        });
        let mut opening: Vec<_> = opening.collect();
        opening.sort();
        let opening = opening.into_iter().map(|(_, shape)| shape).collect();
        Self {
            seed,
            arms,
            opening,
        }
    }

    /// The chance of each shape.
    pub fn chances(&self) -> impl Iterator<Item = (Shape, f64)> + '_ {
        let sum: f64 = self.arms.iter().map(|arm| arm.weight).sum();
        let chance = move |arm: &Arm| USUAL * arm.usual + (1.0 - USUAL) * arm.weight / sum;
        self.arms.iter().map(move |arm| (arm.shape, chance(arm)))
    }

    /// The shape of an episode, numbered from 1, and its chance; nothing where there are no shapes.
    pub fn choose(&mut self, episode: u64) -> Option<(Shape, f64)> {
        let drawn = numbers(self.seed, episode).random();
        if self.opening.is_empty() {
            return draw(self.chances(), drawn);
        }
        // Whoever has most of the share, or else the next one.
        let most = self.arms.iter().find(|arm| arm.usual > MOST);
        if let Some(most) = most.filter(|most| drawn < most.usual) {
            let (shape, share) = (most.shape, most.usual);
            if let Some(at) = self.opening.iter().position(|it| *it == shape) {
                self.opening.remove(at);
            }
            return Some((shape, share));
        }
        let next = self.opening.pop_front();
        next.map(|shape| (shape, 1.0))
    }

    /// An episode of this shape, chosen with this chance, paid so much, at most 1.
    pub fn paid(&mut self, shape: Shape, chance: f64, payoff: f64) {
        let estimate = payoff.clamp(0.0, 1.0) / (chance + IMPLICIT);
        for arm in self.arms.iter_mut().filter(|arm| arm.shape == shape) {
            arm.weight *= (RATE * estimate).exp();
        }
        let sum: f64 = self.arms.iter().map(|arm| arm.weight).sum();
        for arm in &mut self.arms {
            arm.weight = (1.0 - SHARED) * arm.weight / sum + SHARED * arm.usual;
        }
    }
}

/// One of some shapes by their chances, with its chance.
fn draw(chances: impl Iterator<Item = (Shape, f64)>, drawn: f64) -> Option<(Shape, f64)> {
    let mut left = drawn;
    let mut last = None;
    for (shape, chance) in chances {
        last = Some((shape, chance));
        if left < chance {
            break;
        }
        left -= chance;
    }
    last
}

/// Random numbers for one choice.
fn numbers(seed: u64, choice: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(STREAM | choice);
    rng
}

/// What was seen so far: of that, nothing pays again.
#[derive(Clone, Debug, Default)]
pub struct Novelty {
    orders: HashSet<u64>,
    failures: BTreeSet<String>,
}

impl Novelty {
    /// What an episode pays by what happened in it.
    pub fn episode(&mut self, order: u64, collisions: &Collisions) -> f64 {
        let new = self.orders.len() < ORDERS && self.orders.insert(order);
        match (new, collisions.overlapped) {
            (true, _) => NEW_ORDER,
            (false, 1..) => OVERLAP,
            (false, 0) => 0.0,
        }
    }

    /// What a failure pays.
    pub fn failure(&mut self, key: &str) -> f64 {
        match self.failures.insert(key.to_owned()) {
            true => NEW_FAILURE,
            false => 0.0,
        }
    }
}

/// A number for the order in which an episode's threads began and ended their steps and came to
/// their points. Loops have none.
pub fn order(plan: &Plan, report: &EpisodeReport) -> u64 {
    let mut moments: Vec<(u64, String)> = Vec::new();
    for (actor, went) in plan.episode.actors.iter().zip(&report.actors) {
        if actor.repeat != Repeat::Once {
            continue;
        }
        for (step, outcome) in went.outcomes.iter().enumerate() {
            moments.push((outcome.start_ns, format!("{} {step} begins", actor.name)));
            moments.push((outcome.end_ns, format!("{} {step} ends", actor.name)));
        }
    }
    for (gate, went) in plan.episode.gates.iter().zip(&report.gates) {
        if let Some(hold) = &went.hold {
            let point = format!("{} {:?} {}", gate.function, gate.end, gate.occurrence);
            moments.push((hold.ns, format!("{} at {point}", hold.who)));
        }
    }
    moments.sort();
    let what = format!("{:?} {:?}", plan.shape, plan.program);
    let words = moments.iter().map(|(_, what)| what.as_str());
    words.fold(fnv(FNV, &what), fnv)
}

/// FNV-1a's offset: the hash is the same on every machine and of every version.
const FNV: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, text: &str) -> u64 {
    (text.bytes().chain([0])).fold(hash, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// None has most of the share.
    const USUAL_MIX: [(Shape, f64); 4] = [
        (Shape::Gated, 5.0),
        (Shape::Birth, 3.0),
        (Shape::Late, 1.0),
        (Shape::Loops, 1.0),
    ];

    fn once(_: Shape) -> usize {
        1
    }

    fn chance(bandit: &Bandit, shape: Shape) -> f64 {
        let mut all = bandit.chances().filter(|(it, _)| *it == shape);
        all.next().expect("an arm").1
    }

    proptest! {
        #[test]
        fn the_same_seed_and_payoffs_give_the_same_choices(
            seed: u64, payoffs in proptest::collection::vec(0.0f64..=1.0, 0..40)
        ) {
            let choices = || {
                let mut bandit = Bandit::new(seed, &USUAL_MIX, once);
                let mut chosen = Vec::new();
                for (episode, payoff) in payoffs.iter().enumerate() {
                    let (shape, chance) = bandit.choose(episode as u64 + 1).expect("one");
                    bandit.paid(shape, chance, *payoff);
                    chosen.push(shape);
                }
                chosen
            };
            prop_assert_eq!(choices(), choices());
        }

        #[test]
        fn chances_are_chances_and_nothing_loses_more_than_half(
            seed: u64, payoffs in proptest::collection::vec(0.0f64..=1.0, 0..200)
        ) {
            let mut bandit = Bandit::new(seed, &USUAL_MIX, once);
            for (episode, payoff) in payoffs.iter().enumerate() {
                let (shape, chance) = bandit.choose(episode as u64 + 1).expect("one");
                bandit.paid(shape, chance, *payoff);
                let sum: f64 = bandit.chances().map(|(_, chance)| chance).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9);
                for (shape, usual) in USUAL_MIX {
                    prop_assert!(super::tests::chance(&bandit, shape) >= usual / 10.0 / 2.0 - 1e-9);
                }
            }
        }
    }

    #[test]
    fn what_pays_comes_more_often_until_it_pays_no_more() {
        let mut bandit = Bandit::new(1, &USUAL_MIX, once);
        assert!((chance(&bandit, Shape::Birth) - 0.3).abs() < 1e-9);
        for _ in 0..30 {
            let now = chance(&bandit, Shape::Birth);
            bandit.paid(Shape::Birth, now, 1.0);
        }
        assert!(chance(&bandit, Shape::Birth) > 0.55);
        for _ in 0..400 {
            bandit.paid(Shape::Gated, 0.5, 0.0);
        }
        assert!((chance(&bandit, Shape::Birth) - 0.3).abs() < 0.02);
    }

    #[test]
    fn choices_come_as_often_as_their_chances_say() {
        let mut bandit = Bandit::new(9, &USUAL_MIX, once);
        let chosen = (1..=10_000).filter_map(|episode| bandit.choose(episode));
        let late = chosen.filter(|(shape, _)| *shape == Shape::Late).count();
        assert!((850..1_150).contains(&late), "{late}");
    }

    proptest! {
        #[test]
        fn each_shape_comes_once_before_any_comes_again(seed: u64) {
            let mut bandit = Bandit::new(seed, &USUAL_MIX, once);
            let mut opening: Vec<_> = (1..=4).filter_map(|it| bandit.choose(it)).map(|it| it.0).collect();
            let mut all: Vec<_> = USUAL_MIX.iter().map(|it| it.0).collect();
            opening.sort();
            all.sort();
            prop_assert_eq!(opening, all);
        }
    }

    #[test]
    fn a_shape_opens_as_often_as_it_has_kinds() {
        let kinds = |shape| if shape == Shape::Late { 3 } else { 1 };
        let mut bandit = Bandit::new(5, &USUAL_MIX, kinds);
        let opening = (1..=6).filter_map(|it| bandit.choose(it));
        let late = opening.filter(|it| it.0 == Shape::Late).count();
        assert_eq!(late, 3);
    }

    #[test]
    fn the_quickest_come_first_unless_another_has_most_of_the_share() {
        let first_three = |mix: &[(Shape, f64)]| {
            let mut bandit = Bandit::new(3, mix, once);
            let chosen = (1..=3).filter_map(move |it| bandit.choose(it));
            chosen.map(|it| it.0).collect::<Vec<_>>()
        };
        let [placed, hasty, stress] =
            [Shape::Placed, Shape::Hasty, Shape::Stress].map(|shape| (shape, 1.0));
        let mixed = first_three(&[placed, hasty, stress]);
        assert_eq!(mixed, [Shape::Stress, Shape::Hasty, Shape::Placed]);
        let one = first_three(&[(Shape::Gated, 1_000_000.0), hasty, stress]);
        assert_eq!(one, [Shape::Gated; 3]);
    }

    #[test]
    fn what_has_most_of_the_share_comes_again_in_the_opening() {
        let mix = [
            (Shape::Loops, 90.0),
            (Shape::Gated, 5.0),
            (Shape::Late, 5.0),
        ];
        let first_three = |seed| {
            let mut bandit = Bandit::new(seed, &mix, once);
            let chosen = (1..=3).filter_map(move |it| bandit.choose(it));
            chosen.filter(|it| it.0 == Shape::Loops).count()
        };
        let loops: usize = (0..1_000).map(first_three).sum();
        assert!((2_600..2_850).contains(&loops), "{loops}");
    }

    #[test]
    fn what_has_no_share_never_comes() {
        let mut bandit = Bandit::new(1, &[(Shape::Gated, 0.0), (Shape::Loops, 1.0)], once);
        let chosen: Vec<_> = (1..=20).filter_map(|it| bandit.choose(it)).collect();
        assert!(chosen.iter().all(|(shape, _)| *shape == Shape::Loops));
    }

    #[test]
    fn what_was_seen_pays_no_more() {
        let mut novelty = Novelty::default();
        let none = Collisions::default();
        let overlapped = Collisions {
            overlapped: 1,
            ..none
        };
        assert_eq!(novelty.episode(7, &none), NEW_ORDER);
        assert_eq!(novelty.episode(7, &none), 0.0);
        assert_eq!(novelty.episode(7, &overlapped), OVERLAP);
        assert_eq!(novelty.failure("k"), NEW_FAILURE);
        assert_eq!(novelty.failure("k"), 0.0);
    }
}

//! An episode without its orders, all and each: which of them does the finding need?

use std::collections::BTreeSet;

use super::super::episodes::Episodes;
use super::Edge;
use super::shrink::brisk;
use crate::judge::finding::Name;
use crate::judge::plan::Plan;
use crate::judge::statistics::Rate;
use crate::report::progress::HowFar;
use crate::report::story;

/// Without an order that many episodes that show the finding are enough.
const ENOUGH: u64 = 4;
/// If they come within so many (times as many where it shows by chance), the order isn't needed: it goes.
/// One without which the finding shows now and then makes it certain, and stays.
const SOON: u64 = 5;
/// The longest that a thread waits for another: who waits in vain without an order, does so in each of many
/// episodes.
const PATIENCE_MS: u64 = 500;

/// The orders that a plan needs, each with the rate without it; the others go.
pub(super) struct Proof<'a> {
    pub(super) plan: Plan,
    /// Those that are needed, as far as is known.
    pub(super) edges: Vec<Edge>,
    sought: &'a Name,
    hasty: bool,
    /// As [`SOON`], of this finding.
    soon: u64,
    /// Episodes that show that an order is needed.
    times: u64,
    /// What is tried.
    less: Option<Less>,
    shown: u64,
    tried: u64,
}

/// A plan that lacks all orders, or the one of these words.
struct Less {
    plan: Plan,
    without: Option<String>,
}

impl<'a> Proof<'a> {
    /// Of a plan that shows the finding in one of `rarity` episodes; `times` without an order that is
    /// needed. `hasty` as [`brisk`] has it.
    pub(super) fn new(plan: Plan, sought: &'a Name, hasty: bool, rarity: u64, times: u64) -> Self {
        let mut proof = Self {
            plan,
            edges: Vec::new(),
            sought,
            hasty,
            soon: SOON * rarity,
            times,
            less: None,
            shown: 0,
            tried: 0,
        };
        let all: BTreeSet<_> = proof.plan.edges().into_iter().collect();
        let less = proof.plan.without(&all);
        if all.len() > 1 && sought.may_come_of(&less) {
            proof.less = Some(Less {
                plan: less,
                without: None,
            });
        } else {
            proof.go_on();
        }
        proof
    }

    /// Goes on to the next order.
    fn go_on(&mut self) {
        (self.shown, self.tried, self.less) = (0, 0, None);
        while let Some((part, says)) = (self.plan.edges().into_iter())
            .filter_map(|part| story::edge(&self.plan, &part).map(|says| (part, says)))
            .nth(self.edges.len())
        {
            let plan = self.plan.without(&BTreeSet::from([part]));
            if self.sought.may_come_of(&plan) {
                let without = Some(says);
                self.less = Some(Less { plan, without });
                return;
            }
            let without = None;
            self.edges.push(Edge { says, without });
        }
    }
}

impl Episodes for Proof<'_> {
    fn next(&mut self, number: u64) -> Plan {
        let plan = self.less.as_ref().map_or(&self.plan, |less| &less.plan);
        brisk(plan.numbered(number), self.sought, self.hasty, PATIENCE_MS)
    }

    fn told(&mut self, shown: Option<&str>) {
        self.tried += 1;
        self.shown += u64::from(shown == Some(self.sought.key.as_str()));
        let enough = self.shown >= ENOUGH;
        let needless = enough && self.tried <= self.soon;
        let all = (self.less.as_ref()).is_some_and(|less| less.without.is_none());
        let times = if all { self.soon } else { self.times };
        if !enough && self.tried < times {
            return;
        }
        match self.less.take() {
            Some(less) if needless => {
                self.plan = less.plan;
                // What was seen of those before was seen with it.
                self.edges.clear();
            }
            Some(Less {
                without: Some(says),
                ..
            }) => {
                let without = Some(Rate::wilson(self.shown, self.tried));
                self.edges.push(Edge { says, without });
            }
            _ => {}
        }
        self.go_on();
    }

    fn how_far(&self) -> Option<HowFar> {
        let less = self.less.as_ref()?;
        let what = match &less.without {
            None => "any order".to_owned(),
            Some(says) => format!("this: {says}"),
        };
        let (tried, shown) = (self.tried, self.shown);
        let says = format!("{shown} of {tried} showed it without {what}");
        Some(HowFar { says, share: None })
    }

    fn done(&self) -> bool {
        self.less.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    /// What is proven of a gated plan, where the finding shows without `needed` of its orders as `shows`
    /// says; and in how many episodes.
    fn prove(shows: impl Fn(&Plan, u64) -> bool) -> (Plan, Vec<Edge>, u64) {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 3, 1, &[Shape::Gated]);
        assert!(plan.edges().len() > 1, "{plan:?}");
        let sought = Name {
            title: "it".into(),
            key: "k".into(),
        };
        let mut proof = Proof::new(plan, &sought, false, 1, 60);
        let mut asked = 0;
        while !proof.done() {
            asked += 1;
            let less = proof.next(asked);
            proof.told(shows(&less, asked).then_some("k"));
        }
        (proof.plan, proof.edges, asked)
    }

    #[test]
    fn orders_that_nothing_needs_go_at_once() {
        let (plan, edges, asked) = prove(|_, _| true);
        assert!(edges.is_empty() && asked == ENOUGH, "{edges:?}");
        let left = plan.edges();
        assert!(left.iter().all(|part| story::edge(&plan, part).is_none()));
    }

    #[test]
    fn one_that_is_needed_stays_with_the_rate_without_it() {
        let whole = prove(|_, _| false).1.len();
        let (_, edges, asked) = prove(|_, _| false);
        assert!(whole > 1);
        assert_eq!(asked, SOON + 60 * whole as u64);
        for edge in edges {
            let rate = edge.without.expect("it was tried");
            assert_eq!((rate.hits, rate.attempts), (0, 60));
        }
    }

    /// One in four episodes is not soon, and says enough.
    #[test]
    fn one_without_which_it_shows_by_chance_stays() {
        let (_, edges, _) = prove(|_, number| number.is_multiple_of(4));
        assert!(edges.len() > 1, "{edges:?}");
        for edge in edges {
            let rate = edge.without.expect("it was tried");
            assert!(rate.hits == ENOUGH && rate.attempts > SOON, "{rate:?}");
        }
    }
}

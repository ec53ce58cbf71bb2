//! One episode again and again.

use super::episodes::Episodes;
use crate::judge::plan::Plan;
use crate::judge::statistics::Rate;
use crate::report::progress::HowFar;

/// The same episode again and again: how often does it show one failure?
#[derive(Clone, Debug)]
pub(super) struct Trials<'a> {
    plan: &'a Plan,
    key: &'a str,
    /// So many at most.
    times: u64,
    /// So many that show it are enough.
    enough: u64,
    /// Episodes of one trial, unless it shows the failure before.
    each: u64,
    tried: u64,
    shown: u64,
    /// Episodes of all trials.
    episodes: u64,
    /// Episodes of the trial under way.
    under_way: u64,
}

impl<'a> Trials<'a> {
    /// `times` trials, fewer if `enough` of them show the failure of this key.
    pub(super) fn new(plan: &'a Plan, key: &'a str, times: u64, enough: u64) -> Self {
        Self {
            plan,
            key,
            times,
            enough,
            each: 1,
            tried: 0,
            shown: 0,
            episodes: 0,
            under_way: 0,
        }
    }

    /// With so many episodes in a trial, unless one shows the failure before.
    pub(super) fn of_episodes(self, each: u64) -> Self {
        Self { each, ..self }
    }

    /// How many of the trials showed it.
    pub(super) fn rate(&self) -> Rate {
        Rate::wilson(self.shown, self.tried)
    }

    /// How many of their episodes did.
    pub(super) fn rate_of_episodes(&self) -> Rate {
        Rate::wilson(self.shown, self.episodes)
    }
}

impl Episodes for Trials<'_> {
    fn next(&mut self, number: u64) -> Plan {
        self.plan.numbered(number)
    }

    fn told(&mut self, shown: Option<&str>) {
        let shown = shown == Some(self.key);
        self.episodes += 1;
        self.under_way += 1;
        if shown || self.under_way >= self.each {
            self.tried += 1;
            self.under_way = 0;
        }
        self.shown += u64::from(shown);
    }

    fn how_far(&self) -> Option<HowFar> {
        let says = format!(
            "{} of {} tried, {} showed it",
            self.tried, self.times, self.shown
        );
        let share = Some(self.tried as f64 / self.times.max(1) as f64);
        Some(HowFar { says, share })
    }

    fn done(&self) -> bool {
        self.tried >= self.times || self.shown >= self.enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn a_trial_ends_with_what_it_looks_for_or_with_its_last_episode() {
        let target = Chosen::find("null_blk", None, None).expect("built in");
        let points = Points::default();
        let plan = plan(&target, &points, 1, 1, &[Shape::Loops]);
        let mut trials = Trials::new(&plan, "this", 3, 9).of_episodes(4);
        // Two episodes of the first, four of the second, one of the third.
        let told = [None, Some("this"), None, None, Some("that"), None];
        for shown in told {
            assert!(!trials.done());
            trials.told(shown);
        }
        trials.told(Some("this"));
        assert!(trials.done());
        assert_eq!((trials.rate().hits, trials.rate().attempts), (2, 3));
        assert_eq!(trials.rate_of_episodes().attempts, 7);
    }
}

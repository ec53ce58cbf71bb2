//! What an episode leaves behind can be met by the next one's first steps, before any of its threads
//! begins: an interrupt that was never freed, when the driver asks for it again. The next episode
//! alone would not show that. The one that left it, with those steps after it, does.

use knobrig_proto::Step;

use super::{Expect, Place, Plan};

impl Plan {
    /// The plan with the first steps of the next one after all else, and their checks; nothing where
    /// that doesn't load the same modules: then it need not have gone well in this one.
    pub fn into_next(&self, next: &Self) -> Option<Self> {
        let loaded = loads(self);
        if loaded.is_empty() || loaded != loads(next) {
            return None;
        }
        let mut plan = self.clone();
        let after = &mut plan.episode.after;
        for (at, step) in next.episode.before.iter().enumerate() {
            if next.is_marker(step) {
                continue;
            }
            let place = Place::After(after.len());
            after.push(step.clone());
            let checks = next.checks.iter().filter(|check| {
                let alone = matches!(check.expect, Expect::OkOr(_) | Expect::OneOf(_));
                check.place == Place::Before(at) && alone
            });
            plan.checks.extend(checks.map(|check| {
                let mut check = check.clone();
                check.place = place;
                check
            }));
        }
        Some(plan)
    }
}

/// The modules that are loaded before its threads begin.
fn loads(plan: &Plan) -> Vec<&str> {
    let before = plan.episode.before.iter();
    before
        .filter_map(|step| match step {
            Step::Load { module, .. } => Some(module.as_str()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn what_comes_first_in_the_next_comes_last() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let of = |number, shape| plan(&target, &Points::default(), 1, number, &[shape]);
        let (gated, stress) = (of(1, Shape::Gated), of(2, Shape::Stress));
        let both = gated.into_next(&stress).expect("both load mydrv");
        let added = &both.episode.after[gated.episode.after.len()..];
        // The marker tells who it is, and is the first episode's.
        assert_eq!(added, &stress.episode.before[1..]);
        assert_eq!(both.numbered(7).episode.after, both.episode.after);
        let first = Place::After(gated.episode.after.len());
        assert!(both.checks.iter().any(|check| check.place == first));
        let mut other = stress;
        other
            .episode
            .before
            .retain(|it| !matches!(it, Step::Load { .. }));
        assert_eq!(gated.into_next(&other), None);
    }
}

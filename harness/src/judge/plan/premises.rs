//! What a check stands on. With parts of a plan left out, a correct driver must still pass all checks
//! that are left: else a minimizer would find a failure of its own making.

use std::collections::BTreeSet;

use knobrig_proto::{Slot, Step};

use super::reduce::{Part, orders, place, thread};
use super::{Check, Expect, Place, Plan, Reaction, Rule, Then};

impl Plan {
    /// A check, if all is there that it stands on: what had changed the state that it looks at, the
    /// order in which threads came to it, and, where one result is expected, all that counts.
    pub(super) fn still_expected(&self, check: &Check, gone: &BTreeSet<Part>) -> Option<Check> {
        let here = match check.place {
            Place::Before(_) => return Some(check.clone()),
            Place::Actor(actor, step) => Part::Step(actor, step),
            Place::After(step) => Part::After(step),
        };
        let mut check = check.clone();
        let order = |part: &Part| match part {
            Part::Edge(_) | Part::Order(_) => true,
            _ => self.step_of(part).is_some_and(orders),
        };
        if matches!(here, Part::Step(..)) && gone.iter().any(order) {
            match check.expect {
                Expect::OkWhile(place) => check.expect = Expect::OkWhileServed(place),
                Expect::OkWhileServed(_) | Expect::OkAfter(_) => {}
                _ => return None,
            }
        }
        let exact = matches!(
            check.expect,
            Expect::OneOf(_) | Expect::Text(_) | Expect::Lacks(_) | Expect::Changed { .. }
        );
        // What comes after all threads goes by what all of them did.
        let comes_before = |part: &Part| {
            *part < here && (thread(part) == thread(&here) || matches!(here, Part::After(_)))
        };
        let stands = gone.iter().all(|part| match self.step_of(part) {
            Some(Step::Open { slot, .. }) => !exact || self.is_closed_by(part, *slot, &here),
            Some(_) => !comes_before(part) || !self.changes_state(part),
            None => true,
        });
        stands.then_some(check)
    }

    /// Whether the thread that opens a descriptor closes it again, and does so before it comes to a
    /// place, if that is its own: to whoever looks there, it is as if it had never been open.
    fn is_closed_by(&self, open: &Part, slot: Slot, here: &Part) -> bool {
        let own = thread(open) == thread(here);
        if own && here < open {
            return true;
        }
        let later = self.steps().filter(|(part, _)| {
            thread(part) == thread(open) && part > open && (!own || part < here)
        });
        later
            .into_iter()
            .any(|(_, step)| *step == Step::Close { slot })
    }

    /// Whether what follows goes by what a step does: modules, bindings, files and devices come and
    /// go by it. Opens and closes are looked at in pairs.
    pub(super) fn changes_state(&self, part: &Part) -> bool {
        let by_kind = matches!(
            self.step_of(part),
            Some(
                Step::Load { .. }
                    | Step::Unload { .. }
                    | Step::WriteFile { .. }
                    | Step::Mkdir { .. }
                    | Step::Rmdir { .. }
                    | Step::Mknod { .. }
                    | Step::Hold { .. }
            )
        );
        let by_rule = |check: &Check| {
            let rules = [
                Rule::GivenUp,
                Rule::TearsDown,
                Rule::ComesBack,
                Rule::Unbinds,
            ];
            place(part) == Some(check.place) && rules.contains(&check.rule)
        };
        // The harness does something when a thread comes here.
        let by_host = |reaction: &Reaction| {
            let acts = reaction.then.iter().any(|then| {
                matches!(
                    then,
                    Then::Unplug(_) | Then::Plug(_) | Then::Kill | Then::Revive
                )
            });
            acts && self.settles(reaction) == Some(part.clone())
        };
        by_kind || self.checks.iter().any(by_rule) || self.reactions.iter().any(by_host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::reduce::opened;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;
    use knobrig_proto::Repeat;

    fn chosen(lifetime: &str) -> Chosen {
        Chosen::find("mydrv", Some(lifetime), None).expect("built in")
    }

    /// Whether a check of this rule is left, when parts are left out.
    fn is_checked(whole: &Plan, gone: impl IntoIterator<Item = Part>, rule: Rule) -> bool {
        let less = whole.without(&gone.into_iter().collect());
        less.checks.iter().any(|check| check.rule == rule)
    }

    #[test]
    fn a_refusal_is_expected_only_of_what_pins_and_in_the_order_of_both() {
        let target = chosen("pinned");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Gated]);
        let rule = Rule::RefusedWhilePinned;
        assert!(is_checked(&whole, [], rule));
        for edge in whole.edges() {
            assert!(!is_checked(&whole, [edge], rule));
        }
        let opens = |(part, step): (Part, &Step)| opened(step).map(|_| part);
        let open = whole.steps().find_map(opens).expect("somebody opens");
        assert!(!is_checked(&whole, [open], rule));
    }

    #[test]
    fn a_look_without_its_order_goes_by_who_was_served() {
        let target = chosen("drained");
        let gated = |number| plan(&target, &Points::default(), 1, number, &[Shape::Gated]);
        let looks = |plan: &Plan| {
            plan.checks
                .iter()
                .any(|it| matches!(it.expect, Expect::OkWhile(_)))
        };
        let whole = (1..99).map(gated).find(looks).expect("one with a witness");
        for edge in whole.edges() {
            let less = whole.without(&BTreeSet::from([edge]));
            assert!(!looks(&less));
            let served = |check: &Check| matches!(check.expect, Expect::OkWhileServed(_));
            assert!(less.checks.iter().any(served));
        }
    }

    #[test]
    fn what_comes_afterwards_is_expected_only_of_a_teardown_that_was() {
        let target = chosen("drained");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Stress]);
        let rule = Rule::PathsGone;
        assert!(is_checked(&whole, [], rule));
        let unloads = |(part, step): (Part, &Step)| match step {
            Step::Unload { .. } => Some(part),
            _ => None,
        };
        let unload = whole.steps().find_map(unloads).expect("a teardown");
        assert!(!is_checked(&whole, [unload], rule));
        // A loop that closes what it opens changes nothing of it.
        let looper = (whole.episode.actors.iter())
            .position(|actor| actor.repeat == Repeat::UntilOthersEnd)
            .expect("a loop");
        assert!(is_checked(&whole, [Part::Actor(looper)], rule));
    }
}

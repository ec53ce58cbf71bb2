//! Elsewhere: the module goes while somebody else than driver and openers refers to its object.

use knobrig_proto::Step;

use super::build::Builder;
use super::{EWOULDBLOCK, Expect, Rule, Then};
use crate::target::Elsewhere;

/// Raised when the unload waits.
const WAITS: &str = "waits";
/// Who gives the reference back.
pub(super) const GIVER: &str = "giver";

impl Builder<'_> {
    pub(super) fn elsewhere(&mut self) {
        match self.target.lifetime.elsewhere {
            Some(Elsewhere::Outlives) => {
                if self.hold_before().is_none() {
                    return;
                }
                self.unload_at_zero();
                for module in self.helpers() {
                    let unload = Step::unload(&module);
                    self.after(unload, Rule::Outlived, Expect::OneOf(vec![EWOULDBLOCK]));
                }
                self.give_back();
                self.unload_helpers();
            }
            Some(Elsewhere::Waits) | None => {
                self.elsewhere_actors(WAITS);
            }
        }
    }

    /// Loads, and takes the reference; gives what gives it back.
    fn hold_before(&mut self) -> Option<Step> {
        self.bring_up();
        let elsewhere = self.target.target.elsewhere.clone()?;
        self.before(elsewhere.hold, Rule::OpSucceeds, Expect::OkOr(vec![]));
        Some(elsewhere.give)
    }

    /// One thread unloads; another gives the reference back when the first is seen to wait, which
    /// is what `waits` is raised at. Gives both.
    pub(super) fn elsewhere_actors(&mut self, waits: &str) -> Option<(usize, usize)> {
        let give = self.hold_before()?;
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, None);
        let ending = self.ending();
        let mut unloads = self.act(teardown, ending[0].clone());
        if ending.len() > 1 {
            self.expect(unloads, Rule::GivenUp, Expect::OkOr(vec![]));
            unloads = self.act(teardown, ending[1].clone());
        }
        self.react(self.settled(unloads), [Then::Raise(waits.into())]);
        let giver = self.actor(GIVER, true, None);
        self.await_signal(giver, waits);
        let path = self.module_path();
        let step = Step::Exists { path };
        self.act_checked(giver, step, Rule::WaitsForRelease, Expect::OneOf(vec![0]));
        let gives = self.act_checked(giver, give, Rule::OpSucceeds, Expect::OkOr(vec![]));
        self.expect(unloads, Rule::WaitsForRelease, Expect::OkAfter(gives));
        self.check_gone();
        self.unload_helpers();
        Some((teardown, giver))
    }
}

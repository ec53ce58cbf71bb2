//! Elsewhere: the module goes while somebody else than driver and openers refers to its object.

use knobrig_proto::Step;

use super::build::Builder;
use super::{EWOULDBLOCK, Expect, Rule, Then};
use crate::target::Elsewhere;

/// Raised when the unload waits.
const WAITS: &str = "waits";

impl Builder<'_> {
    pub(super) fn elsewhere(&mut self) {
        self.bring_up();
        let Some(elsewhere) = self.target.target.elsewhere.clone() else {
            return;
        };
        self.before(
            elsewhere.hold.clone(),
            Rule::OpSucceeds,
            Expect::OkOr(vec![]),
        );
        match self.target.lifetime.elsewhere {
            Some(Elsewhere::Outlives) => {
                self.unload_at_zero();
                for module in self.helpers() {
                    let unload = Step::Unload { module };
                    self.after(unload, Rule::Outlived, Expect::OneOf(vec![EWOULDBLOCK]));
                }
                self.give_back();
            }
            Some(Elsewhere::Waits) | None => self.wait_for(elsewhere.give),
        }
        self.unload_helpers();
    }

    /// One thread unloads; another gives the reference back when the first is seen to wait.
    fn wait_for(&mut self, give: Step) {
        let name = self.target.target.teardown.name.clone();
        let teardown = self.actor(&name, true, None);
        let ending = self.ending();
        let mut unloads = self.act(teardown, ending[0].clone());
        if ending.len() > 1 {
            self.expect(unloads, Rule::GivenUp, Expect::OkOr(vec![]));
            unloads = self.act(teardown, ending[1].clone());
        }
        self.react(self.settled(unloads), [Then::Raise(WAITS.into())]);
        let giver = self.actor("giver", true, None);
        self.await_signal(giver, WAITS);
        let path = self.module_path();
        let step = Step::Exists { path };
        self.act_checked(giver, step, Rule::WaitsForRelease, Expect::OneOf(vec![0]));
        let gives = self.act_checked(giver, give, Rule::OpSucceeds, Expect::OkOr(vec![]));
        self.expect(unloads, Rule::WaitsForRelease, Expect::OkAfter(gives));
        self.check_gone();
    }
}

//! Counts: one thread opens and closes, and each step's count is read. All in `after`, so that
//! its order is the program's.

use knobrig_proto::Step;

use super::build::Builder;
use super::{EBUSY, EWOULDBLOCK, Expect, Place, Rule, Turn};

/// The slot of an open that must fail.
const EXCLUDED: u32 = 15;
/// Whether a teardown is tried in between. One that a wrong count doesn't refuse may hang, and then that is
/// all there is to tell.
pub(super) const TRIES: [bool; 2] = [false, true];

impl Builder<'_> {
    pub(super) fn counts(&mut self, turn: Turn) {
        let tries = turn.in_order(TRIES.to_vec()).unwrap_or_default();
        self.bring_up();
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        let bound = self.target.lifetime.holds;
        self.check_count(bound);
        if tries && bound > 0 {
            self.refused(Rule::RefusedWhileBound);
        }
        let object = self.hold_elsewhere();
        let mut open = 0;
        for (slot, knob) in (0..).zip(&knobs) {
            let step = Self::open(knob, slot, false);
            self.after(step, Rule::OpSucceeds, Expect::OkOr(vec![]));
            open += u32::from(self.target.pins(knob));
            self.check_count(bound + open);
            self.check_object(object, open);
        }
        for knob in &knobs {
            if self.target.lifetime.exclusive.contains(&knob.name) {
                let step = Self::open(knob, EXCLUDED, true);
                self.after(step, Rule::Excluded, Expect::OneOf(vec![EBUSY]));
                self.check_count(bound + open);
                self.check_object(object, open);
            }
        }
        if tries && open > 0 {
            self.refused(Rule::RefusedWhilePinned);
            self.check_count(bound + open);
        }
        for (slot, knob) in (0..).zip(&knobs) {
            // The refused teardown changed nothing.
            self.ops_succeed(knob, slot);
        }
        for (slot, knob) in (0..).zip(&knobs) {
            if self.target.pins(knob) {
                self.close(slot);
                open -= 1;
                self.check_count(bound + open);
                self.check_object(object, open);
            }
        }
        if object.is_some() {
            self.give_back();
        }
        if tries && bound > 0 {
            self.refused(Rule::RefusedWhileBound);
        }
        self.give_up();
        self.check_count(0);
        self.unload_counted();
        for (slot, knob) in (0..).zip(&knobs) {
            if !self.target.pins(knob) {
                self.ops_find_it_gone(knob, slot);
                self.close(slot);
            }
        }
        self.unload_helpers();
    }

    fn refused(&mut self, rule: Rule) {
        let unload = self.unload();
        self.after(unload, rule, Expect::OneOf(vec![EWOULDBLOCK]));
    }

    /// Takes a reference elsewhere, through which the object's count can be read; gives the
    /// place of the first reading.
    fn hold_elsewhere(&mut self) -> Option<Place> {
        let elsewhere = self.target.target.elsewhere.clone()?;
        let path = elsewhere.count?;
        self.after(elsewhere.hold, Rule::OpSucceeds, Expect::OkOr(vec![]));
        let step = Step::ReadFile { path };
        Some(self.after(step, Rule::ObjectCounts, Expect::OkOr(vec![])))
    }

    fn check_object(&mut self, first: Option<Place>, open: u32) {
        let elsewhere = self.target.target.elsewhere.as_ref();
        let path = elsewhere.and_then(|elsewhere| elsewhere.count.clone());
        if let (Some(from), Some(path)) = (first, path) {
            let by = i64::from(open);
            let step = Step::ReadFile { path };
            self.after(step, Rule::ObjectCounts, Expect::Changed { from, by });
        }
    }

    /// Gives back what is held elsewhere.
    pub(super) fn give_back(&mut self) {
        if let Some(elsewhere) = self.target.target.elsewhere.clone() {
            self.after(elsewhere.give, Rule::OpSucceeds, Expect::OkOr(vec![]));
        }
    }
}

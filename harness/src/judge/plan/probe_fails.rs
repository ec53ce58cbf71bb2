//! Probe fails: the device doesn't answer what the driver asks first.

use dk_control::Point;

use super::build::Builder;
use super::{ENOENT, Expect, Rule};
use knobrig_proto::Step;

const SILENT: &str = "silent";
/// Beyond any driver's patience in such an episode; the episode's end lets go.
const SILENT_DEADLINE_MS: u64 = 10_000;

impl Builder<'_> {
    pub(super) fn probe_fails(&mut self) {
        self.be_impatient();
        let patience = self.target.target.patience.as_ref();
        let Some(ask) = patience.and_then(|patience| patience.probe_asks.clone()) else {
            return;
        };
        self.gate(SILENT, &ask, Point::Seen, SILENT_DEADLINE_MS);
        // A module loads whether or not its driver can bind.
        for step in self.load_steps() {
            self.after(step, Rule::ComesUp, Expect::OneOf(vec![0]));
        }
        for path in self.target.target.rules.gone.clone() {
            let step = Step::Exists { path };
            self.after(step, Rule::ProbeUnwinds, Expect::OneOf(vec![ENOENT]));
        }
        self.check_count(0);
        self.unload_at_zero();
        self.unload_helpers();
    }
}

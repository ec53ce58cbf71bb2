//! Delays: loops of ops whose vCPUs are delayed, now and then, at instructions of the driver. What
//! lies between two instructions, where no gate reaches, opens for as long as a delay lasts.

use knobrig_proto::{Repeat, Step};
use knobrig_vcpu_proto::Law;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::build::Builder;
use super::{Then, When};

/// One instruction in so many is delayed. How many an op of a driver has is not known: C drivers
/// have some dozens, Rust ones thousands.
const ONE_IN: [u32; 4] = [10, 20, 60, 200];
/// The longest delay in microseconds.
const LONGEST_US: [u32; 3] = [500, 1_000, 2_000];
/// What delays may add to the time that an episode takes.
const MORE_MS: u64 = 20_000;
/// Raised when the delays are armed.
const ARMED: &str = "armed";

/// How vCPUs are delayed in an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// When, and for how long.
    pub law: Law,
    /// In the code of these modules.
    pub modules: Vec<String>,
}

impl Builder<'_> {
    pub(super) fn delays(&mut self, rng: &mut ChaCha8Rng) {
        // Who goes his way once waits for the delays; loops loop meanwhile.
        self.start_at(ARMED);
        match self.target.target.loops {
            Some(_) => self.loops(rng),
            None => self.stress(rng, false),
        }
        let loops = self.plan.episode.actors.iter_mut();
        for actor in loops.filter(|actor| actor.repeat == Repeat::UntilOthersEnd) {
            (actor.steps).retain(|step| !matches!(step, Step::WaitSignal { .. }));
        }
        // Delayed threads take longer, and so does a load beside them.
        self.plan.episode.deadline_ms += MORE_MS;
        self.react(When::Armed, [Then::Raise(ARMED.into())]);
        let modules = self.target.modules().map(|module| module.name.clone());
        self.plan.delays = Some(Delays {
            law: Law {
                seed: rng.random(),
                one_in: *ONE_IN.choose(rng).unwrap_or(&ONE_IN[0]),
                longest_us: *LONGEST_US.choose(rng).unwrap_or(&LONGEST_US[0]),
            },
            modules: modules.collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, may_delay, plan};
    use crate::target::Chosen;
    use knobrig_proto::Priority;
    use proptest::prelude::*;

    fn vcpus() -> Points {
        Points::default().with_vcpus(true)
    }

    fn chosen(target: &str) -> Chosen {
        Chosen::find(target, None, None).expect("built in")
    }

    proptest! {
        /// Whoever goes his way once waits for the delays, and only for what is raised.
        #[test]
        fn nobody_goes_before_the_delays_are_armed(seed: u64, number in 1u64..1_000_000) {
            for target in ["mydrv", "virtio_rng", "null_blk"] {
                let plan = plan(&chosen(target), &vcpus(), seed, number, &[Shape::Delays]);
                prop_assert_eq!(plan.shape, Shape::Delays);
                let delays = plan.delays.as_ref().expect("delays");
                prop_assert!(delays.law.check().is_ok());
                prop_assert_eq!(delays.modules.last().map(String::as_str), Some(target));
                let armed = (plan.reactions.iter()).filter(|it| it.when == When::Armed).count();
                prop_assert_eq!(armed, 1);
                for actor in &plan.episode.actors {
                    let waits = matches!(&actor.steps[0], Step::WaitSignal { name, .. } if name == ARMED);
                    prop_assert_eq!(waits, actor.repeat == Repeat::Once, "{:?}", actor);
                }
            }
        }
    }

    #[test]
    fn the_usual_mix_delays_where_no_device_gate_does_better() {
        let count = |target: &str, points: &Points| {
            let target = chosen(target);
            let plans = (1..400).map(|number| plan(&target, points, 1, number, &[]));
            plans.filter(|plan| plan.delays.is_some()).count()
        };
        assert!(count("virtio_rng", &vcpus()) > 20);
        assert_eq!(count("virtio_rng", &Points::default()), 0);
        assert_eq!(count("mydrv", &vcpus()), 0);
        assert!(may_delay(&chosen("mydrv"), &[Shape::Delays]));
    }

    #[test]
    fn no_delayed_loop_goes_before_all_others() {
        let mut target = chosen("null_blk");
        let loops = target.target.loops.as_mut().expect("has loops");
        (loops.priorities, loops.interrupted) = (100, 0);
        for number in 1..100 {
            let plan = plan(&target, &vcpus(), 1, number, &[Shape::Delays]);
            let mut actors = plan.episode.actors.iter();
            assert!(actors.all(|it| it.priority != Priority::First), "{number}");
        }
    }

    #[test]
    fn without_a_plugin_nothing_is_delayed() {
        let plan = plan(&chosen("mydrv"), &Points::default(), 1, 1, &[Shape::Delays]);
        assert_eq!((plan.shape, plan.delays), (Shape::Stress, None));
    }
}

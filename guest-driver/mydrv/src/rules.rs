// SPDX-License-Identifier: GPL-2.0-only
//! What a lifetime decides: the points at which lifetimes differ, as a table.
//!
//! The rest of the driver calls through the table and knows no lifetime by name. A lifetime is
//! a constant of [`Rules`]; a mutant is a function that changes entries.

use crate::controller::Controller;
use crate::dk0::{self, Data, Dk0};
use crate::knobs::{self, Knobs};
use crate::lookout::{self, Lookout};
use crate::port::{self, Port};
use crate::probe::{self, Parts};
use crate::sys::chardev::{self, Operations};
use crate::sys::node;
use crate::sys::param::{choice_param, Choice, Named};
use crate::sys::sysfs;
use crate::sys::ticker::Ticker;
use crate::sys::wait::WaitQueue;
use crate::{lifetime, mutant};
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::SetOnce;
use kernel::{device, pci};

/// The points at which lifetimes differ, in the order in which a device comes to them.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Brings a device up: all of it, or nothing.
    pub(crate) bring_up: fn(&pci::Device<device::Core<'_>>) -> Result<Parts>,
    /// Asks a device that was started who it is, before dk0 is there.
    pub(crate) identify: fn(&Pin<KBox<Controller>>) -> Result,
    /// Gives dk0's `->release`.
    pub(crate) release: fn() -> Result<node::Release>,
    /// Puts dk0 into sysfs and its cdev under its number.
    pub(crate) add_node: node::Add,
    /// The file operations of /dev/dk0.
    pub(crate) operations: &'static Operations,
    /// Puts the knobs under dk0.
    pub(crate) add_knobs: fn(&ARef<Dk0>) -> Result<Knobs>,

    /// Finds the controller, for a callback of a knob.
    pub(crate) controller_of_knob: unsafe fn(&Dk0) -> &Controller,
    /// Reads a knob.
    pub(crate) show: fn(&Controller, usize) -> Result<knobs::Text>,
    /// Reads sectors.
    pub(crate) read: fn(&Controller, u64, &mut [u8], &dyn Fn() -> bool) -> Result,
    /// What pollers of /dev/dk0 wait on.
    pub(crate) poll_queue: fn(&Data) -> &WaitQueue,
    /// Lets `self_destruct` do its work while its writer is inside of it.
    pub(crate) inside_self_destruct: fn(&Dk0, &mut dyn FnMut()),

    /// Gives up all that a bound device holds, in the right order.
    pub(crate) teardown: fn(Parts),
    /// Removes a knob.
    pub(crate) remove_knob: fn(&Dk0, usize),
    /// Ends the lookout.
    pub(crate) stop_lookout: fn(&Ticker<Lookout>),
    /// Ends the device's run.
    pub(crate) reset: fn(&Port),
    /// The last thing that the module does: sees to it that nothing of it is called any more.
    pub(crate) exit: fn(),
}

/// What lifetimes have in common. An entry that no lifetime changes is there for the mutants.
pub(crate) const COMMON: Rules = Rules {
    bring_up: Parts::bring_up,
    identify: probe::identify,
    release: dk0::release_of_mydrv,
    add_node: node::ADD,
    operations: &chardev::OPERATIONS,
    add_knobs: sysfs::add_knobs,
    controller_of_knob: dk0::controller_of_knob,
    show: knobs::value,
    read: Controller::read,
    poll_queue: Data::gone,
    inside_self_destruct: sysfs::inside_self_destruct,
    teardown: Parts::tear_down,
    remove_knob: sysfs::remove_knob,
    stop_lookout: lookout::stop,
    reset: port::reset,
    exit: node::all_released,
};

/// A planted bug: changes the rules.
pub(crate) type Plant = fn(&mut Rules);

choice_param! {
    /// `lifetime=`
    static LIFETIME: Choice<Rules> = "lifetime" of [
        Named("pinned", lifetime::pinned::RULES),
        Named("drained", lifetime::drained::RULES),
        Named("self-destruct", lifetime::self_destruct::RULES),
        Named("outside-release", lifetime::outside_release::RULES),
        Named("exit-waits", lifetime::exit_waits::RULES),
    ],
    description: "by which rule the module may be unloaded: pinned (default), drained, \
                  self-destruct, outside-release, exit-waits"
}

choice_param! {
    /// `mutant=`
    static MUTANT: Choice<Plant> = "mutant" of [
        Named("none", |_| {}),
        Named("knobs-left", mutant::knobs_left::plant),
        Named("dk1-typo", mutant::dk1_typo::plant),
        Named("free-before-remove", mutant::free_before_remove::plant),
        Named("release-in-module", mutant::release_in_module::plant),
        Named("extra-put", mutant::extra_put::plant),
        Named("missing-put", mutant::missing_put::plant),
        Named("memory-left", mutant::memory_left::plant),
        Named("dma-left", mutant::dma_left::plant),
        Named("count-leak", mutant::count_leak::plant),
        Named("count-skipped", mutant::count_skipped::plant),
        Named("owner-unset", mutant::owner_unset::plant),
        Named("cdev-embedded", mutant::cdev_embedded::plant),
        Named("irq-after-free", mutant::irq_after_free::plant),
        Named("irq-left", mutant::irq_left::plant),
        Named("work-left", mutant::work_left::plant),
        Named("timer-left", mutant::timer_left::plant),
        Named("ring-before-reset", mutant::ring_before_reset::plant),
        Named("reset-skipped", mutant::reset_skipped::plant),
        Named("late-answer", mutant::late_answer::plant),
        Named("lock-across-remove", mutant::lock_across_remove::plant),
        Named("self-remove", mutant::self_remove::plant),
        Named("publish-early", mutant::publish_early::plant),
        Named("unwind-twice", mutant::unwind_twice::plant),
        Named("drvdata-null", mutant::drvdata_null::plant),
        Named("poll-left", mutant::poll_left::plant),
        Named("name-freed", mutant::name_freed::plant),
        Named("tail", mutant::tail::plant),
    ],
    description: "a lifetime bug to plant: none (default), or one of the README's table"
}

/// The rules that the module's parameters ask for.
pub(crate) fn get() -> &'static Rules {
    static CHOSEN: SetOnce<Rules> = SetOnce::new();
    loop {
        if let Some(chosen) = CHOSEN.as_ref() {
            return chosen;
        }
        let mut rules = *LIFETIME.get();
        MUTANT.get()(&mut rules);
        CHOSEN.populate(rules);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What a lifetime decides: the few points at which lifetimes differ, as a table.
//!
//! The rest of the driver calls through the table and knows no lifetime by name. A lifetime is
//! a constant of [`Rules`]; a mutant is a function that changes one entry.

use crate::dk0::Dk0;
use crate::knobs::Knobs;
use crate::probe::Parts;
use crate::sys::param::{choice_param, Choice, Named};
use crate::{lifetime, mutant};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// The points at which lifetimes differ.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Puts the knobs under dk0.
    pub(crate) add_knobs: fn(&ARef<Dk0>) -> Result<Knobs>,
    /// Gives up all that a bound device holds, in the right order.
    pub(crate) teardown: fn(Parts),
}

/// A planted bug: changes the rules.
pub(crate) type Plant = fn(&mut Rules);

choice_param! {
    /// `lifetime=`
    static LIFETIME: Choice<Rules> = "lifetime" of [
        Named("pinned", lifetime::pinned::RULES),
        Named("drained", lifetime::drained::RULES),
    ],
    description: "by which rule the module may be unloaded: pinned (default), drained"
}

choice_param! {
    /// `mutant=`
    static MUTANT: Choice<Plant> = "mutant" of [
        Named("none", |_| {}),
        Named("free-before-remove", mutant::free_before_remove::plant),
    ],
    description: "a lifetime bug to plant: none (default), free-before-remove"
}

/// The rules that the module's parameters ask for.
pub(crate) fn chosen() -> Rules {
    let mut rules = *LIFETIME.get();
    MUTANT.get()(&mut rules);
    rules
}

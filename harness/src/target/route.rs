//! Ways to one place in the kernel, of which loops take the cheapest.

use knobrig_proto::Step;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::knob::Weights;

/// A way that is more than an op on a knob: a load and an unload, say. It competes with the knobs
/// and others of the same `route`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Detour {
    /// What reports call it.
    pub name: String,
    /// Where it leads: the `route` of knobs and other detours.
    pub route: String,
    /// What is done, over and over.
    pub steps: Vec<Step>,
    /// How often it is chosen in loops, against all ops of all knobs.
    #[serde(default = "Weights::one")]
    pub weight: u32,
}

//! Modules that must be there before the agent can speak: a kernel of the user's may have the
//! port's own drivers as modules.

use knobrig_proto::{FIRST_MODULES, MODULE_DIR};
use rustix::io::Errno;

use crate::step::load;

/// Loads them in order; what failed comes back, and the port will tell if it mattered.
pub fn load_all() -> Vec<String> {
    let list = std::fs::read_to_string(format!("{MODULE_DIR}/{FIRST_MODULES}"));
    let list = list.unwrap_or_default();
    list.lines()
        .filter_map(|module| match load(module, "") {
            Ok(_) | Err(Errno::EXIST) => None,
            Err(why) => Some(format!("failed to load {module}, which comes first: {why}")),
        })
        .collect()
}

//! The vCPU gate under TCG: a plugin that QEMU loads (`-plugin file=…,fd=N`) and that delays a
//! vCPU at instructions of the driver under test, or holds it there until another has come to one.
//!
//! - `qemu`: the interface of QEMU's that it uses, and nothing of it anywhere else;
//! - `link`: the socket to the harness;
//! - `armed`: the delays that are armed, and what a vCPU does that comes by;
//! - `order`: the orders that are, likewise.
//!
//! Under TCG a guest's instructions are translated block by block before they run. As a block is
//! translated, the plugin has itself called at each of its instructions that lie in the watched
//! ranges, armed or not: code that ran before anything was armed needn't be translated again. What
//! lies elsewhere runs as it does without a plugin.

pub mod armed;
#[cfg(not(test))]
mod link;
pub mod order;
#[cfg(not(test))]
mod qemu;

//! What runs: QEMU, the device program, the agent's link, episodes. Thin: it carries out what
//! `judge` planned and hands back what came of it.

pub mod device;
pub mod episode;
pub mod guest;
pub mod lines;
pub mod monitor;
mod plugs;
pub mod probe;
pub mod process;
pub mod qemu;
mod tsc;
pub mod vcpu;

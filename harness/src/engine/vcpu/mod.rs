//! The vCPU gate: vCPUs come to instructions in an order, or are delayed at them. Two things of
//! QEMU's can do that. The plugin does both, under TCG alone, and in some dozen milliseconds an
//! order. The gdbstub enforces orders, under KVM too, and stops the whole machine at each point.

mod board;
mod gdb;
mod plugin;
mod texts;
mod trial;
mod wire;

use std::path::PathBuf;

use knobrig_vcpu_proto::{Edge, Ordered};

use crate::error::Error;

pub use gdb::Gdb;
pub use plugin::Plugin;
pub use texts::Texts;
pub use trial::trial;

/// What of QEMU's is to be the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This plugin.
    Plugin(PathBuf),
    /// The gdbstub.
    Gdb,
}

impl Kind {
    /// Whether vCPUs can be delayed by it, too.
    pub fn delays(&self) -> bool {
        matches!(self, Self::Plugin(_))
    }
}

/// What holds vCPUs until others have come where they are to be first.
trait Orders {
    /// From now on vCPUs come to instructions in this order; takes the place of the one before.
    /// Whoever waits too long goes on, and everybody with him.
    async fn order(&mut self, edges: Vec<Edge>) -> Result<(), Error>;

    /// No more orders: whoever waits goes on. Gives what came of each edge.
    async fn unorder(&mut self) -> Result<Vec<Ordered>, Error>;
}

/// The gate of a running QEMU.
pub enum Vcpus {
    /// By the plugin.
    Plugin(Plugin),
    /// By the gdbstub.
    Gdb(Gdb),
}

impl Vcpus {
    /// What delays vCPUs, if this does.
    pub fn delays(&mut self) -> Option<&mut Plugin> {
        match self {
            Self::Plugin(plugin) => Some(plugin),
            Self::Gdb(_) => None,
        }
    }

    /// Whether it tells the guest's threads apart, and not only vCPUs.
    pub fn knows_threads(&self) -> bool {
        matches!(self, Self::Gdb(_))
    }

    /// From now on vCPUs come to instructions in this order, as far as there is one.
    ///
    /// # Errors
    /// QEMU's end refuses, is gone, or does not answer.
    pub async fn order(&mut self, edges: Vec<Edge>) -> Result<(), Error> {
        match self {
            _ if edges.is_empty() => Ok(()),
            Self::Plugin(plugin) => plugin.order(edges).await,
            Self::Gdb(gdb) => gdb.order(edges).await,
        }
    }

    /// No more orders; gives what came of each edge.
    ///
    /// # Errors
    /// As [`order`](Self::order).
    pub async fn unorder(&mut self) -> Result<Vec<Ordered>, Error> {
        match self {
            Self::Plugin(plugin) => plugin.unorder().await,
            Self::Gdb(gdb) => gdb.unorder().await,
        }
    }
}

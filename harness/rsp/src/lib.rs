//! GDB's remote serial protocol (the GDB manual's appendix "GDB Remote Serial Protocol"), the side
//! that asks, as far as a machine's vCPUs are to be stopped at instructions and let go one by one.
//! Bytes in, bytes out, no I/O: what a stub sends is never trusted, and never makes this panic.
//!
//! Crates of this protocol are for the other side, the stub's, but for one that frames packets and
//! had a single release.
#![forbid(unsafe_code)]

mod command;
mod packet;
mod reply;

pub use command::{Action, Command, INTERRUPT};
pub use packet::{ACK, Decoder, Item, MAX_PACKET, NAK, frame};
pub use reply::{BadReply, Registers, Stop, done, registers, stopped};

/// A thread of the protocol's. QEMU has one for each vCPU, numbered from 1 (0 means any).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread(u64);

impl Thread {
    /// That of a vCPU, by QEMU's number of it.
    pub fn of_vcpu(vcpu: u32) -> Self {
        Self(u64::from(vcpu) + 1)
    }

    /// The vCPU's number, unless this is nobody's thread.
    pub fn vcpu(self) -> Option<u32> {
        u32::try_from(self.0.checked_sub(1)?).ok()
    }
}

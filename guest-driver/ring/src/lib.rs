// SPDX-License-Identifier: GPL-2.0-only
//! The knob device's request ring: all of the driver that needs no kernel.
//!
//! [`Ring`] owns a virtqueue and a fixed number of request slots, whose memory it shares with
//! the device. A request goes through [`Ring::submit`], [`Ring::reap`] and [`Ring::collect`];
//! one whose submitter gave up goes through [`Ring::abandon`] instead, and then belongs to the
//! ring until the device answers it or is reset, so a late answer is written to memory that is
//! still the ring's. The ring knows no time and never waits: waiting, deadlines and locking
//! are its owner's.
//!
//! [`pci::ModernTransport`] is virtio-drivers' `Transport` for a virtio-pci device behind any
//! [`pci::Registers`]. `fake` (feature of that name) has a device in memory to test against.
#![no_std]

#[cfg(any(test, feature = "fake"))]
extern crate std;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod memory;
pub mod pci;
mod request;
mod ring;
#[cfg(test)]
mod tests;

pub use request::{Failure, Request};
pub use ring::{InitError, MAX_DATA, QUEUE_SIZE, Ring, SLOTS, SubmitError, Ticket};

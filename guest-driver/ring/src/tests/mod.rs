// SPDX-License-Identifier: GPL-2.0-only
//! The ring against the fake device.

mod broken;
mod layout;
mod lifecycle;
mod model;
mod requests;

use crate::fake::{FakeDevice, FakeHal, FakeRegisters};
use crate::pci::ModernTransport;
use crate::{Request, Ring};

type FakeRing = Ring<FakeHal, ModernTransport<FakeRegisters>>;

/// A device that does all right, and a ring on it.
fn started() -> (FakeDevice, FakeRing) {
    let device = FakeDevice::new();
    let ring = device.ring().expect("the device starts");
    (device, ring)
}

const GET: Request<'static> = Request::KnobGet { knob: 0 };

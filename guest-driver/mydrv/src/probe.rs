// SPDX-License-Identifier: GPL-2.0-only
//! Binding the device, and the order in which everything goes again.

use crate::claim::Claim;
use crate::controller::Controller;
use crate::dk0;
use crate::knobs::Knobs;
use crate::lookout::{Lookout, Watched};
use crate::port::{Port, Running};
use crate::rules;
use crate::sys::chrdev::Region;
use crate::sys::irq::Interrupt;
use crate::sys::pci::{override_only, Function};
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::{device, pci};

/// A virtio block device, modern (virtio 1.2, 4.1.2.1).
const VIRTIO_BLK: u32 = 0x1042;

kernel::pci_device_table!(
    PCI_TABLE,
    MODULE_PCI_TABLE,
    <Driver as pci::Driver>::IdInfo,
    // Any disk of the machine has these ids. mydrv takes only the one whose driver_override
    // names it.
    [(override_only(pci::Vendor::REDHAT_QUMRANET, VIRTIO_BLK), ())]
);

/// The PCI driver "mydrv".
pub(crate) struct Driver;

/// What a bound device holds. **The fields' order is the teardown's order**: first what user
/// space reaches the driver by, then what that leads to.
///
/// 1. [`Face`]: what user space sees. Gone, nobody is in the driver on its behalf.
/// 2. The controller's state: nobody is left who could use it.
/// 3. [`Started`]: the device, its interrupt and its memory.
///
/// Probe brings them up in the reverse order, and where it fails they go in this one.
pub(crate) struct Parts {
    // Not there where a lifetime has given it up before.
    pub(crate) face: Option<Face>,
    pub(crate) controller: Pin<KBox<Controller>>,
    pub(crate) started: Started,
}

/// What user space sees, in the order in which it goes.
///
/// 1. The knobs. Gone, no callback of theirs runs or can begin.
/// 2. dk0. Gone, /dev/dk0 can't be opened; who still has it open gets `-ENODEV`, and whoever
///    was in an operation has left it. The driver's reference goes back; if it was the last,
///    as always in `pinned`'s exit, dk0's `->release` has run.
#[expect(dead_code, reason = "held until they are dropped")]
pub(crate) struct Face {
    pub(crate) knobs: Knobs,
    pub(crate) dk0: dk0::Published,
}

/// A device that was started, in the order in which it goes.
///
/// 1. The lookout: neither its timer nor its work runs, nor will they.
/// 2. The device is reset: it writes to the ring no more, and raises no interrupt.
/// 3. The interrupt: its handler doesn't run any more, nor will it.
/// 4. The port: the ring's memory and the device's registers go.
/// 5. The device number and the name.
#[expect(dead_code, reason = "held until they are dropped")]
pub(crate) struct Started {
    pub(crate) watched: Watched,
    pub(crate) running: Running,
    pub(crate) interrupt: Interrupt<Port>,
    pub(crate) port: Arc<Port>,
    pub(crate) region: Region,
    pub(crate) claim: Claim,
}

impl Started {
    pub(crate) fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Self> {
        let claim = Claim::take().inspect_err(|_| {
            dev_err!(pdev, "another device is dk0 already; mydrv drives one\n");
        })?;
        let region = Region::alloc(c"mydrv")?;
        let function = Arc::new(Function::enable(pdev)?, GFP_KERNEL)?;
        let irq = function.irq();
        let port = Port::open(pdev, function)?;
        let interrupt = Interrupt::request(irq, c"mydrv", port.clone())?;
        let running = Running::new(port.clone());
        let watched = Watched::new(Lookout::new(port.clone())?);
        Ok(Self {
            watched,
            running,
            interrupt,
            port,
            region,
            claim,
        })
    }

    /// A controller of this device.
    pub(crate) fn controller(&self) -> Controller {
        let timeout_ms = *crate::module_parameters::timeout.value();
        let lookout = self.watched.lookout().clone();
        Controller::new(self.port.clone(), lookout, timeout_ms)
    }
}

impl Parts {
    pub(crate) fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Self> {
        let rules = rules::get();
        let started = Started::bring_up(pdev)?;
        let controller = KBox::pin(started.controller(), GFP_KERNEL)?;
        (rules.identify)(&controller)?;
        let dk0 = dk0::Published::new(pdev, &started, NonNull::from(&*controller))?;
        let knobs = (rules.add_knobs)(dk0.node())?;
        Ok(Self {
            face: Some(Face { knobs, dk0 }),
            controller,
            started,
        })
    }

    /// Gives everything up, in order.
    pub(crate) fn tear_down(self) {
        drop(self);
    }
}

/// Asks the device who it is. One that doesn't answer gets no dk0.
pub(crate) fn identify(controller: &Pin<KBox<Controller>>) -> Result {
    controller.identify()
}

/// The driver's data of a bound device. The driver core drops it at unbind, be it by rmmod,
/// by the `unbind` attribute or because the device was unplugged.
pub(crate) struct Bound {
    // Always there until drop takes it.
    parts: Option<Parts>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            (rules::get().teardown)(parts);
        }
    }
}

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Bound;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<device::Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Bound, Error> + 'bound {
        Ok(Bound {
            parts: Some((rules::get().bring_up)(pdev)?),
        })
    }
}

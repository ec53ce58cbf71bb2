// SPDX-License-Identifier: GPL-2.0-only
//! dk0: the device that user space sees, as an object with a count of its own.
//!
//! dk0 may outlive the driver's binding: after an unbind, whoever has /dev/dk0 open still holds
//! it. The controller doesn't. So dk0 refers to it by a pointer that only the two guards below
//! open, and the controller goes after both are shut.

use crate::active::{Active, ActiveRef};
use crate::controller::Controller;
use crate::exclusive::Seats;
use crate::port::Port;
use crate::probe::Started;
use crate::rules;
use crate::sys::node::{self, Node};
use crate::sys::wait::WaitQueue;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::{device, pci};

/// A `struct device` named dk0 with its character device, and what belongs to them.
pub(crate) type Dk0 = Node<Data>;

/// dk0's own data.
#[pin_data]
pub(crate) struct Data {
    controller: NonNull<Controller>,
    /// Guards the controller for /dev/dk0. For the knobs kernfs does.
    #[pin]
    active: Active,
    /// Woken when dk0 is unpublished, for pollers of /dev/dk0.
    #[pin]
    gone: WaitQueue,
    /// Who has the knobs open, where a knob knows that.
    seats: [Seats; dk_abi::KNOBS],
    /// The disk's size in bytes.
    size: u64,
}

// SAFETY: the controller is Sync, and its pointer is only used under the guards.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    /// The controller, for an operation on /dev/dk0. `ENODEV` after an unbind.
    pub(crate) fn controller(&self) -> Result<Inside<'_>> {
        Ok(Inside {
            _active: self.active.enter()?,
            data: self,
        })
    }

    /// Whether dk0 was unpublished.
    pub(crate) fn is_gone(&self) -> bool {
        self.active.deactivated()
    }

    /// Who has a knob open.
    pub(crate) fn seats(&self, knob: usize) -> &Seats {
        &self.seats[knob]
    }

    /// What pollers wait on.
    pub(crate) fn gone(&self) -> &WaitQueue {
        &self.gone
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// The controller, for a callback of a knob.
///
/// # Safety
/// The caller holds a kernfs active reference of one of dk0's knobs for as long as it uses the
/// result: teardown removes the knobs, which waits for such references, and gives up the
/// controller after that.
pub(crate) unsafe fn controller_of_knob(dk0: &Dk0) -> &Controller {
    // SAFETY: alive, by the caller's promise.
    unsafe { dk0.data().controller.as_ref() }
}

/// dk0's `->release` in mydrv's own text.
pub(crate) fn release_of_mydrv() -> Result<node::Release> {
    Ok(node::counted_release::<Data>())
}

/// The controller, in use by an operation on /dev/dk0. Teardown waits for it.
pub(crate) struct Inside<'a> {
    _active: ActiveRef<'a>,
    data: &'a Data,
}

impl Deref for Inside<'_> {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        // SAFETY: unpublishing dk0 waits for our active reference, and teardown gives up the
        // controller after that.
        unsafe { self.data.controller.as_ref() }
    }
}

/// dk0, where user space can find it. Dropped, it is deleted: see [`crate::probe::Parts`].
pub(crate) struct Published {
    node: node::Published<Data>,
    port: Arc<Port>,
}

impl Published {
    /// Makes and publishes it. The controller is there until this is dropped.
    pub(crate) fn new(
        parent: &pci::Device<device::Core<'_>>,
        started: &Started,
        controller: NonNull<Controller>,
    ) -> Result<Self> {
        let port = started.port.clone();
        let size = port.size();
        let rules = rules::get();
        let kind = node::Kind {
            name: c"dk0",
            devt: started.region.devt(),
            operations: rules.operations,
            add: rules.add_node,
            release: rules.release,
        };
        let data = pin_init!(Data {
            controller,
            active <- Active::new(),
            gone <- WaitQueue::new(),
            seats: [const { Seats::new() }; dk_abi::KNOBS],
            size,
        });
        let node = node::Published::new(parent, &kind, data)?;
        Ok(Self { node, port })
    }

    pub(crate) fn node(&self) -> &ARef<Dk0> {
        self.node.node()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.node.unpublish();
        let data = self.node.node().data();
        data.active.deactivate(|| self.port.wake());
        data.gone.wake_all();
        // The driver's own reference goes with the field.
    }
}

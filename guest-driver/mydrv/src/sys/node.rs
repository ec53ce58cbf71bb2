// SPDX-License-Identifier: GPL-2.0-only
//! A `struct device` without a class, with its `struct cdev` and data of ours, in one object
//! that its reference count keeps.
//!
//! # Why the module's text outlives `->release`
//!
//! Giving the last reference back calls `->release`, and whoever does that may be anybody: the
//! kernel takes references of its own, and with CONFIG_DEBUG_KOBJECT_RELEASE a worker calls it
//! seconds later. So the module's exit waits in [`all_released`] until no node is left.
//!
//! That isn't enough where another thread is in [`release`]: it has told us that the node is
//! gone and still has to free it, and to leave the module's text. So exit also waits for such tails
//! ([`crate::sys::tail`]), unless teardown had the only reference and so released the node
//! itself: the normal way, and the one that costs nothing.

use crate::sys::chardev::Operations;
use crate::sys::module;
use crate::sys::tail;
use crate::sys::wait::{self, Waited};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::aref::{ARef, AlwaysRefCounted};
use kernel::types::Opaque;
use kernel::{device, pci};

/// A device's `->release`.
pub(crate) type Release = unsafe extern "C" fn(*mut bindings::device);

/// What makes a device and its cdev known to the kernel.
pub(crate) type Add = unsafe extern "C" fn(*mut bindings::cdev, *mut bindings::device) -> c_int;

/// The right one: gives the cdev, too, a reference to the object that it is in.
pub(crate) const ADD: Add = bindings::cdev_device_add;

/// What a node is to C.
pub(crate) struct Kind {
    /// Its name in sysfs and /dev.
    pub(crate) name: &'static CStr,
    /// Its number.
    pub(crate) devt: bindings::dev_t,
    /// What can be done with its file.
    pub(crate) operations: &'static Operations,
    /// How it is made known.
    pub(crate) add: Add,
    /// Gives what is called when nobody refers to it any more. Once for each node.
    pub(crate) release: fn() -> Result<Release>,
}

/// The object. It is only ever handled by reference, and freed by its `->release`.
#[pin_data]
#[repr(C)]
pub(crate) struct Node<T> {
    // First, so that a pointer to the device is one to the object.
    #[pin]
    device: Opaque<bindings::device>,
    #[pin]
    cdev: Opaque<bindings::cdev>,
    #[pin]
    data: T,
}

// SAFETY: `struct device` and `struct cdev` may be used and released by any thread.
unsafe impl<T: Send> Send for Node<T> {}
// SAFETY: as above; what we call on them has locks of its own.
unsafe impl<T: Sync> Sync for Node<T> {}

// SAFETY: the count is the device's; the object is freed when it falls to zero.
unsafe impl<T> AlwaysRefCounted for Node<T> {
    fn inc_ref(&self) {
        // SAFETY: a reference exists, so the device is valid.
        unsafe { bindings::get_device(self.device.get()) };
    }

    unsafe fn dec_ref(node: NonNull<Self>) {
        // SAFETY: the caller gives its reference back.
        unsafe { bindings::put_device(node.cast().as_ptr()) };
    }
}

impl<T> Node<T> {
    /// Our data.
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// The device as C knows it.
    pub(crate) fn as_raw(&self) -> *mut bindings::device {
        self.device.get()
    }

    /// The device's directory in sysfs.
    pub(crate) fn kobj(&self) -> *mut bindings::kobject {
        // SAFETY: only an address within the device is computed.
        unsafe { &raw mut (*self.as_raw()).kobj }
    }

    /// The device's reference count.
    fn references(&self) -> i32 {
        // SAFETY: `kobj()` is valid as long as `self`, and the count is an atomic.
        unsafe { AtomicI32::from_ptr(&raw mut (*self.kobj()).kref.refcount.refs.counter) }
            .load(Ordering::Relaxed)
    }

    /// The node of a `struct device` of this type.
    ///
    /// # Safety
    /// `device` is that of a `Node<T>`, to which the caller has a reference for `'a`.
    pub(crate) unsafe fn from_device<'a>(device: *mut bindings::device) -> &'a Self {
        // SAFETY: the device is the first field, and the object is alive (caller).
        unsafe { &*device.cast() }
    }

    /// The node of a `struct cdev` of this type.
    ///
    /// # Safety
    /// As [`Node::from_device`].
    pub(crate) unsafe fn from_cdev<'a>(cdev: *mut bindings::cdev) -> &'a Self {
        let cdev = Opaque::cast_from(cdev.cast_const());
        // SAFETY: `cdev` is the field of a live object (caller).
        unsafe { &*kernel::container_of!(cdev, Self, cdev) }
    }

    /// Makes the object, with one reference. Nobody can find it yet.
    fn new<E>(
        parent: &pci::Device<device::Core<'_>>,
        kind: &Kind,
        data: impl PinInit<T, E>,
    ) -> Result<ARef<Self>>
    where
        Error: From<E>,
    {
        let node = KBox::try_pin_init(
            try_pin_init!(Self {
                device: Opaque::zeroed(),
                cdev: Opaque::zeroed(),
                data <- data,
            }? Error),
            GFP_KERNEL,
        )?;
        let release = (kind.release)()?;
        // SAFETY: the object isn't moved from here on: it is only used by reference.
        let node = KBox::into_raw(unsafe { Pin::into_inner_unchecked(node) });
        let parent: &device::Device<_> = parent.as_ref();
        // SAFETY: the object is ours alone. Its device and cdev are zeroed, as
        // device_initialize() and cdev_init() want them; the parent is valid, and
        // device_add() takes a reference to it.
        unsafe {
            let device = (*node).device.get();
            bindings::device_initialize(device);
            (*device).parent = core::ptr::from_ref(parent).cast_mut().cast();
            (*device).devt = kind.devt;
            (*device).release = Some(release);
            let cdev = (*node).cdev.get();
            bindings::cdev_init(cdev, kind.operations.as_raw());
            (*cdev).owner = module::this_module();
            // INVARIANT: device_initialize() has left a count of one, which is now ours.
            Ok(ARef::from_raw(NonNull::new_unchecked(node)))
        }
    }
}

/// A `->release` that frees the object, for one node, for which [`all_released`] then waits.
pub(crate) fn counted_release<T>() -> Release {
    NODES.fetch_add(1, Ordering::Relaxed);
    release::<T>
}

/// Nobody refers to the object any more.
///
/// # Safety
/// Called by the driver core, once, with the device of a `Node<T>`.
unsafe extern "C" fn release<T>(device: *mut bindings::device) {
    // SAFETY: the object was a KBox in `Node::new`, and the count has fallen to zero.
    let node = unsafe { KBox::<Node<T>>::from_raw(device.cast()) };
    // Told first: exit needn't wait here for what it waits for as a tail anyway.
    NODES.fetch_sub(1, Ordering::Release);
    wait::wake_var(&NODES);
    drop(node);
}

/// Nodes whose [`release`] has not been called yet.
static NODES: AtomicUsize = AtomicUsize::new(0);

/// For the module's exit, after all that refers to a node: waits until every node's
/// `->release` has returned and left the module's text.
pub(crate) fn all_released() {
    wait_for_releases();
    tail::all_left();
}

/// Waits until every node's `->release` has told that it is done.
pub(crate) fn wait_for_releases() {
    /// How long to wait before saying so. Exit can't fail, so it waits on.
    const PATIENCE_MS: u32 = 10_000;
    let released = || NODES.load(Ordering::Acquire) == 0;
    while wait::wait_var(&NODES, PATIENCE_MS, released) == Waited::TimedOut {
        let held = NODES.load(Ordering::Relaxed);
        pr_warn!("unloading waits for the last reference to {} dk0\n", held);
    }
}

/// A node that user space can find: its directory in sysfs, and its file in /dev.
pub(crate) struct Published<T> {
    node: ARef<Node<T>>,
    published: bool,
}

impl<T> Published<T> {
    /// Makes a node and publishes it.
    pub(crate) fn new<E>(
        parent: &pci::Device<device::Core<'_>>,
        kind: &Kind,
        data: impl PinInit<T, E>,
    ) -> Result<Self>
    where
        Error: From<E>,
    {
        let node = Node::new(parent, kind, data)?;
        let device = node.device.get();
        // SAFETY: an initialized device that isn't added yet; the name has no conversions.
        to_result(unsafe { bindings::dev_set_name(device, kind.name.as_char_ptr()) })?;
        // SAFETY: both are initialized and not added yet.
        to_result(unsafe { (kind.add)(node.cdev.get(), device) })?;
        Ok(Self {
            node,
            published: true,
        })
    }

    /// The node.
    pub(crate) fn node(&self) -> &ARef<Node<T>> {
        &self.node
    }

    /// Takes it out of sysfs and /dev. Afterwards it can't be opened; who has it open still
    /// can call into it.
    pub(crate) fn unpublish(&mut self) {
        if core::mem::take(&mut self.published) {
            // SAFETY: added in `new`, and deleted once.
            unsafe { bindings::cdev_device_del(self.node.cdev.get(), self.node.device.get()) };
            // Nobody can find it any more, so a reference that is the only one stays that.
            if self.node.references() > 1 {
                tail::expect();
            }
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        self.unpublish();
    }
}

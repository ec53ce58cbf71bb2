// SPDX-License-Identifier: GPL-2.0-only
//! The PCI function: enabled, its interrupt line, and its registers.
//!
//! The kernel crate's `Bar` lives as long as a borrow of the bound device. Ours is shared with
//! an interrupt handler, so it is reference-counted; [`crate::probe::Parts`] sees to it that
//! the last reference goes before the unbind ends.

use dk_ring::pci::Registers;
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::{device, pci};

/// An id that fits only a device whose `driver_override` names the driver.
pub(crate) const fn override_only(vendor: pci::Vendor, device: u32) -> pci::DeviceId {
    const PCI_ANY_ID: u32 = !0;
    let id = bindings::pci_device_id {
        vendor: vendor.as_raw() as u32,
        device,
        subvendor: PCI_ANY_ID,
        subdevice: PCI_ANY_ID,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        // Any value but 0 has the effect in pci_match_device(); this one has an alias, too.
        override_only: bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE,
    };
    // SAFETY: `DeviceId` is a transparent wrapper of `pci_device_id` without an invariant. It
    // has no constructor that sets this field.
    unsafe { core::mem::transmute::<bindings::pci_device_id, pci::DeviceId>(id) }
}

/// A bound PCI function that is enabled. Dropped, it is disabled.
pub(crate) struct Function {
    pdev: ARef<pci::Device>,
}

fn as_raw(pdev: &pci::Device) -> *mut bindings::pci_dev {
    // `pci::Device` is a transparent wrapper of an `Opaque<pci_dev>`.
    core::ptr::from_ref(pdev).cast_mut().cast()
}

impl Function {
    /// Lets the function decode memory and be a bus master.
    pub(crate) fn enable(pdev: &pci::Device<device::Core<'_>>) -> Result<Self> {
        pdev.enable_device_mem()?;
        pdev.set_master();
        Ok(Self { pdev: pdev.into() })
    }

    /// The line of INTx.
    pub(crate) fn irq(&self) -> u32 {
        // SAFETY: a valid pci_dev; the field was set when the function was enabled.
        unsafe { (*as_raw(&self.pdev)).irq }
    }

    /// Reads the aligned dword of config space at `offset`; all ones where that fails.
    pub(crate) fn config_dword(&self, offset: u8) -> u32 {
        let mut value = !0;
        // SAFETY: a valid pci_dev and a place for the value. On failure that is set to ones.
        unsafe {
            bindings::pci_read_config_dword(
                as_raw(&self.pdev),
                c_int::from(offset & !3),
                &mut value,
            )
        };
        value
    }

    /// Maps a BAR.
    pub(crate) fn map(function: Arc<Self>, bar: u8) -> Result<Mmio> {
        let pdev = as_raw(&function.pdev);
        let len = usize::try_from(function.pdev.resource_len(u32::from(bar))?)?;
        let bar = c_int::from(bar);
        // SAFETY: a valid pci_dev; resource_len() has checked the BAR's number.
        to_result(unsafe { bindings::pci_request_region(pdev, bar, c"mydrv".as_char_ptr()) })?;
        // SAFETY: as above, and the region is ours.
        let base = unsafe { bindings::pci_iomap(pdev, bar, 0) };
        if base.is_null() {
            // SAFETY: requested above.
            unsafe { bindings::pci_release_region(pdev, bar) };
            return Err(ENOMEM);
        }
        Ok(Mmio(Arc::new(
            Mapping {
                base: base.cast(),
                len,
                bar,
                function,
            },
            GFP_KERNEL,
        )?))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: a valid pci_dev, enabled by us once.
        unsafe { bindings::pci_disable_device(as_raw(&self.pdev)) };
    }
}

/// A mapped BAR.
struct Mapping {
    base: *mut u8,
    len: usize,
    bar: c_int,
    function: Arc<Function>,
}

// SAFETY: device registers belong to no thread; each access is a single bus access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        let pdev = as_raw(&self.function.pdev);
        // SAFETY: mapped and requested in `Function::map`, undone once. The function is still
        // enabled: its reference goes after this.
        unsafe {
            bindings::pci_iounmap(pdev, self.base.cast());
            bindings::pci_release_region(pdev, self.bar);
        }
    }
}

/// The registers in a BAR.
#[derive(Clone)]
pub(crate) struct Mmio(Arc<Mapping>);

macro_rules! access {
    ($read:ident, $write:ident, $width:ty, $c_read:ident, $c_write:ident) => {
        fn $read(&self, offset: usize) -> $width {
            match self.at::<$width>(offset) {
                // SAFETY: mapped, and within the BAR.
                Some(at) => unsafe { bindings::$c_read(at) },
                None => <$width>::MAX,
            }
        }

        fn $write(&self, offset: usize, value: $width) {
            if let Some(at) = self.at::<$width>(offset) {
                // SAFETY: mapped, and within the BAR.
                unsafe { bindings::$c_write(value, at) }
            }
        }
    };
}

impl Mmio {
    /// The address of a register, or `None` where the BAR has none.
    fn at<W>(&self, offset: usize) -> Option<*mut c_void> {
        let width = core::mem::size_of::<W>();
        let fits = offset % width == 0 && offset.checked_add(width)? <= self.0.len;
        fits.then(|| self.0.base.wrapping_add(offset).cast())
    }
}

impl Registers for Mmio {
    access!(read8, write8, u8, readb, writeb);
    access!(read16, write16, u16, readw, writew);
    access!(read32, write32, u32, readl, writel);
}

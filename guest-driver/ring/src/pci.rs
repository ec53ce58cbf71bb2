// SPDX-License-Identifier: GPL-2.0-only
//! virtio-drivers' `Transport` for a modern virtio-pci device (virtio 1.2, 4.1), over register
//! access that its user brings.
//!
//! virtio-drivers has a transport of its own for this. It sizes BARs by writing to config
//! space, which in a running system is the PCI core's; maps without a way to unmap; and its
//! drop spins until the device says that it is reset, for ever after an unplug.

use core::fmt;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The memory BAR that holds the device's registers. An access beyond its end reads as all
/// ones, and is dropped when written: the way a device that is gone behaves.
#[expect(missing_docs, reason = "reads and writes of a width, at a byte offset")]
pub trait Registers {
    fn read8(&self, offset: usize) -> u8;
    fn read16(&self, offset: usize) -> u16;
    fn read32(&self, offset: usize) -> u32;
    fn write8(&self, offset: usize, value: u8);
    fn write16(&self, offset: usize, value: u16);
    fn write32(&self, offset: usize, value: u32);
}

/// PCI status register, upper half of this dword: bit 4 says that there are capabilities.
const COMMAND_STATUS: u8 = 0x04;
const HAS_CAPABILITIES: u32 = 1 << (16 + 4);
const CAPABILITIES: u8 = 0x34;
const VENDOR_SPECIFIC: u8 = 0x09;
/// The last offset at which a structure of 16 bytes, and 4 more of a notify structure, fits.
const LAST_CAPABILITY: u8 = (256 - 20) as u8;
/// Capabilities of 4 bytes or more that fit config space behind its header.
const MAX_CAPABILITIES: usize = (256 - 64) / 4;

/// `cfg_type` of the structures that we use.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;

/// Where the device keeps its registers: byte offsets into one BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The BAR's number.
    pub bar: u8,
    common: usize,
    notify: usize,
    notify_multiplier: usize,
    isr: usize,
    device: usize,
}

/// Why config space doesn't describe a device that we can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The structure of this `cfg_type` has no capability.
    Missing(u8),
    /// The structures are in two BARs, which no QEMU device does.
    TwoBars(u8, u8),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(kind) => write!(f, "no virtio capability of type {kind}"),
            Self::TwoBars(a, b) => {
                write!(
                    f,
                    "virtio structures in BARs {a} and {b}; only one is supported"
                )
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Finds the virtio structures by `read_config`, which reads the aligned dword of config
    /// space at an offset. The first capability of a type is the one to use.
    ///
    /// # Errors
    /// [`LayoutError`] where one is missing.
    pub fn find(read_config: impl Fn(u8) -> u32) -> core::result::Result<Self, LayoutError> {
        let mut found: [Option<(u8, usize, usize)>; 5] = [None; 5];
        let mut next = match read_config(COMMAND_STATUS) & HAS_CAPABILITIES {
            0 => 0,
            _ => read_config(CAPABILITIES) as u8 & !3,
        };
        for _ in 0..MAX_CAPABILITIES {
            if next < 64 {
                break;
            }
            let [id, following, _len, kind] = read_config(next).to_le_bytes();
            if id == VENDOR_SPECIFIC && next <= LAST_CAPABILITY {
                let slot = found.get_mut(usize::from(kind));
                if let Some(slot @ None) = slot {
                    let bar = read_config(next + 4) as u8;
                    let offset = read_config(next + 8) as usize;
                    let multiplier = match kind {
                        NOTIFY_CFG => read_config(next + 16) as usize,
                        _ => 0,
                    };
                    *slot = Some((bar, offset, multiplier));
                }
            }
            next = following & !3;
        }
        let take = |kind: u8| found[usize::from(kind)].ok_or(LayoutError::Missing(kind));
        let (bar, common, _) = take(COMMON_CFG)?;
        let (notify_bar, notify, notify_multiplier) = take(NOTIFY_CFG)?;
        let (isr_bar, isr, _) = take(ISR_CFG)?;
        let (device_bar, device, _) = take(DEVICE_CFG)?;
        match [notify_bar, isr_bar, device_bar]
            .iter()
            .find(|b| **b != bar)
        {
            Some(other) => Err(LayoutError::TwoBars(bar, *other)),
            None => Ok(Self {
                bar,
                common,
                notify,
                notify_multiplier,
                isr,
                device,
            }),
        }
    }

    /// Reads, and by that acknowledges, the interrupt status (virtio 1.2, 4.1.4.5). Needs
    /// nothing of the transport, so an interrupt handler needs no lock.
    pub fn take_interrupt(&self, registers: &impl Registers) -> InterruptStatus {
        // All ones is what a device reads that isn't there any more: no interrupt.
        match registers.read8(self.isr) {
            0xff => InterruptStatus::empty(),
            bits => InterruptStatus::from_bits_truncate(u32::from(bits)),
        }
    }
}

/// Offsets into the common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const DEVICE_STATUS: usize = 0x14;
    pub(super) const CONFIG_GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(super) const QUEUE_DESC: usize = 0x20;
    pub(super) const QUEUE_DRIVER: usize = 0x28;
    pub(super) const QUEUE_DEVICE: usize = 0x30;
}

/// A modern virtio-pci device. Dropping it leaves the device as it is: whoever started the
/// device resets it.
#[derive(Debug)]
pub struct ModernTransport<R> {
    registers: R,
    layout: Layout,
    device_type: DeviceType,
    /// Where the queue that was set up last is notified. We have one queue.
    doorbell: Option<usize>,
}

impl<R: Registers> ModernTransport<R> {
    /// A transport over `registers`, which are `layout`'s BAR.
    pub fn new(registers: R, layout: Layout, device_type: DeviceType) -> Self {
        Self {
            registers,
            layout,
            device_type,
            doorbell: None,
        }
    }

    fn at(&self, register: usize) -> usize {
        self.layout.common + register
    }

    fn select(&self, queue: u16) {
        self.registers.write16(self.at(common::QUEUE_SELECT), queue);
    }

    /// 64-bit registers are written as two halves, as 4.1.3.1 asks.
    fn write64(&self, register: usize, value: u64) {
        self.registers.write32(self.at(register), value as u32);
        self.registers
            .write32(self.at(register) + 4, (value >> 32) as u32);
    }

    /// Reads or writes device configuration piecewise, each piece aligned to its width.
    fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut done = 0;
        core::iter::from_fn(move || {
            let (at, left) = (offset + done, len - done);
            let width = [4, 2, 1]
                .into_iter()
                .find(|w| at.is_multiple_of(*w) && *w <= left)?;
            let piece = (done, width);
            done += width;
            Some(piece)
        })
    }
}

impl<R: Registers> Transport for ModernTransport<R> {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |select| {
            self.registers
                .write32(self.at(common::DEVICE_FEATURE_SELECT), select);
            u64::from(self.registers.read32(self.at(common::DEVICE_FEATURE)))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        for (select, half) in [(0, driver_features), (1, driver_features >> 32)] {
            self.registers
                .write32(self.at(common::DRIVER_FEATURE_SELECT), select);
            self.registers
                .write32(self.at(common::DRIVER_FEATURE), half as u32);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        u32::from(self.registers.read16(self.at(common::QUEUE_SIZE)))
    }

    fn notify(&mut self, queue: u16) {
        if let Some(doorbell) = self.doorbell {
            self.registers.write16(doorbell, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let bits = self.registers.read8(self.at(common::DEVICE_STATUS));
        DeviceStatus::from_bits_retain(u32::from(bits))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.registers
            .write8(self.at(common::DEVICE_STATUS), status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {
        // Legacy only.
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.registers
            .write16(self.at(common::QUEUE_SIZE), size as u16);
        self.write64(common::QUEUE_DESC, descriptors);
        self.write64(common::QUEUE_DRIVER, driver_area);
        self.write64(common::QUEUE_DEVICE, device_area);
        let notify_off = self.registers.read16(self.at(common::QUEUE_NOTIFY_OFF));
        self.doorbell =
            Some(self.layout.notify + usize::from(notify_off) * self.layout.notify_multiplier);
        self.registers.write16(self.at(common::QUEUE_ENABLE), 1);
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Modern devices disable a queue by reset only (4.1.4.3.2).
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.registers.read16(self.at(common::QUEUE_ENABLE)) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.layout.take_interrupt(&self.registers)
    }

    fn read_config_generation(&self) -> u32 {
        u32::from(self.registers.read8(self.at(common::CONFIG_GENERATION)))
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        for (done, width) in Self::pieces(offset, bytes.len()) {
            let at = self.layout.device + offset + done;
            let to = &mut bytes[done..done + width];
            match width {
                4 => to.copy_from_slice(&self.registers.read32(at).to_le_bytes()),
                2 => to.copy_from_slice(&self.registers.read16(at).to_le_bytes()),
                _ => to[0] = self.registers.read8(at),
            }
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        // A vhost-user disk takes no configuration writes, and we have none to make.
        Err(Error::Unsupported)
    }
}

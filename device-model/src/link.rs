//! The vhost-user side of a connection: what the VMM sets up, and when the ring runs.
//!
//! This implements the vhost crate's handler itself and not through vhost-user-backend, whose
//! daemon has a thread for messages and one for the ring, can't be woken while it waits for a
//! connection, keeps "already claimed" over a device that was unplugged and plugged again, and
//! has no ledger of requests in flight.
//!
//! The VMM is trusted to speak the protocol: a message that makes no sense ends its connection.
//! The guest is trusted with nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dk_control::Suspicion;
use rustix::fs::OFlags;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::config;
use crate::device::Device;
use crate::ledger::{self, Ledger};
use crate::ring;

/// The one queue's index.
const QUEUE: u32 = 0;

/// The device and what the VMM has set up of it.
#[derive(Debug)]
pub struct Front {
    /// The device.
    pub device: Device,
    session: Session,
}

/// What one connection has set up. It ends with the connection.
#[derive(Debug, Default)]
struct Session {
    features: u64,
    mappings: Vec<Mapping>,
    kick: Option<File>,
    /// The kick of a ring that the VMM has stopped: a driver leaves it alone.
    late_kick: Option<File>,
    call: Option<File>,
    err: Option<File>,
    enabled: bool,
    addressed: bool,
}

/// Where a part of guest memory is in the VMM's own address space.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    vmm: u64,
    len: u64,
    guest: u64,
}

/// The front, shared between the loop and the vhost crate, which asks for a lock. One thread
/// takes it, so it is never waited for.
pub type Shared = Arc<Mutex<Front>>;

/// Takes the front. A panic elsewhere doesn't matter: there is no other thread.
pub fn lock(front: &Shared) -> MutexGuard<'_, Front> {
    front.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    /// A device that nobody is connected to.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            session: Session::default(),
        }
    }

    /// A VMM connected.
    pub fn connect(&mut self) {
        self.device.link(true);
    }

    /// The VMM is gone: nothing of its guest is touched any more.
    pub fn disconnect(&mut self) {
        self.reset();
        self.device.link(false);
    }

    fn reset(&mut self) {
        self.device.stop();
        self.device.ring().set_ledger(None);
        self.session = Session::default();
        self.device.set_memory(GuestMemoryMmap::default());
    }

    /// The kick's file, while the ring runs.
    pub fn kick(&self) -> Option<&File> {
        self.session
            .kick
            .as_ref()
            .filter(|_| self.device.is_running())
    }

    /// The kick's file, from the moment the ring was stopped until it is set up anew.
    pub fn late_kick(&self) -> Option<&File> {
        self.session.late_kick.as_ref()
    }

    /// Hears a kick that came after the ring was stopped.
    pub fn hear_late_kick(&mut self) {
        // Told once, or it isn't one that can kick.
        let Some(mut kick) = self.session.late_kick.take() else {
            return;
        };
        let mut count = [0; 8];
        if let Ok(8) = kick.read(&mut count) {
            let count = u64::from_ne_bytes(count);
            let detail = format!("expected no kick after the ring was stopped, found {count}");
            self.device
                .suspect(Suspicion::KickedWhileStopped, Some(detail));
        }
    }

    /// Serves the ring, after a kick if there was one. Returns whether there is more to do.
    pub fn serve(&mut self) -> bool {
        if let Some(mut kick) = self.kick() {
            // How often was kicked doesn't matter: the ring tells what there is to do.
            match kick.read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                // It isn't one that can kick, and would be readable for ever.
                Ok(0) | Err(_) => self.session.kick = None,
            }
        }
        let served = self.device.serve();
        if served.interrupt {
            signal(self.session.call.as_ref());
        }
        self.tell_fault();
        served.more
    }

    /// Interrupts the driver, if it is to hear of something done outside of
    /// [`serve`](Self::serve).
    pub fn interrupt(&mut self) {
        if self.device.take_interrupt() {
            signal(self.session.call.as_ref());
        }
        self.tell_fault();
    }

    fn tell_fault(&mut self) {
        if self.device.take_fault().is_some() {
            signal(self.session.err.as_ref());
        }
    }

    /// Starts or stops the ring, as what is set up allows.
    fn update(&mut self) {
        let session = &self.session;
        if session.kick.is_some() && session.enabled && session.addressed {
            self.device.start();
            self.tell_fault();
        } else {
            // The guest waits meanwhile: QEMU stops the ring, or disables it just before, while
            // it carries out the guest's reset. That isn't so at a disconnection.
            self.device.inspect();
            self.device.stop();
        }
    }

    fn guest_address(&self, vmm: u64) -> Result<GuestAddress> {
        let found = self.session.mappings.iter().find_map(|mapping| {
            let offset = vmm
                .checked_sub(mapping.vmm)
                .filter(|&offset| offset < mapping.len)?;
            mapping.guest.checked_add(offset).map(GuestAddress)
        });
        found.ok_or(Error::InvalidParam)
    }
}

/// Adds one to an eventfd. One that is full has not been heard yet, and will be.
fn signal(file: Option<&File>) {
    if let Some(mut file) = file {
        let _ = file.write(&1u64.to_ne_bytes());
    }
}

/// Takes back to zero what an eventfd counts; tells whether it is one.
fn drain(mut file: &File) -> bool {
    match file.read(&mut [0; 8]) {
        Ok(read) => read == 8,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// An eventfd from the VMM. Neither reading nor writing it may block, whatever it is.
fn event(file: Option<File>) -> Result<Option<File>> {
    if let Some(file) = &file {
        let flags = rustix::fs::fcntl_getfl(file).map_err(refused)?;
        rustix::fs::fcntl_setfl(file, flags | OFlags::NONBLOCK).map_err(refused)?;
    }
    Ok(file)
}

fn refused<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

fn check_queue(index: u32) -> Result<()> {
    if index == QUEUE {
        Ok(())
    } else {
        Err(Error::InvalidParam)
    }
}

const UNSUPPORTED: Error = Error::InvalidOperation("not offered by this device");

impl VhostUserBackendReqHandlerMut for Front {
    /// A device that was unplugged and plugged again on one connection claims it again.
    fn set_owner(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.session.enabled = false;
        self.update();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(config::FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.session.features = features;
        // Who doesn't know how to enable a ring finds it enabled.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            self.session.enabled = true;
            self.update();
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut mappings = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let guest = region.guest_phys_addr;
            let region_map = GuestRegionMmap::new(region.mmap_region(file)?, GuestAddress(guest));
            mapped.push(region_map.ok_or(Error::InvalidParam)?);
            mappings.push(Mapping {
                vmm: region.user_addr,
                len: region.memory_size,
                guest,
            });
        }
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(refused)?;
        self.session.mappings = mappings;
        self.device.set_memory(memory);
        self.tell_fault();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        check_queue(index)?;
        if self.device.is_running() {
            return Err(Error::InvalidOperation("a running ring keeps its size"));
        }
        self.device.ring().set_size(num).map_err(refused)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        check_queue(index)?;
        if self.device.is_running() {
            return Err(Error::InvalidOperation("a running ring stays where it is"));
        }
        let descriptor = self.guest_address(descriptor)?;
        let available = self.guest_address(available)?;
        let used = self.guest_address(used)?;
        self.device
            .ring()
            .set_addresses(descriptor, available, used)
            .map_err(refused)?;
        self.session.late_kick = None;
        self.session.addressed = true;
        self.update();
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        check_queue(index)?;
        if self.device.is_running() {
            return Err(Error::InvalidOperation("a running ring keeps its base"));
        }
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.device.ring().set_base(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        check_queue(index)?;
        // Disabled already, as QEMU does it, or not: this is what stops it.
        let set_up = self.session.addressed;
        let kick = self.session.kick.take();
        self.session.call = None;
        // Set up anew before it runs again.
        self.session.addressed = false;
        self.update();
        // Kicks that came before are no fault; without them, the next one is.
        self.session.late_kick = kick.filter(|kick| set_up && drain(kick));
        Ok(VhostUserVringState::new(
            index,
            u32::from(self.device.ring().base()),
        ))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        check_queue(u32::from(index))?;
        self.session.late_kick = None;
        self.session.kick = event(file)?;
        self.update();
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        check_queue(u32::from(index))?;
        self.session.call = event(file)?;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        check_queue(u32::from(index))?;
        self.session.err = event(file)?;
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        check_queue(index)?;
        self.session.enabled = enable;
        self.update();
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let space = config::space(self.device.store().disk().len());
        let start = offset as usize;
        let end = start
            .checked_add(size as usize)
            .ok_or(Error::InvalidParam)?;
        space
            .get(start..end)
            .map(<[u8]>::to_vec)
            .ok_or(Error::InvalidParam)
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        if asked.num_queues != 1 || asked.queue_size > ring::MAX_SIZE {
            return Err(Error::InvalidParam);
        }
        let file = ledger::create(asked.queue_size).map_err(refused)?;
        let given = VhostUserInflight {
            mmap_size: ledger::bytes(asked.queue_size),
            mmap_offset: 0,
            ..*asked
        };
        Ok((given, file))
    }

    fn set_inflight_fd(&mut self, kept: &VhostUserInflight, file: File) -> Result<()> {
        if kept.num_queues != 1 || kept.queue_size > ring::MAX_SIZE {
            return Err(Error::InvalidParam);
        }
        if self.device.is_running() {
            return Err(Error::InvalidOperation(
                "a running ring keeps its in-flight region",
            ));
        }
        let opened = Ledger::open(file, kept.mmap_offset, kept.mmap_size, kept.queue_size);
        self.device
            .ring()
            .set_ledger(Some(opened.map_err(refused)?));
        Ok(())
    }

    // What follows belongs to features that this device doesn't offer.

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(UNSUPPORTED)
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        Err(UNSUPPORTED)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(UNSUPPORTED)
    }
}

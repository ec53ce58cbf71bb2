// SPDX-License-Identifier: GPL-2.0-only
//! Start, stop, and when the ring's memory goes.

use super::{GET, started};
use crate::fake::{FakeDevice, FakeHal, SECTORS};
use crate::{Failure, InitError, QUEUE_SIZE, SLOTS, SubmitError};
use virtio_drivers::Error;

#[test]
fn a_started_device_has_what_it_needs() {
    let (device, ring) = started();
    assert!(device.running());
    // ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK.
    assert_eq!(device.status(), 0b1111);
    assert_eq!(ring.capacity(), SECTORS);
    assert_eq!(ring.free_slots(), SLOTS);
    assert!(FakeHal::allocation(device.descriptors()).is_some());
}

#[test]
fn a_device_in_use_is_reset_first() {
    let (device, first) = started();
    core::mem::forget(first);
    let second = device
        .ring()
        .expect("as after a driver that left it running");
    assert_eq!(second.free_slots(), SLOTS);
}

#[test]
fn what_a_start_needs_and_lacks_is_told() {
    let error = |device: &FakeDevice| device.ring().map(|_| ()).expect_err("doesn't start");
    const FAILED: u8 = 128;

    let device = FakeDevice::new();
    device.offer(0);
    assert_eq!(error(&device), InitError::Legacy);
    assert_eq!(device.status(), FAILED);

    let device = FakeDevice::new();
    device.refuse_features();
    assert_eq!(error(&device), InitError::FeaturesRefused);

    let device = FakeDevice::new();
    device.unsteady();
    assert_eq!(error(&device), InitError::Config(Error::NotReady));

    let device = FakeDevice::new();
    device.limit_queue(QUEUE_SIZE as u16 / 2);
    assert_eq!(error(&device), InitError::Queue(Error::InvalidParam));

    let device = FakeDevice::new();
    device.unplug();
    assert_eq!(error(&device), InitError::Gone);
}

#[test]
fn a_start_without_memory_leaves_none_behind() {
    let succeeds = (0..).find(|allocations| {
        let device = FakeDevice::new();
        FakeHal::fail_after(*allocations);
        let ring = device.ring();
        FakeHal::fail_after(usize::MAX);
        match ring {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, InitError::NoMemory);
                assert!(!device.running());
                false
            }
        }
    });
    assert_eq!(
        succeeds,
        Some(3),
        "slots, the ring's own part, the device's part"
    );
}

#[test]
fn drop_resets_the_device_and_frees_the_memory() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    let ticket = ring.submit(GET).expect("a free slot");
    let held = device.take().expect("a request");
    ring.abandon(ticket);
    drop(ring);
    assert!(!device.running());
    assert_ne!(FakeHal::allocation(descriptors), allocation);
    assert!(
        !device.answer(held, 0, &[0; 8]),
        "a reset device has forgotten its requests"
    );
}

#[test]
fn after_stop_nothing_is_sent_or_answered() {
    let (device, mut ring) = started();
    let answered = ring.submit(GET).expect("a free slot");
    device.serve();
    ring.reap();
    let waiting = ring.submit(GET).expect("a free slot");
    assert_eq!(ring.stop(), Ok(()));
    assert_eq!(ring.stop(), Ok(()), "the second time, too");
    assert!(ring.dead() && !device.running());
    assert_eq!(ring.submit(GET).map(|_| ()), Err(SubmitError::Dead));
    assert_eq!(ring.reap(), 0);
    // What was answered before still can be collected.
    assert_eq!(ring.collect(answered, &mut [0; 8]), Ok(8));
    assert_eq!(ring.collect(waiting, &mut [0; 8]), Err(Failure::Unanswered));
}

#[test]
fn the_memory_of_a_device_that_does_not_stop_is_kept() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    let ticket = ring.submit(GET).expect("a free slot");
    device.refuse_reset();
    assert_eq!(ring.stop(), Err(InitError::ResetRefused));
    ring.abandon(ticket);
    drop(ring);
    assert_eq!(FakeHal::allocation(descriptors), allocation);
    // It goes on writing, into memory that is nobody else's.
    assert_eq!(device.serve(), 1);
}

#[test]
fn a_device_that_was_unplugged_stops_at_once() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    let ticket = ring.submit(GET).expect("a free slot");
    device.unplug();
    assert_eq!(ring.reap(), 0);
    assert_eq!(ring.stop(), Ok(()));
    ring.abandon(ticket);
    drop(ring);
    assert_ne!(FakeHal::allocation(descriptors), allocation);
}

#[test]
fn a_device_that_others_stopped_is_not_reset_again() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    // SAFETY: the device does nothing but on this test's behalf.
    unsafe { ring.assume_stopped() };
    assert!(ring.dead());
    assert_eq!(ring.stop(), Ok(()));
    assert!(device.running(), "nobody has told it");
    drop(ring);
    assert!(device.running());
    assert_ne!(FakeHal::allocation(descriptors), allocation);
}

#[test]
fn memory_that_is_free_is_not_freed_again() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    // SAFETY: the device does nothing but on this test's behalf, and the ring is only stopped.
    unsafe { ring.free() };
    assert_ne!(FakeHal::allocation(descriptors), allocation);
    assert!(device.running());
    assert_eq!(ring.stop(), Ok(()));
    assert!(!device.running());
}

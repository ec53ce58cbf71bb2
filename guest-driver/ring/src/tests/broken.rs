// SPDX-License-Identifier: GPL-2.0-only
//! A device that breaks the ring's protocol: the ring dies, and nothing else.

use super::{FakeRing, GET, started};
use crate::fake::FakeHal;
use crate::{Failure, QUEUE_SIZE, SubmitError};

fn assert_dead(ring: &mut FakeRing) {
    assert!(ring.dead());
    assert_eq!(ring.submit(GET).map(|_| ()), Err(SubmitError::Dead));
    assert_eq!(ring.reap(), 0);
}

#[test]
fn an_answer_to_nothing() {
    let (device, mut ring) = started();
    device.push_used(0);
    assert_eq!(ring.reap(), 0);
    assert_dead(&mut ring);
}

#[test]
fn an_answer_to_the_middle_of_a_chain() {
    let (device, mut ring) = started();
    let ticket = ring.submit(GET).expect("a free slot");
    device.push_used(1);
    ring.reap();
    assert_dead(&mut ring);
    assert_eq!(ring.collect(ticket, &mut [0; 8]), Err(Failure::Unanswered));
}

#[test]
fn an_answer_beyond_the_queue() {
    for id in [QUEUE_SIZE as u32, 0xffff, u32::MAX] {
        let (device, mut ring) = started();
        let ticket = ring.submit(GET).expect("a free slot");
        device.push_used(id);
        ring.reap();
        assert_dead(&mut ring);
        ring.abandon(ticket);
    }
}

#[test]
fn the_same_answer_twice() {
    let (device, mut ring) = started();
    let ticket = ring.submit(GET).expect("a free slot");
    device.serve();
    device.push_used(0);
    assert_eq!(ring.reap(), 1, "the first is good");
    assert!(ring.dead());
    assert_eq!(ring.collect(ticket, &mut [0; 8]), Ok(8), "and can be had");
    assert_dead(&mut ring);
}

#[test]
fn a_used_index_that_jumps() {
    for entries in [1, QUEUE_SIZE as u16, 0x8000, 0xffff] {
        let (device, mut ring) = started();
        device.skip_used(entries);
        assert_eq!(ring.reap(), 0);
        assert_dead(&mut ring);
    }
}

#[test]
fn the_memory_still_goes_with_the_ring() {
    let (device, mut ring) = started();
    let descriptors = device.descriptors();
    let allocation = FakeHal::allocation(descriptors);
    let ticket = ring.submit(GET).expect("a free slot");
    device.push_used(9);
    ring.reap();
    ring.abandon(ticket);
    assert!(device.running(), "nobody has reset it");
    drop(ring);
    assert!(!device.running());
    assert_ne!(FakeHal::allocation(descriptors), allocation);
}

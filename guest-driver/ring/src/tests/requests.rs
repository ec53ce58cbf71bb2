// SPDX-License-Identifier: GPL-2.0-only
//! Requests, their answers in any order and at any time, and their slots.

use super::{GET, started};
use crate::fake::FakeHal;
use crate::{Failure, MAX_DATA, Request, SLOTS, SubmitError};
use core::ptr::NonNull;
use std::vec;
use virtio_drivers::{BufferDirection, Hal};

#[test]
fn a_knob_reads_as_it_was_set() {
    let (device, mut ring) = started();
    let request = Request::KnobSet {
        knob: 1,
        value: 0x0123_4567_89ab_cdef,
    };
    let set = ring.submit(request).expect("a free slot");
    assert!(!ring.answered(&set));
    device.serve();
    assert!(!ring.answered(&set), "nobody has looked into the ring");
    assert_eq!(ring.reap(), 1);
    assert_eq!(ring.collect(set, &mut []), Ok(0));
    assert_eq!(device.knob(1), 0x0123_4567_89ab_cdef);

    let get = ring
        .submit(Request::KnobGet { knob: 1 })
        .expect("a free slot");
    device.serve();
    ring.reap();
    let mut value = [0; 8];
    assert_eq!(ring.collect(get, &mut value), Ok(8));
    assert_eq!(u64::from_le_bytes(value), 0x0123_4567_89ab_cdef);
}

#[test]
fn sectors_read_as_they_were_written() {
    let (device, mut ring) = started();
    let written: [u8; MAX_DATA] = core::array::from_fn(|at| (at * 7) as u8);
    let write = ring
        .submit(Request::Write {
            sector: 3,
            data: &written,
        })
        .expect("a free slot");
    let read = ring
        .submit(Request::Read {
            sector: 4,
            len: MAX_DATA - 512,
        })
        .expect("another");
    assert_eq!(device.serve(), 2);
    assert_eq!(ring.reap(), 2);
    assert_eq!(ring.collect(write, &mut []), Ok(0));
    let mut out = vec![0; MAX_DATA];
    assert_eq!(ring.collect(read, &mut out), Ok(MAX_DATA - 512));
    assert_eq!(out[..MAX_DATA - 512], written[512..]);
}

#[test]
fn each_status_has_its_meaning() {
    let (device, mut ring) = started();
    for (status, meaning) in [
        (dk_abi::STATUS_OK, Ok(8)),
        (dk_abi::STATUS_IOERR, Err(Failure::Io)),
        (dk_abi::STATUS_UNSUPP, Err(Failure::Unsupported)),
        (77, Err(Failure::BadStatus(77))),
        // What the driver put there: the device said that it answered and didn't.
        (0xff, Err(Failure::BadStatus(0xff))),
    ] {
        let ticket = ring.submit(GET).expect("a free slot");
        let taken = device.take().expect("a request");
        assert!(device.answer(taken, status, &[1; 8]));
        ring.reap();
        let mut out = [0; 8];
        assert_eq!(ring.collect(ticket, &mut out), meaning);
        assert_eq!(
            out,
            [u8::from(meaning.is_ok()); 8],
            "a failure leaves the buffer alone"
        );
        assert_eq!(ring.free_slots(), SLOTS);
    }
}

#[test]
fn lengths_that_no_slot_holds_are_refused() {
    let (device, mut ring) = started();
    for len in [0, MAX_DATA + 1, usize::MAX] {
        let read = ring.submit(Request::Read { sector: 0, len });
        assert_eq!(read.map(|_| ()), Err(SubmitError::BadLength(len)));
    }
    let big = [0; MAX_DATA + 1];
    for data in [&big[..], &[]] {
        let write = ring.submit(Request::Write { sector: 0, data });
        assert_eq!(write.map(|_| ()), Err(SubmitError::BadLength(data.len())));
    }
    assert_eq!(ring.free_slots(), SLOTS);
    assert!(device.take().is_none(), "the device knows nothing of them");
}

#[test]
fn a_full_ring_says_so_until_an_answer() {
    let (device, mut ring) = started();
    let mut tickets = vec![];
    for left in (0..SLOTS).rev() {
        tickets.push(ring.submit(GET).expect("a free slot"));
        assert_eq!(ring.free_slots(), left);
    }
    assert_eq!(ring.submit(GET).map(|_| ()), Err(SubmitError::Full));
    device.serve();
    assert_eq!(
        ring.submit(GET).map(|_| ()),
        Err(SubmitError::Full),
        "not reaped"
    );
    ring.reap();
    assert_eq!(
        ring.submit(GET).map(|_| ()),
        Err(SubmitError::Full),
        "not collected"
    );
    for ticket in tickets {
        assert_eq!(ring.collect(ticket, &mut [0; 8]), Ok(8));
    }
    assert_eq!(ring.free_slots(), SLOTS);
}

#[test]
fn answers_in_the_reverse_order_find_their_askers() {
    let (device, mut ring) = started();
    let tickets: [_; SLOTS] = core::array::from_fn(|_| ring.submit(GET).expect("a free slot"));
    let taken: [_; SLOTS] = core::array::from_fn(|_| device.take().expect("a request"));
    for (number, taken) in taken.into_iter().enumerate().rev() {
        assert!(device.answer(taken, 0, &[number as u8; 8]));
    }
    assert_eq!(ring.reap(), SLOTS);
    for (number, ticket) in tickets.into_iter().enumerate() {
        let mut out = [0xee; 8];
        assert_eq!(ring.collect(ticket, &mut out), Ok(8));
        assert_eq!(out, [number as u8; 8]);
    }
}

#[test]
fn a_late_answer_goes_to_nobody_and_frees_its_slot() {
    let (device, mut ring) = started();
    let given_up = ring.submit(GET).expect("a free slot");
    let late = device.take().expect("a request");
    ring.abandon(given_up);
    assert_eq!(
        ring.free_slots(),
        SLOTS - 1,
        "the device may still write there"
    );

    // Meanwhile the others go on, in the other slots.
    for value in 1..100 {
        let ticket = ring.submit(GET).expect("a free slot");
        let taken = device.take().expect("a request");
        assert!(device.answer(taken, 0, &[value; 8]));
        ring.reap();
        let mut out = [0; 8];
        assert_eq!(ring.collect(ticket, &mut out), Ok(8));
        assert_eq!(out, [value; 8]);
    }

    let waiting = ring.submit(GET).expect("a free slot");
    assert!(device.answer(late, 0, &[0xdd; 8]));
    assert_eq!(ring.reap(), 1);
    assert!(!ring.answered(&waiting), "the late answer isn't this one's");
    assert_eq!(ring.free_slots(), SLOTS - 1);
    device.serve();
    ring.reap();
    let mut out = [0xee; 8];
    assert_eq!(ring.collect(waiting, &mut out), Ok(8));
    assert_eq!(out, [0; 8]);
    assert_eq!(ring.free_slots(), SLOTS);
}

#[test]
fn giving_up_after_the_answer_frees_the_slot_at_once() {
    let (device, mut ring) = started();
    let ticket = ring.submit(GET).expect("a free slot");
    device.serve();
    ring.reap();
    ring.abandon(ticket);
    assert_eq!(ring.free_slots(), SLOTS);
    assert!(!ring.dead());
}

#[test]
fn asking_too_early_abandons() {
    let (device, mut ring) = started();
    let ticket = ring.submit(GET).expect("a free slot");
    assert_eq!(ring.collect(ticket, &mut [0; 8]), Err(Failure::Unanswered));
    assert_eq!(ring.free_slots(), SLOTS - 1);
    device.serve();
    assert_eq!(ring.reap(), 1);
    assert_eq!(ring.free_slots(), SLOTS);
}

#[test]
fn the_indices_wrap() {
    let (device, mut ring) = started();
    for round in 0..70_000_u32 {
        let value = u64::from(round);
        let set = ring
            .submit(Request::KnobSet { knob: 0, value })
            .expect("a free slot");
        let get = ring.submit(GET).expect("a free slot");
        assert_eq!(device.serve(), 2);
        assert_eq!(ring.reap(), 2);
        let mut out = [0; 8];
        assert_eq!(ring.collect(set, &mut []), Ok(0));
        assert_eq!(ring.collect(get, &mut out), Ok(8));
        assert_eq!(u64::from_le_bytes(out), value);
    }
    assert_eq!(device.kicks(), 140_000, "a kick for each");
}

#[test]
fn a_device_that_looks_by_itself_is_not_kicked() {
    let (device, mut ring) = started();
    device.suppress_kicks(true);
    let first = ring.submit(GET).expect("a free slot");
    assert_eq!(device.kicks(), 0);
    device.suppress_kicks(false);
    let second = ring.submit(GET).expect("a free slot");
    assert_eq!(device.kicks(), 1);
    ring.abandon(first);
    ring.abandon(second);
}

#[test]
fn no_buffer_is_on_the_callers_stack() {
    let (device, mut ring) = started();
    let data = [1; 512];
    let ticket = ring
        .submit(Request::Write {
            sector: 0,
            data: &data,
        })
        .expect("a free slot");
    // The fake panics where a buffer isn't shared memory; the caller's never is.
    assert!(FakeHal::allocation(data.as_ptr().expose_provenance() as u64).is_none());
    assert_eq!(device.serve(), 1);
    ring.abandon(ticket);
}

#[test]
fn the_id_is_asked_for() {
    let (device, mut ring) = started();
    let ticket = ring.submit(Request::GetId).expect("a free slot");
    let taken = device.take().expect("a request");
    let id = *b"knobrig\0\0\0\0\0\0\0\0\0\0\0\0\0";
    assert!(device.answer(taken, dk_abi::STATUS_OK, &id));
    ring.reap();
    let mut out = [1; dk_abi::ID_LEN];
    assert_eq!(ring.collect(ticket, &mut out), Ok(dk_abi::ID_LEN));
    assert_eq!(out, id);
}

#[test]
fn a_request_is_awaited_until_its_answer_or_its_end() {
    let (device, mut ring) = started();
    assert!(!ring.awaited());
    let first = ring.submit(GET).expect("a free slot");
    let second = ring.submit(GET).expect("a free slot");
    assert!(ring.awaited());
    ring.abandon(first);
    assert!(ring.awaited(), "the second one is");
    assert_eq!(device.serve(), 2);
    ring.reap();
    assert!(!ring.awaited());
    ring.abandon(second);
}

#[test]
fn an_answer_goes_to_the_buffer_that_was_lent() {
    let (device, mut ring) = started();
    let (_, buffer) = FakeHal::dma_alloc(1, BufferDirection::Both);
    // SAFETY: of a page, which is leaked, so nobody else's from here on.
    let ticket = unsafe { ring.submit_lent(GET, buffer) }.expect("a free slot");
    let taken = device.take().expect("a request");
    assert!(device.answer(taken, dk_abi::STATUS_OK, &[7; 8]));
    ring.reap();
    let mut out = [0; 8];
    assert_eq!(ring.collect(ticket, &mut out), Ok(8));
    assert_eq!(out, [7; 8]);
    assert_eq!(read(buffer), [7; 8]);

    // The next request of the slot is in the slot's own.
    let ticket = ring.submit(GET).expect("a free slot");
    let taken = device.take().expect("a request");
    assert!(device.answer(taken, dk_abi::STATUS_OK, &[9; 8]));
    ring.reap();
    assert_eq!(ring.collect(ticket, &mut out), Ok(8));
    assert_eq!(out, [9; 8]);
    assert_eq!(read(buffer), [7; 8]);
}

fn read(buffer: NonNull<u8>) -> [u8; 8] {
    // SAFETY: of a page, initialized, and with no device at this time.
    unsafe { buffer.cast::<[u8; 8]>().read_unaligned() }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Any sequence of steps by the driver and the device, against a model of the slots.

use super::started;
use crate::fake::{FakeHal, Taken};
use crate::{Failure, Request, SLOTS, SubmitError, Ticket};
use proptest::prelude::*;
use std::vec::Vec;

/// A step. Indices choose among what is there, modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Get,
    Set(u64),
    /// The device takes a request from the ring.
    Take,
    /// The device answers one that it has taken, with a status and a value.
    Answer(usize, u8, u8),
    Reap,
    Collect(usize),
    Abandon(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Get),
        2 => any::<u64>().prop_map(Step::Set),
        4 => Just(Step::Take),
        4 => (any::<usize>(), 0..4_u8, any::<u8>()).prop_map(|(i, s, v)| Step::Answer(i, s, v)),
        3 => Just(Step::Reap),
        3 => any::<usize>().prop_map(Step::Collect),
        2 => any::<usize>().prop_map(Step::Abandon),
    ]
}

/// A request, as the model sees it. Its number is what the device is asked as the sector.
#[derive(Debug)]
struct Asked {
    number: u64,
    /// `None` once given up.
    ticket: Option<Ticket>,
    get: bool,
    /// The status and the value that the device gave.
    answer: Option<(u8, u8)>,
    /// The ring has seen the answer.
    reaped: bool,
}

#[derive(Default)]
struct Model {
    asked: Vec<Asked>,
    taken: Vec<Taken>,
    next: u64,
}

impl Model {
    /// Drops what holds no slot: an answer that was reaped and for which nobody waits.
    fn settle(&mut self) {
        self.asked.retain(|a| a.ticket.is_some() || !a.reaped);
    }

    fn holder(&mut self, choice: usize) -> Option<usize> {
        let holders: Vec<usize> = (0..self.asked.len())
            .filter(|i| self.asked[*i].ticket.is_some())
            .collect();
        holders.get(choice.checked_rem(holders.len())?).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn slots_tickets_and_answers_agree(steps in prop::collection::vec(step(), 1..200)) {
        let (device, mut ring) = started();
        let descriptors = device.descriptors();
        let allocation = FakeHal::allocation(descriptors);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Get | Step::Set(_) => {
                    let (knob, get) = (model.next, matches!(step, Step::Get));
                    let request = match step {
                        Step::Set(value) => Request::KnobSet { knob, value },
                        _ => Request::KnobGet { knob },
                    };
                    match ring.submit(request) {
                        Ok(ticket) => {
                            prop_assert!(model.asked.len() < SLOTS);
                            model.asked.push(Asked {
                                number: knob, ticket: Some(ticket), get, answer: None, reaped: false,
                            });
                            model.next += 1;
                        }
                        Err(error) => {
                            prop_assert_eq!(error, SubmitError::Full);
                            prop_assert_eq!(model.asked.len(), SLOTS);
                        }
                    }
                }
                Step::Take => model.taken.extend(device.take()),
                Step::Answer(choice, status, value) => {
                    if let Some(index) = choice.checked_rem(model.taken.len()) {
                        let taken = model.taken.swap_remove(index);
                        let number = taken.header.sector;
                        prop_assert!(device.answer(taken, status, &[value; 8]));
                        let asked = model.asked.iter_mut().find(|a| a.number == number);
                        asked.expect("its slot isn't used anew").answer = Some((status, value));
                    }
                }
                Step::Reap => {
                    let mut fresh = 0;
                    for asked in &mut model.asked {
                        fresh += usize::from(asked.answer.is_some() && !asked.reaped);
                        asked.reaped = asked.answer.is_some();
                    }
                    prop_assert_eq!(ring.reap(), fresh);
                }
                Step::Collect(choice) => {
                    if let Some(index) = model.holder(choice) {
                        let asked = &mut model.asked[index];
                        let ticket = asked.ticket.take().expect("a holder");
                        let mut out = [0x5a; 8];
                        let result = ring.collect(ticket, &mut out);
                        let len = if asked.get { 8 } else { 0 };
                        match asked.answer.filter(|_| asked.reaped) {
                            None => prop_assert_eq!(result, Err(Failure::Unanswered)),
                            Some((0, value)) if asked.get => {
                                prop_assert_eq!(result, Ok(len));
                                prop_assert_eq!(out, [value; 8]);
                            }
                            Some((0, _)) => prop_assert!(result.is_ok()),
                            Some((1, _)) => prop_assert_eq!(result, Err(Failure::Io)),
                            Some((2, _)) => prop_assert_eq!(result, Err(Failure::Unsupported)),
                            Some((s, _)) => prop_assert_eq!(result, Err(Failure::BadStatus(s))),
                        }
                    }
                }
                Step::Abandon(choice) => {
                    if let Some(index) = model.holder(choice) {
                        ring.abandon(model.asked[index].ticket.take().expect("a holder"));
                    }
                }
            }
            model.settle();
            prop_assert!(!ring.dead());
            prop_assert_eq!(ring.free_slots(), SLOTS - model.asked.len());
            for asked in &model.asked {
                if let Some(ticket) = &asked.ticket {
                    prop_assert_eq!(ring.answered(ticket), asked.reaped);
                }
            }
        }
        drop(ring);
        prop_assert!(!device.running());
        prop_assert_ne!(FakeHal::allocation(descriptors), allocation);
    }

    /// Whatever ids a device puts into the used ring, and however its index moves: no panic,
    /// and the ring ends in order.
    #[test]
    fn any_used_ring(
        requests in 0..=SLOTS,
        ids in prop::collection::vec(prop_oneof![0..32_u32, any::<u32>()], 0..40),
        skip: Option<u16>,
    ) {
        let (device, mut ring) = started();
        let tickets: Vec<_> =
            (0..requests).map(|_| ring.submit(super::GET).expect("a free slot")).collect();
        for id in ids {
            device.push_used(id);
        }
        if let Some(entries) = skip {
            device.skip_used(entries);
        }
        prop_assert!(ring.reap() <= requests);
        for ticket in tickets {
            let _ = ring.collect(ticket, &mut [0; 8]);
        }
        ring.reap();
        drop(ring);
        prop_assert!(!device.running());
    }
}

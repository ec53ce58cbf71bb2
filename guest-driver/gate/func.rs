// SPDX-License-Identifier: GPL-2.0-only
//! The functions that can be points, found by the address of their call of the trampoline.
//!
//! Looked into at each call, so it is a table without locks. Whoever changes it holds
//! [`crate::command::LOCK`].

use core::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use kernel::prelude::*;

/// How many functions there can be; their numbers are below this.
pub(crate) const MOST: usize = 512;
/// Room for them to lie scattered.
const ROOM: usize = 1024;
/// So many places are looked at for one address.
const LOOKS: usize = 16;

/// A function.
pub(crate) struct Func {
    /// Its call of the trampoline; 0 for an empty place.
    ip: AtomicUsize,
    number: AtomicU16,
    /// The gates that are armed on it, a bit each.
    pub(crate) armed: AtomicU64,
}

static FUNCS: [Func; ROOM] = [const {
    Func {
        ip: AtomicUsize::new(0),
        number: AtomicU16::new(0),
        armed: AtomicU64::new(0),
    }
}; ROOM];

/// The place of each number, counted from 1; 0 for a number that isn't used.
static PLACES: [AtomicU16; MOST] = [const { AtomicU16::new(0) }; MOST];

fn places(ip: usize) -> impl Iterator<Item = usize> {
    // Fibonacci hashing: neighbours scatter.
    let first = (ip as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..LOOKS).map(move |look| (first as usize + look) % ROOM)
}

/// The function whose call of the trampoline is at `ip`.
pub(crate) fn find(ip: usize) -> Option<&'static Func> {
    places(ip)
        .map(|place| &FUNCS[place])
        .find(|func| func.ip.load(Ordering::Acquire) == ip)
}

/// The function of that number.
pub(crate) fn numbered(number: usize) -> Option<&'static Func> {
    let place = PLACES.get(number)?.load(Ordering::Relaxed);
    Some(&FUNCS[usize::from(place).checked_sub(1)?])
}

/// Adds one. A number that is used goes to the new one.
pub(crate) fn add(number: usize, ip: usize) -> Result {
    let place_of = PLACES.get(number).ok_or(EINVAL)?;
    if let Some(old) = numbered(number) {
        if old.ip() == ip {
            return Ok(());
        }
        remove(number);
    }
    if find(ip).is_some() {
        return Err(EEXIST);
    }
    let place = places(ip)
        .find(|place| FUNCS[*place].ip() == 0)
        .ok_or(ENOSPC)?;
    FUNCS[place].number.store(number as u16, Ordering::Relaxed);
    FUNCS[place].armed.store(0, Ordering::Relaxed);
    FUNCS[place].ip.store(ip, Ordering::Release);
    place_of.store(place as u16 + 1, Ordering::Relaxed);
    Ok(())
}

/// Forgets one; calls of it go by.
pub(crate) fn remove(number: usize) {
    if let Some(func) = numbered(number) {
        func.armed.store(0, Ordering::Relaxed);
        func.ip.store(0, Ordering::Release);
        PLACES[number].store(0, Ordering::Relaxed);
    }
}

impl Func {
    pub(crate) fn ip(&self) -> usize {
        self.ip.load(Ordering::Relaxed)
    }

    pub(crate) fn number(&self) -> u16 {
        self.number.load(Ordering::Relaxed)
    }
}

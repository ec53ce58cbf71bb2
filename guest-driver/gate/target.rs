// SPDX-License-Identifier: GPL-2.0-only
//! Where the modules under test are, so that a call that they make can be told from others.
//!
//! A module's place is known from its load on, and kept after it has gone: code of it may still
//! be on somebody's stack, and that is what is looked for. A module that was loaded before it
//! was named is found at its next load.

use crate::command::LOCK;
use crate::hook;
use crate::sys::Shared;
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// How many modules can be under test.
pub(crate) const MOST: usize = 4;

struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
}

static PLACES: [Place; MOST] = [const {
    Place {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
    }
}; MOST];

/// A module's name.
pub(crate) type Name = [u8; NAME_LEN];

/// MODULE_NAME_LEN of include/linux/module.h.
pub(crate) const NAME_LEN: usize = 64 - size_of::<c_ulong>();

/// Whether an address is in the text of a module under test.
pub(crate) fn owns(address: usize) -> bool {
    PLACES.iter().any(|place| {
        (place.start.load(Ordering::Relaxed)..place.end.load(Ordering::Relaxed)).contains(&address)
    })
}

/// Forgets where modules are: others are under test now.
pub(crate) fn forget() {
    for place in &PLACES {
        place.end.store(0, Ordering::Relaxed);
    }
}

/// `name` as the kernel keeps names.
pub(crate) fn name(text: &str) -> Result<Name> {
    let mut name = [0; NAME_LEN];
    // A NUL stays at its end.
    let room = name.len() - 1;
    let into = name[..room].get_mut(..text.len()).ok_or(EINVAL)?;
    into.copy_from_slice(text.as_bytes());
    Ok(name)
}

static NOTIFIER: Shared<bindings::notifier_block> = Shared::zeroed();

/// Hears of modules that come and go. Dropped, it hears no more.
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: zeroed, ours alone until it is registered, and unregistered before we go.
        to_result(unsafe {
            (*NOTIFIER.get()).notifier_call = Some(heard);
            bindings::register_module_notifier(NOTIFIER.get())
        })?;
        Ok(Self(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: registered by `new`. Afterwards nobody is in it.
        unsafe { bindings::unregister_module_notifier(NOTIFIER.get()) };
    }
}

/// # Safety
/// Called by the module loader with one of the actions and a module.
unsafe extern "C" fn heard(
    _: *mut bindings::notifier_block,
    action: c_ulong,
    data: *mut c_void,
) -> c_int {
    let module = data.cast::<bindings::module>();
    let coming = action == bindings::module_state_MODULE_STATE_COMING as c_ulong;
    let going = action == bindings::module_state_MODULE_STATE_GOING as c_ulong;
    if coming || going {
        // SAFETY: a module that is being loaded or unloaded, for this call.
        let (name, text) = unsafe {
            let name: Name = (*module).name;
            let text = &(*module).mem[bindings::mod_mem_type_MOD_TEXT as usize];
            (
                name,
                text.base as usize..text.base as usize + text.size as usize,
            )
        };
        let mut words = LOCK.lock();
        if let Some(number) = words.modules().iter().position(|it| *it == name) {
            if coming {
                PLACES[number].end.store(0, Ordering::Relaxed);
                PLACES[number].start.store(text.start, Ordering::Relaxed);
                PLACES[number].end.store(text.end, Ordering::Relaxed);
            } else {
                hook::module_goes(&mut words, number);
            }
        }
    }
    bindings::NOTIFY_OK as c_int
}

// SPDX-License-Identifier: GPL-2.0-only
//! Puts functions under ftrace: their calls come to the trampoline.
//!
//! Changing text takes an interrupt of every CPU, and taking it back a grace period for
//! everybody who may be in the trampoline. So the kernel's functions stay hooked once they are;
//! arming a gate is a few stores. Those of a module under test go with it.
//!
//! Functions are hooked in *batches*: an ftrace_ops each, all of the kernel's or all of one
//! module's. A batch of a module that has gone is unregistered later, by a command, before the
//! next module can be in its place, and not as the module goes: the grace period would wait for whoever is held at a gate in that
//! module, and so hide the very bug that the gate is there for.

use crate::command::Words;
use crate::func;
use crate::gate;
use crate::sys::{self, Shared};
use crate::target;
use crate::tramp;
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// How many batches there can be.
const MOST: usize = 16;

/// One batch's `ftrace_ops`.
static OPS: [Shared<bindings::ftrace_ops>; MOST] = [const { Shared::zeroed() }; MOST];

/// What a batch is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The kernel's own text.
    Kernel,
    /// A module under test.
    Module(usize),
}

/// What is known of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    owner: Owner,
    /// The module that it was of has gone.
    stale: bool,
}

/// What is hooked, and what is to be.
pub(crate) struct Hooked {
    batches: [Option<Batch>; MOST],
    /// Numbers of functions: what they belong to, and whether they are hooked.
    funcs: [Option<(Owner, bool)>; func::MOST],
}

impl Hooked {
    pub(crate) const NONE: Self = Self {
        batches: [None; MOST],
        funcs: [None; func::MOST],
    };
}

/// Adds a function, to be hooked by the next [`hook`].
pub(crate) fn add(words: &mut Words, number: usize, owner: Owner, ip: usize) -> Result {
    let known = words.hooked.funcs.get(number).ok_or(EINVAL)?;
    if known.is_some() && func::numbered(number).is_some_and(|func| func.ip() == ip) {
        return Ok(());
    }
    if known.is_some_and(|(_, hooked)| hooked) {
        return Err(EBUSY);
    }
    func::add(number, ip)?;
    words.hooked.funcs[number] = Some((owner, false));
    Ok(())
}

/// Hooks all that was added. What can't be is forgotten, and the error told.
pub(crate) fn hook(words: &mut Words) -> Result {
    // The kernel's own, then each module's.
    for batch in 0..=target::MOST {
        let owner = batch.checked_sub(1).map_or(Owner::Kernel, Owner::Module);
        let mut ips = KVec::new();
        for number in 0..func::MOST {
            if words.hooked.funcs[number] == Some((owner, false)) {
                if let Some(func) = func::numbered(number) {
                    ips.push(func.ip() as c_ulong, GFP_KERNEL)?;
                }
            }
        }
        if ips.is_empty() {
            continue;
        }
        let hooked = register(words, owner, &mut ips);
        for number in 0..func::MOST {
            if words.hooked.funcs[number] == Some((owner, false)) {
                words.hooked.funcs[number] = hooked.is_ok().then_some((owner, true));
                if hooked.is_err() {
                    func::remove(number);
                }
            }
        }
        hooked?;
    }
    Ok(())
}

fn register(words: &mut Words, owner: Owner, ips: &mut KVec<c_ulong>) -> Result {
    let free = words.hooked.batches.iter().position(Option::is_none);
    let number = free.ok_or(ENOSPC)?;
    let ops = OPS[number].get();
    // SAFETY: the ops are zeroed, or were unregistered and freed of their filters; they live as
    // long as the module, whose exit unregisters them. The trampoline is one for direct calls.
    unsafe {
        to_result(bindings::ftrace_set_filter_ips(
            ops,
            ips.as_mut_ptr(),
            ips.len() as c_uint,
            0,
            1,
        ))?;
        let registered = to_result(bindings::register_ftrace_direct(
            ops,
            tramp::address() as c_ulong,
        ));
        if registered.is_err() {
            bindings::ftrace_free_filter(ops);
        }
        registered?;
    }
    words.hooked.batches[number] = Some(Batch {
        owner,
        stale: false,
    });
    Ok(())
}

/// Unregisters a batch. Afterwards none of its functions' calls comes in.
fn unregister(words: &mut Words, number: usize) {
    if words.hooked.batches[number].take().is_some() {
        // SAFETY: registered with this trampoline, once.
        let result = unsafe {
            bindings::unregister_ftrace_direct(OPS[number].get(), tramp::address() as c_ulong, true)
        };
        if let Err(error) = to_result(result) {
            pr_err!("failed to unregister batch {}: {:?}\n", number, error);
        }
    }
}

/// A module under test goes: its functions are none any more.
pub(crate) fn module_goes(words: &mut Words, module: usize) {
    for number in 0..func::MOST {
        if matches!(words.hooked.funcs[number], Some((Owner::Module(it), _)) if it == module) {
            words.hooked.funcs[number] = None;
            func::remove(number);
        }
    }
    for batch in words.hooked.batches.iter_mut().flatten() {
        if batch.owner == Owner::Module(module) {
            batch.stale = true;
        }
    }
}

/// Unregisters the batches of modules that have gone.
pub(crate) fn tidy(words: &mut Words) {
    for number in 0..MOST {
        if words.hooked.batches[number].is_some_and(|batch| batch.stale) {
            unregister(words, number);
        }
    }
}

/// What stands between ftrace and the end of the module's text. Dropped by exit, when nobody
/// gives commands any more.
pub(crate) struct Hooks;

impl Drop for Hooks {
    fn drop(&mut self) {
        /// Held threads look each moment whether they are released.
        const TICKS: u32 = 10_000;
        let mut words = crate::command::LOCK.lock();
        crate::trail::end();
        for number in 0..MOST {
            unregister(&mut words, number);
        }
        while gate::disarm(TICKS).is_err() {
            pr_warn!("unloading waits for threads that stand at gates\n");
        }
        drop(words);
        // Whoever was held has a few instructions left in our text.
        sys::all_left();
        sys::still();
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! knobgate: holds a thread at the entry or the return of a kernel function.
//!
//! A *point* is one occurrence of a call: "the second call of `kernfs_drain` by thread 57, at its
//! return", or "the first `wake_up_var` with mydrv on the stack, whoever calls". A *gate* is a
//! point at which a thread is held until it is released. Its page for readers is `README.md`.
//!
//! From the call to the hold: `tramp` is where ftrace sends a call, `pass` decides whether it is a
//! point, `gate` has the gates and `hold` keeps a thread there. `func` are the functions that can
//! be points, which `hook` puts under ftrace; `target` knows where the modules under test are.
//! `trail` notes who passes where, without holding anybody. `device` is /dev/knobgate, whose
//! words `command` reads; `sys` is the rest of what C is asked for.

use kernel::miscdevice::{MiscDeviceOptions, MiscDeviceRegistration};
use kernel::prelude::*;

mod command;
mod device;
mod func;
mod gate;
mod hold;
mod hook;
mod pass;
mod symbol;
mod sys;
mod target;
mod trail;
mod tramp;

#[cfg(not(CONFIG_PREEMPTION))]
compile_error!("a thread is held by preemption: knobgate needs CONFIG_PREEMPT");
#[cfg(CONFIG_MITIGATION_CALL_DEPTH_TRACKING)]
compile_error!("knobgate's trampoline doesn't account for call depth");

module! {
    type: KnobGate,
    name: "knobgate",
    authors: ["The knobrig authors"],
    description: "Holds threads at the entry and return of kernel functions",
    license: "GPL v2",
}

/// The loaded module. Its fields go in this order: nobody can ask for anything, no call comes
/// in, and only then the module.
#[pin_data]
struct KnobGate {
    #[pin]
    device: MiscDeviceRegistration<device::Opened>,
    watch: target::Watch,
    hooks: hook::Hooks,
}

impl kernel::InPlaceModule for KnobGate {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let options = MiscDeviceOptions { name: c"knobgate" };
        pin_init::pin_init_scope(move || {
            // SAFETY: the module is loaded once, and nothing of it runs before this.
            unsafe {
                command::LOCK.init();
                sys::init();
            }
            symbol::init()?;
            let watch = target::Watch::new()?;
            Ok(try_pin_init!(Self {
                device <- MiscDeviceRegistration::register(options),
                watch,
                hooks: hook::Hooks,
            } ? Error))
        })
    }
}

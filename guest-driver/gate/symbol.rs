// SPDX-License-Identifier: GPL-2.0-only
//! Names to addresses.
//!
//! The kernel exports no look-up of a name to modules. A kprobe takes one, and so finds the
//! function that does; that one probe is all that is made of kprobes.

use crate::sys::Shared;
use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CString;

/// `struct kprobe` of include/linux/kprobes.h up to the fields that are used. bindgen doesn't
/// get to see it. What follows is the kernel's own; there is room for it.
#[repr(C)]
struct Kprobe {
    hlist: bindings::hlist_node,
    list: bindings::list_head,
    nmissed: c_ulong,
    addr: *mut c_void,
    symbol_name: *const c_char,
    rest: [u64; 64],
}

extern "C" {
    fn register_kprobe(probe: *mut Kprobe) -> c_int;
    fn unregister_kprobe(probe: *mut Kprobe);
}

static PROBE: Shared<Kprobe> = Shared::zeroed();
/// `kallsyms_lookup_name()` and `ftrace_location()`.
static LOOK_UP: AtomicUsize = AtomicUsize::new(0);
/// See [`LOOK_UP`].
static LOCATION: AtomicUsize = AtomicUsize::new(0);

/// Finds what finds the others.
pub(crate) fn init() -> Result {
    const NAME: &CStr = c"kallsyms_lookup_name";
    // SAFETY: zeroed but for the name, as register_kprobe() wants a probe without handlers, and
    // larger than any `struct kprobe`. It is unregistered at once; nobody else knows it.
    let found = unsafe {
        let probe = PROBE.get();
        (*probe).symbol_name = NAME.as_char_ptr();
        to_result(register_kprobe(probe))?;
        let found = (*probe).addr as usize;
        unregister_kprobe(probe);
        found
    };
    // That the struct is as declared above: the field holds the function's address, or nothing.
    if !name_of(found)?.to_bytes().starts_with(NAME.to_bytes()) {
        pr_err!("struct kprobe of this kernel isn't the one that is known\n");
        return Err(ENOEXEC);
    }
    LOOK_UP.store(found, Ordering::Relaxed);
    LOCATION.store(look_up("ftrace_location")?, Ordering::Relaxed);
    Ok(())
}

/// The address of a symbol, `name` or `module:name`, or `ENOENT`.
pub(crate) fn look_up(name: &str) -> Result<usize> {
    let name = CString::try_from_fmt(fmt!("{name}"))?;
    // SAFETY: the address of `unsigned long kallsyms_lookup_name(const char *)`, which may sleep.
    let found = unsafe {
        let look_up: unsafe extern "C" fn(*const c_char) -> c_ulong =
            core::mem::transmute(LOOK_UP.load(Ordering::Relaxed));
        look_up(name.as_char_ptr())
    };
    match found as usize {
        0 => Err(ENOENT),
        address => Ok(address),
    }
}

/// Where ftrace can send calls of a function from, or `EOPNOTSUPP` where it can't.
pub(crate) fn location(address: usize) -> Result<usize> {
    // SAFETY: the address of `unsigned long ftrace_location(unsigned long)`.
    let found = unsafe {
        let location: unsafe extern "C" fn(c_ulong) -> c_ulong =
            core::mem::transmute(LOCATION.load(Ordering::Relaxed));
        location(address as c_ulong)
    };
    match found as usize {
        0 => Err(Error::from_errno(-(bindings::EOPNOTSUPP as c_int))),
        location => Ok(location),
    }
}

/// Room for a symbol's name: KSYM_SYMBOL_LEN.
const LEN: usize = 1024;
static TEXT: Shared<[u8; LEN]> = Shared::zeroed();

/// What the kernel calls an address: `name+0x0/0x10 [module]`. For one caller at a time.
fn name_of(address: usize) -> Result<&'static CStr> {
    // SAFETY: there is room for any name, and no one else uses it: init runs alone, and later
    // callers hold the lock of commands.
    let text = unsafe {
        bindings::sprint_symbol(TEXT.get().cast(), address as c_ulong);
        &*TEXT.get()
    };
    CStr::from_bytes_until_nul(text).map_err(|_| EINVAL)
}

/// The module that an address is in; `None` for the kernel itself.
pub(crate) fn module_of(_: &crate::command::Guard, address: usize) -> Result<Option<&'static str>> {
    let text = name_of(address)?.to_str().map_err(|_| EINVAL)?;
    let after = text.rsplit_once(" [").map(|(_, after)| after);
    // A build id may follow the name.
    Ok(after.map(|it| it.split([']', ' ']).next().unwrap_or(it)))
}

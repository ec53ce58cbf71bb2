// SPDX-License-Identifier: GPL-2.0-only
//! Module parameters that are one of several names. The kernel crate's `module!` has numbers
//! only.

use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::bindings;
use kernel::fmt::{Display, Formatter};
use kernel::prelude::*;

/// A name and what it stands for.
pub(crate) struct Named<T: 'static>(pub(crate) &'static str, pub(crate) T);

/// A parameter that is one of `among`'s names, of which the first is the default.
pub(crate) struct Choice<T: 'static> {
    what: &'static str,
    among: &'static [Named<T>],
    chosen: AtomicUsize,
}

impl<T> Choice<T> {
    pub(crate) const fn new(what: &'static str, among: &'static [Named<T>]) -> Self {
        assert!(!among.is_empty());
        Self {
            what,
            among,
            chosen: AtomicUsize::new(0),
        }
    }

    /// What was asked for.
    pub(crate) fn get(&self) -> &'static T {
        &self.among[self.chosen.load(Ordering::Relaxed)].1
    }

    fn set(&self, name: &str) -> Result {
        let chosen = self.among.iter().position(|named| named.0 == name);
        let index = chosen.ok_or(EINVAL).inspect_err(|_| {
            let known = Names(self.among);
            pr_err!(
                "no {} is called '{}'; known are: {}\n",
                self.what,
                name,
                known
            );
        })?;
        self.chosen.store(index, Ordering::Relaxed);
        Ok(())
    }

    /// The parameter's operations, for a `kernel_param` whose argument is this.
    pub(crate) const OPS: bindings::kernel_param_ops = bindings::kernel_param_ops {
        flags: 0,
        set: Some(Self::set_raw),
        get: None,
        free: None,
    };

    /// # Safety
    /// Called by the module loader with a `kernel_param` that `choice_param!` made, and a
    /// string or null.
    unsafe extern "C" fn set_raw(
        value: *const c_char,
        param: *const bindings::kernel_param,
    ) -> c_int {
        kernel::error::from_result(|| {
            if value.is_null() {
                return Err(EINVAL);
            }
            // SAFETY: the argument is a static `Choice<T>`, and the string one of the loader's.
            let (choice, value) = unsafe {
                (
                    &*(*param).__bindgen_anon_1.arg.cast::<Self>(),
                    CStr::from_char_ptr(value),
                )
            };
            choice.set(value.to_str().map_err(|_| EINVAL)?)?;
            Ok(0)
        })
    }
}

/// The names of a table, for a message.
struct Names<T: 'static>(&'static [Named<T>]);

impl<T> Display for Names<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        for (index, named) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(named.0)?;
        }
        Ok(())
    }
}

/// Declares a module parameter that is one of a table's names.
macro_rules! choice_param {
    ($(#[$doc:meta])* static $param:ident: Choice<$type:ty> = $name:literal of
     [$($named:expr),+ $(,)?], description: $description:literal) => {
        $(#[$doc])*
        static $param: Choice<$type> = {
            static AMONG: &[Named<$type>] = &[$($named),+];
            Choice::new($name, AMONG)
        };

        const _: () = {
            // `modinfo` reads these.
            const fn bytes<const N: usize>(text: &str) -> [u8; N] {
                let mut bytes = [0; N];
                let (head, _) = bytes.split_at_mut(text.len());
                head.copy_from_slice(text.as_bytes());
                bytes
            }
            const TYPE: &str = concat!("parmtype=", $name, ":charp");
            const PARM: &str = concat!("parm=", $name, ":", $description);
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_TYPE: [u8; TYPE.len() + 1] = bytes(TYPE);
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_PARM: [u8; PARM.len() + 1] = bytes(PARM);

            #[link_section = "__param"]
            #[used(compiler)]
            static PARAM: ::kernel::module_param::KernelParam =
                ::kernel::module_param::KernelParam::new(::kernel::bindings::kernel_param {
                    name: concat!($name, "\0").as_ptr().cast(),
                    mod_: $crate::sys::module::this_module(),
                    ops: &Choice::<$type>::OPS,
                    perm: 0,
                    level: -1,
                    flags: 0,
                    __bindgen_anon_1: ::kernel::bindings::kernel_param__bindgen_ty_1 {
                        arg: ::core::ptr::from_ref(&$param).cast_mut().cast(),
                    },
                });
        };
    };
}
pub(crate) use choice_param;

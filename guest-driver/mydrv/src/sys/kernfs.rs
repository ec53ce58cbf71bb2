// SPDX-License-Identifier: GPL-2.0-only
//! Knobs as kernfs files of their own, with an `->open` and a `->release`.
//!
//! kernfs calls `->open`, `->seq_show` and `->write` under an active reference of the file's
//! node, so neither they nor what they use can go meanwhile: see [`crate::dk0::Data`].

use crate::dk0::Dk0;
use crate::knobs::{self, Knobs};
use crate::sys::{eopnotsupp, from_err_ptr};
use core::marker::PhantomData;
use core::mem::transmute;
use core::slice;
use kernel::bindings;
use kernel::error::from_result;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// What an open knob holds from open to close.
pub(crate) trait Opener: Send + Sync + Sized + 'static {
    /// Called by open(2) of a knob, which fails as this does. `alone` is `O_EXCL`.
    fn open(dk0: &Dk0, knob: usize, alone: bool) -> Result<Self>;
}

/// Adds both knobs to dk0, each opener of which holds an `O`.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel doesn't export `__kernfs_create_file`.
pub(crate) fn add_knobs<O: Opener>(dk0: &ARef<Dk0>) -> Result<Knobs> {
    let create = create_file()?;
    Knobs::add(dk0, |dk0, knob| {
        let dir = dk0.kobj();
        let root_uid = bindings::kuid_t { val: 0 };
        let root_gid = bindings::kgid_t { val: 0 };
        // SAFETY: dk0 is added, so its kobject has a directory. The name and the operations
        // live for ever, and dk0 as long as the file: `Knobs` holds a reference until it has
        // removed the file.
        from_err_ptr(unsafe {
            create(
                (*dir).sd,
                knobs::NAMES[knob].as_char_ptr(),
                0o644,
                root_uid,
                root_gid,
                bindings::PAGE_SIZE as i64,
                operations::<O>(knob),
                core::ptr::from_ref(dk0).cast_mut().cast(),
                core::ptr::null(),
                kernel::static_lock_class!().as_ptr(),
            )
        })
        .map(|_| ())
    })
}

/// `__kernfs_create_file()` of include/linux/kernfs.h.
type CreateFile = unsafe extern "C" fn(
    *mut bindings::kernfs_node,
    *const c_char,
    bindings::umode_t,
    bindings::kuid_t,
    bindings::kgid_t,
    bindings::loff_t,
    *const bindings::kernfs_ops,
    *mut c_void,
    *const bindings::ns_common,
    *mut bindings::lock_class_key,
) -> *mut bindings::kernfs_node;

/// `__kernfs_create_file`, looked up by name: so the module loads on a kernel that doesn't
/// export it, and there lacks only the lifetimes that ask for it.
fn create_file() -> Result<CreateFile> {
    // SAFETY: a name. The symbol is the kernel's own, so there is no module to give back.
    let symbol = unsafe { bindings::__symbol_get(c"__kernfs_create_file".as_char_ptr()) };
    if symbol.is_null() {
        pr_err!("this lifetime needs a kernel that exports __kernfs_create_file\n");
        return Err(eopnotsupp());
    }
    // SAFETY: the symbol of this name is a function of this type.
    Ok(unsafe { transmute::<*mut c_void, CreateFile>(symbol) })
}

fn operations<O: Opener>(knob: usize) -> &'static bindings::kernfs_ops {
    const { assert!(knobs::NAMES.len() == 2) };
    match knob {
        0 => &Operations::<O, 0>::OPS,
        _ => &Operations::<O, 1>::OPS,
    }
}

/// The functions behind the file of knob `KNOB`.
struct Operations<O, const KNOB: usize>(PhantomData<O>);

impl<O: Opener, const KNOB: usize> Operations<O, KNOB> {
    const OPS: bindings::kernfs_ops = bindings::kernfs_ops {
        open: Some(Self::open),
        release: Some(Self::release),
        seq_show: Some(Self::show),
        write: Some(Self::write),
        ..pin_init::zeroed()
    };

    /// # Safety
    /// Called by kernfs, under an active reference, for a file that `add_knobs` created.
    unsafe extern "C" fn open(of: *mut bindings::kernfs_open_file) -> c_int {
        from_result(|| {
            // SAFETY: a valid open file, whose node has dk0 for its private data.
            let dk0 = unsafe { dk0(of) };
            // SAFETY: as above. The VFS hides the flag from later readers of `f_flags` only.
            let alone = unsafe { (*(*of).file).f_flags } & bindings::O_EXCL != 0;
            let opener = KBox::new(O::open(dk0, KNOB, alone)?, GFP_KERNEL)?;
            // SAFETY: the private data of an open file is ours.
            unsafe { (*of).priv_ = KBox::into_raw(opener).cast() };
            Ok(0)
        })
    }

    /// # Safety
    /// Called by kernfs, once for each successful open.
    unsafe extern "C" fn release(of: *mut bindings::kernfs_open_file) {
        // SAFETY: set by `open`, and taken back once.
        drop(unsafe { KBox::<O>::from_raw((*of).priv_.cast()) });
    }

    /// # Safety
    /// Called by kernfs, under an active reference, with the seq_file of an open file.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
        from_result(|| {
            // SAFETY: the seq_file's private data is the open file. Its active reference is
            // held until we return.
            let text = unsafe { knobs::show(dk0((*seq).private.cast()), KNOB)? };
            let text = text.as_bytes();
            // SAFETY: a valid seq_file, and as many bytes as we say.
            Ok(unsafe { bindings::seq_write(seq, text.as_ptr().cast(), text.len()) })
        })
    }

    /// # Safety
    /// Called by kernfs, under an active reference, with `len` bytes of text.
    unsafe extern "C" fn write(
        of: *mut bindings::kernfs_open_file,
        text: *mut c_char,
        len: usize,
        _pos: bindings::loff_t,
    ) -> isize {
        from_result(|| {
            // SAFETY: as many bytes as kernfs says, in a buffer of this call's own.
            let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
            // SAFETY: a valid open file. Its active reference is held until we return.
            unsafe { knobs::store(dk0(of), KNOB, text)? };
            Ok(len as isize)
        })
    }
}

/// The dk0 that an open file belongs to.
///
/// # Safety
/// `of` is an open file of a knob that `add_knobs` created, and kernfs keeps the knob for `'a`.
unsafe fn dk0<'a>(of: *mut bindings::kernfs_open_file) -> &'a Dk0 {
    // SAFETY: the node's private data is dk0, which `Knobs` keeps until the knob is removed.
    unsafe { &*(*(*of).kn).priv_.cast() }
}

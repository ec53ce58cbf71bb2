// SPDX-License-Identifier: GPL-2.0-only
//! `EXPORT_SYMBOL_GPL(dk_release)`.
//!
//! The kernel crate exports only what its C headers declare. For the rest there is what the C
//! macro expands to (include/linux/export.h): a note to modpost of the symbol's license, its
//! namespace (none) and its address, in a section that the module's link drops.

core::arch::global_asm!(
    ".pushsection .export_symbol, \"a\"",
    "__export_symbol_dk_release:",
    ".asciz \"GPL\"",
    ".asciz \"\"",
    ".balign 8",
    ".quad dk_release",
    ".popsection",
);

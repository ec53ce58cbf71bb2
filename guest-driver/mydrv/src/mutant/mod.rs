// SPDX-License-Identifier: GPL-2.0-only
//! The planted bugs, each in a file. Each differs from a lifetime in exactly its mistake.

pub(crate) mod free_before_remove;

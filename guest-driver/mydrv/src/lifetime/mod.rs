// SPDX-License-Identifier: GPL-2.0-only
//! The lifetimes: when the module may go, each rule in a file that explains it.

pub(crate) mod drained;
pub(crate) mod exit_waits;
pub(crate) mod outside_release;
pub(crate) mod pinned;
pub(crate) mod self_destruct;

// SPDX-License-Identifier: GPL-2.0-only
//! The planted bugs, each in a file. Each differs from a lifetime in exactly its mistake.

pub(crate) mod cdev_embedded;
pub(crate) mod count_leak;
pub(crate) mod count_skipped;
pub(crate) mod dk1_typo;
pub(crate) mod drvdata_null;
pub(crate) mod extra_put;
pub(crate) mod free_before_remove;
pub(crate) mod irq_after_free;
pub(crate) mod irq_left;
pub(crate) mod knobs_left;
pub(crate) mod late_answer;
pub(crate) mod lock_across_remove;
pub(crate) mod missing_put;
pub(crate) mod name_freed;
pub(crate) mod owner_unset;
pub(crate) mod poll_left;
pub(crate) mod publish_early;
pub(crate) mod release_in_module;
pub(crate) mod reset_skipped;
pub(crate) mod ring_before_reset;
pub(crate) mod self_remove;
pub(crate) mod tail;
pub(crate) mod timer_left;
pub(crate) mod unwind_twice;
pub(crate) mod work_left;

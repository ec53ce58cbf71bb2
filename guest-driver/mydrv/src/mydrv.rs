// SPDX-License-Identifier: GPL-2.0
//! mydrv: the guest driver of the knob device. A kernel module; empty on the host.
#![cfg(MODULE)]

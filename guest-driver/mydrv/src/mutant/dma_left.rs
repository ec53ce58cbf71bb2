// SPDX-License-Identifier: GPL-2.0-only
//! `dma-left`: probe gets memory for the device by the DMA API, and nobody gives it back.
//!
//! mydrv's own memory for the device doesn't come by that API (see [`crate::sys::hal`]), so the
//! mutant brings along what it forgets. A page is lost at each bind, and behind an IOMMU the
//! device could go on writing to it.
//!
//! What should be seen, with `drained`, under a kernel with CONFIG_DMA_API_DEBUG: when the driver is
//! gone from its device, the kernel lists the allocation that is still pending.

use crate::probe::Parts;
use crate::rules::Rules;
use core::mem;
use kernel::dma::Coherent;
use kernel::prelude::*;
use kernel::{device, pci};

pub(crate) fn plant(rules: &mut Rules) {
    rules.bring_up = bring_up;
}

fn bring_up(pdev: &pci::Device<device::Core<'_>>) -> Result<Parts> {
    let parts = Parts::bring_up(pdev)?;
    let buffer: Coherent<u64> = Coherent::zeroed(pdev.as_ref(), GFP_KERNEL)?;
    // Nobody has it from here on, which is the mistake.
    mem::forget(buffer);
    Ok(parts)
}

// SPDX-License-Identifier: GPL-2.0-only
//! Finding the registers, in QEMU's config space and in anybody's.

use crate::fake::FakeDevice;
use crate::pci::{Layout, LayoutError};
use proptest::prelude::*;

/// Config space with a change.
fn changed(at: u8, dword: u32) -> impl Fn(u8) -> u32 {
    let device = FakeDevice::new();
    move |offset| match offset == at {
        true => dword,
        false => device.config_dword(offset),
    }
}

#[test]
fn finds_the_registers() {
    let device = FakeDevice::new();
    let layout = Layout::find(|offset| device.config_dword(offset)).expect("all are there");
    assert_eq!(layout.bar, 4);
}

#[test]
fn a_device_without_capabilities_has_none() {
    let missing = Err(LayoutError::Missing(1));
    assert_eq!(Layout::find(|_| 0), missing);
    assert_eq!(Layout::find(|_| !0), missing, "nor has one that is gone");
    assert_eq!(Layout::find(changed(0x34, 0)), missing);
}

#[test]
fn the_one_that_is_missing_is_named() {
    // The list's order: notify, device, interrupt, common.
    let cut = |at: u8, id_and_next: u32| Layout::find(changed(at, id_and_next));
    assert_eq!(cut(0x50, 0x0310_0009), Err(LayoutError::Missing(1)));
    assert_eq!(cut(0x84, 0x0514_6009), Err(LayoutError::Missing(2)));
    assert_eq!(cut(0x60, 0x0410_4009), Err(LayoutError::Missing(3)));
    assert_eq!(cut(0x70, 0x0214_5009), Err(LayoutError::Missing(4)));
}

#[test]
fn registers_in_two_bars_are_refused() {
    assert_eq!(
        Layout::find(changed(0x74, 2)),
        Err(LayoutError::TwoBars(4, 2))
    );
}

#[test]
fn a_list_that_loops_ends() {
    assert_eq!(
        Layout::find(changed(0x84, 0x0514_8409)),
        Err(LayoutError::Missing(1))
    );
}

proptest! {
    /// Ends, without a panic, whatever config space says.
    #[test]
    fn any_config_space(space in prop::collection::vec(any::<u32>(), 64), capabilities: bool) {
        let mut space = space;
        if capabilities {
            space[1] |= 1 << 20;
            // Vendor-specific ones, most of the time.
            for dword in &mut space[16..] {
                if *dword & 1 == 0 {
                    *dword = *dword & 0x07ff_ff00 | 0x09;
                }
            }
        }
        let _ = Layout::find(|offset| space[usize::from(offset / 4)]);
    }
}

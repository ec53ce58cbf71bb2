//! A module's file is not linked yet: where its debug sections speak of code or of each other they
//! hold nothing, and a relocation says what belongs there (ELF, System V ABI of x86-64 and AArch64).

use std::collections::BTreeMap;

use object::{Object, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget, SectionIndex};

/// Where a file's code lies: each section of a module at a range of its own, as no two can be told
/// apart by their addresses otherwise, or where a linked file says.
pub(super) struct Layout {
    moved: BTreeMap<usize, u64>,
}

/// Sections lie this far from each other; none is larger.
const APART: u64 = 1 << 32;

impl Layout {
    pub(super) fn of(file: &object::File<'_>) -> Self {
        let mut moved = BTreeMap::new();
        if file.kind() == object::ObjectKind::Relocatable {
            for (number, section) in (1..).zip(file.sections()) {
                // What debug sections say of each other are offsets from their starts.
                if !is_debug(&section) {
                    moved.insert(section.index().0, number * APART);
                }
            }
        }
        Self { moved }
    }

    /// The address of a section's first byte.
    pub(super) fn base(&self, section: SectionIndex, own: u64) -> u64 {
        self.moved.get(&section.0).copied().unwrap_or(own)
    }
}

fn is_debug(section: &object::Section<'_, '_>) -> bool {
    section.name().is_ok_and(|name| name.starts_with(".debug_"))
}

/// A section's bytes with its relocations done. One of a kind that debug sections don't have, or
/// that points outside, is left out: what it was for is then not found, and nothing wrong is.
pub(super) fn bytes(
    file: &object::File<'_>,
    section: &object::Section<'_, '_>,
    layout: &Layout,
) -> Option<Vec<u8>> {
    let mut bytes = section.uncompressed_data().ok()?.into_owned();
    if file.kind() != object::ObjectKind::Relocatable {
        return Some(bytes);
    }
    for (at, relocation) in section.relocations() {
        if relocation.kind() != RelocationKind::Absolute {
            continue;
        }
        let target = match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let symbol = file.symbol_by_index(index).ok()?;
                match symbol.section_index() {
                    Some(section) => layout.base(section, 0).wrapping_add(symbol.address()),
                    None => continue,
                }
            }
            RelocationTarget::Section(index) => layout.base(index, 0),
            _ => continue,
        };
        let Ok(at) = usize::try_from(at) else {
            continue;
        };
        let width = usize::from(relocation.size()) / 8;
        let Some(field) = bytes.get_mut(at..at.saturating_add(width)) else {
            continue;
        };
        let mut held = [0; 8];
        let Some(start) = held.get_mut(..width) else {
            continue;
        };
        start.copy_from_slice(field);
        let implicit = match relocation.has_implicit_addend() {
            true => u64::from_le_bytes(held),
            false => 0,
        };
        let value = target
            .wrapping_add_signed(relocation.addend())
            .wrapping_add(implicit);
        field.copy_from_slice(&value.to_le_bytes()[..width]);
    }
    Some(bytes)
}

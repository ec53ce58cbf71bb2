//! Faults in memory that belonged to a module: which address the code meant, and whether the module
//! that owned it is gone.

use crate::facts::Facts;
use crate::history::Place;
use crate::report::{Access, AccessKind, Class, Frame};

/// Where KASAN's shadow of address 0 lies on x86-64 (Documentation/arch/x86/x86_64/mm.rst).
const X86_SHADOW_OFFSET: u64 = 0xdfff_fc00_0000_0000;
/// The shadow of the kernel's half of the address space.
const X86_SHADOW: std::ops::Range<u64> = 0xffff_ec00_0000_0000..0xffff_fc00_0000_0000;
/// The shadow of the user's half: not canonical, so a touch of it is a general protection fault.
const X86_LOW_SHADOW: std::ops::Range<u64> = X86_SHADOW_OFFSET..0xe000_0000_0000_0000;
/// x86-64's module space; with KASLR it begins 512 MiB later.
const X86_MODULES: std::ops::Range<u64> = 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000;

/// What the fault turned out to be about.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) in_unloaded_module: bool,
    pub(crate) module: Option<String>,
    pub(crate) place: Option<Place>,
    pub(crate) notes: Vec<String>,
}

/// The memory whose shadow byte lies at `address`, if `address` is in KASAN's shadow.
pub(crate) fn behind_shadow(address: u64) -> Option<u64> {
    (X86_SHADOW.contains(&address) || X86_LOW_SHADOW.contains(&address))
        .then(|| address.wrapping_sub(X86_SHADOW_OFFSET) << 3)
}

/// Replaces a shadow address by the memory it stands for, and finds out whether a module's memory
/// was reached for after the module went. `bare` is the code's address where a headline has it in
/// place of a function; `locate` tells what lay at an address.
pub(crate) fn judge(
    class: Class,
    bare: Option<u64>,
    access: Option<&mut Access>,
    fault: &[Frame],
    facts: &Facts,
    locate: &dyn Fn(u64) -> Option<Place>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let faults = matches!(
        class,
        Class::PageFault | Class::GeneralProtection | Class::NullDeref | Class::Trap
    );
    let mut touched = None;
    let mut fetched = false;
    if let Some(access) = access {
        if faults
            && let Some(shadow) = access.address
            && let Some(meant) = behind_shadow(shadow)
        {
            access.shadow_address = Some(shadow);
            access.address = Some(meant);
            verdict.notes.push(format!(
                "the fault at {shadow:#x} is in KASAN's shadow: the code was about to touch \
                 {meant:#x}..={:#x}",
                meant | 7
            ));
        }
        touched = access.address;
        fetched = access.kind == Some(AccessKind::Execute);
    }
    // The instruction pointer has no symbol: nothing that is loaded covers it.
    let pointer = fault
        .iter()
        .find(|f| f.interrupted)
        .filter(|f| f.function.is_empty() || f.place.is_some())
        .and_then(|f| crate::case::hex(&f.symbol));
    let code = pointer.or(bare).filter(|p| X86_MODULES.contains(p));
    let data = touched.filter(|t| X86_MODULES.contains(t));
    // Code first: what it touched is of less interest than that it ran.
    verdict.place = (pointer.or(bare).and_then(locate)).or_else(|| touched.and_then(locate));
    let gone = verdict.place.as_ref().filter(|place| place.unloaded);
    let told = gone.map(|place| place.module.clone());
    if !faults && bare.is_none() && told.is_none() {
        return verdict;
    }
    let Some(address) = code.or(data) else {
        return verdict;
    };
    let module = told.or_else(|| facts.last_unloaded.clone());
    // A loaded module may fault on its own pages too (a write to its read-only data), but then its
    // code has symbols and nothing need have been unloaded.
    if code.is_none() && module.is_none() {
        return verdict;
    }
    verdict.in_unloaded_module = true;
    let how = match (code, fetched) {
        (Some(_), _) | (None, true) => "code at",
        (None, false) => "data at",
    };
    verdict.notes.push(match &module {
        Some(module) if verdict.place.is_some() => format!(
            "{how} {address:#x} belonged to {module}, which is gone: a reference to {module} \
             outlived it"
        ),
        Some(module) => format!(
            "{how} {address:#x} lies in module space and no loaded module covers it; the last \
             module unloaded is {module}, so a reference to {module} outlived it"
        ),
        None => format!(
            "{how} {address:#x} lies in module space and no loaded module covers it: a reference \
             to a module outlived it"
        ),
    });
    verdict.module = module;
    verdict
}

#[cfg(test)]
mod tests {
    use super::behind_shadow;

    #[test]
    fn shadow_addresses_tell_the_memory() {
        assert_eq!(
            behind_shadow(0xffff_fbff_f804_0268),
            Some(0xffff_ffff_c020_1340)
        );
        assert_eq!(behind_shadow(0xdfff_fc00_0000_0003), Some(0x18));
        assert_eq!(behind_shadow(0xffff_ffff_c020_1340), None);
        assert_eq!(behind_shadow(0x10), None);
    }
}

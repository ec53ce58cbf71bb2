//! The knobs: 64-bit registers of the device.

/// The values of all knobs. They outlast a reset of the device, as a disk's content does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs([u64; dk_abi::KNOBS]);

impl Knobs {
    /// A knob's value, if there is that knob.
    pub fn get(&self, knob: u64) -> Option<u64> {
        self.0.get(usize::try_from(knob).ok()?).copied()
    }

    /// Sets a knob; tells whether there is that knob.
    pub fn set(&mut self, knob: u64, value: u64) -> bool {
        let slot = usize::try_from(knob)
            .ok()
            .and_then(|knob| self.0.get_mut(knob));
        slot.map(|slot| *slot = value).is_some()
    }
}

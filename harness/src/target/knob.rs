//! The files that reach a driver, and what is done to them.

use std::collections::BTreeMap;

use dk_control::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errno::errnos;

/// A file that reaches the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Knob {
    /// What reports call it.
    pub name: String,
    /// Absolute path in the guest; `*` and `?` within a name match what is there once the driver
    /// is up, and each match is a knob of its own.
    pub path: String,
    /// Restricts a pattern to files of this kind; else the path tells.
    #[serde(default)]
    pub kind: Option<KnobKind>,
    /// Bytes that a read asks for; absent if it can't be read.
    #[serde(default)]
    pub read: Option<u32>,
    /// What a write writes; absent if it can't be written.
    #[serde(default)]
    pub write: Option<Data>,
    /// How often each op is chosen in loops, against all other ops of all knobs.
    #[serde(default)]
    pub weights: Weights,
    /// Errors that an op may give while the driver is up, by name (`EINVAL`).
    #[serde(default)]
    pub fine: Vec<String>,
    /// In loops: opened once and kept open, so that a round is nothing but the op.
    #[serde(default)]
    pub hold: bool,
    /// Per op (`read`, `write`) the request that it makes the driver send, so that the device
    /// can hold the answer with the op inside the driver.
    #[serde(default)]
    pub asks: BTreeMap<AskingOp, Ask>,
    /// `poll` waits for the end of its device.
    #[serde(default)]
    pub poll: bool,
    /// Knobs (and detours) of one route lead to the same place in the kernel. In loops the cheapest
    /// of them is taken, by what it costs in the guest.
    #[serde(default)]
    pub route: Option<String>,
}

/// Where a knob lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KnobKind {
    /// Below /sys.
    Sysfs,
    /// Below /sys/kernel/debug.
    Debugfs,
    /// Below /sys/kernel/config.
    Configfs,
    /// Below /dev.
    Dev,
    /// Below /proc.
    Procfs,
}

impl Knob {
    /// What an op may give and be right, beside success.
    pub fn fine_results(&self) -> Vec<i64> {
        errnos(&self.fine)
    }
}

impl KnobKind {
    /// By a path; none for a path that is nowhere that a driver has files.
    pub fn of(path: &str) -> Option<Self> {
        let roots = [
            ("/sys/kernel/debug/", Self::Debugfs),
            ("/sys/kernel/config/", Self::Configfs),
            ("/sys/", Self::Sysfs),
            ("/dev/", Self::Dev),
            ("/proc/", Self::Procfs),
        ];
        let root = roots.into_iter().find(|(root, _)| path.starts_with(root));
        root.map(|(_, kind)| kind)
    }
}

/// Weights of a knob's ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of reads.
    #[serde(default = "Weights::one")]
    pub read: u32,
    /// Of writes.
    #[serde(default = "Weights::one")]
    pub write: u32,
    /// Of an open and a close without an op between them.
    #[serde(default)]
    pub open: u32,
}

impl Weights {
    pub(super) fn one() -> u32 {
        1
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            read: 1,
            write: 1,
            open: 0,
        }
    }
}

/// What writes write: one thing, or one of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Data {
    /// Always the same.
    One(Payload),
    /// One of these.
    Any(Vec<Payload>),
}

impl Data {
    /// All that may be written.
    pub fn all(&self) -> &[Payload] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Any(any) => any,
        }
    }

    /// What a single write writes.
    pub fn first(&self) -> String {
        self.all()
            .first()
            .map_or(String::new(), |first| first.text(0))
    }
}

/// What a write writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Payload {
    /// The text as it stands.
    Text(String),
    /// One character over and over: a disk takes whole sectors.
    Fill {
        /// The character.
        fill: char,
        /// How often.
        len: usize,
    },
    /// A number within a range, and a newline.
    Number {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Letters after a beginning, of a random length.
    Letters {
        /// The beginning.
        prefix: String,
        /// Letters at most.
        letters: usize,
    },
}

impl Payload {
    /// Most characters of a payload: what is written in one step.
    pub(super) const MOST: usize = 64 << 10;

    /// The text that is written; `random` decides where there is a choice.
    pub fn text(&self, random: u64) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Fill { fill, len } => fill.to_string().repeat(*len),
            Self::Number { min, max } => {
                let span = max.abs_diff(*min).saturating_add(1);
                format!("{}\n", min.saturating_add_unsigned(random % span))
            }
            Self::Letters { prefix, letters } => {
                let count = random as usize % (letters + 1);
                let letter = |at: usize| char::from(b'a' + (random >> (at % 48)) as u8 % 26);
                prefix.chars().chain((0..count).map(letter)).collect()
            }
        }
    }

    /// The most characters that it can have.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Fill { len, .. } => *len,
            Self::Number { .. } => 21,
            Self::Letters { prefix, letters } => prefix.len() + letters,
        }
    }
}

/// Ops that can ask the device.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum AskingOp {
    /// `read`
    Read,
    /// `write`
    Write,
}

/// A request that an op sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Its kind.
    pub kind: Kind,
    /// Its knob or first sector; absent for any.
    #[serde(default)]
    pub sector: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_data_keeps_its_shape() {
        let number = Payload::Number { min: -2, max: 2 };
        let letters = Payload::Letters {
            prefix: "pci-".into(),
            letters: 3,
        };
        for random in (0..200).chain([u64::MAX]) {
            let value: i64 = number.text(random).trim().parse().expect("a number");
            assert!((-2..=2).contains(&value));
            let text = letters.text(random);
            assert!(
                text.starts_with("pci-") && text.len() <= letters.longest(),
                "{text}"
            );
        }
        let whole = Payload::Number {
            min: i64::MIN,
            max: i64::MAX,
        };
        assert!(whole.text(u64::MAX).trim().parse::<i64>().is_ok());
    }

    #[test]
    fn a_path_tells_where_it_lives() {
        assert_eq!(KnobKind::of("/sys/kernel/debug/x"), Some(KnobKind::Debugfs));
        assert_eq!(KnobKind::of("/sys/class/x"), Some(KnobKind::Sysfs));
        assert_eq!(KnobKind::of("/tmp/x"), None);
    }
}

//! The kernel's variants, from fast to thorough.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::Error;

/// Which checkers the kernel has.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// KASAN and the cheap checks.
    Kasan,
    /// `Kasan` with lockdep, debug objects, kmemleak, DMA-API debugging.
    Debug,
    /// `Debug` with delayed kobject release.
    Release,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kasan, Self::Debug, Self::Release];

    /// Its name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kasan => "kasan",
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }

    /// The configuration's fragments, in the order in which they are merged.
    pub(crate) fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Kasan => &["base.config", "kasan.config"],
            Self::Debug => &["base.config", "kasan.config", "debug.config"],
            Self::Release => &[
                "base.config",
                "kasan.config",
                "debug.config",
                "release.config",
            ],
        }
    }

    /// Where the fragments are.
    pub(crate) fn config_dir(root: &Path) -> std::path::PathBuf {
        root.join("images/kernel/config")
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|variant| variant.name() == name)
            .ok_or_else(|| Error::UnknownVariant(name.to_owned()))
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! The kernel's configuration: fragments merged in order, each option checked afterwards.
//!
//! Kconfig drops an option silently when a dependency is missing, and then a checker is
//! simply not there. So a lost option is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::hash::files;

/// An option's wanted value: its text after `=`, or none for "not set".
type Value<'a> = Option<&'a str>;

/// What a line of a fragment or a .config asks for.
fn parse(line: &str) -> Option<(&str, Value<'_>)> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("# ") {
        let name = rest.strip_suffix(" is not set")?;
        return name.starts_with("CONFIG_").then_some((name, None));
    }
    let (name, value) = line.split_once('=')?;
    if !name.starts_with("CONFIG_") {
        return None;
    }
    Some((name, (value != "n").then_some(value)))
}

/// An option that a fragment asks for and Kconfig did not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// With `CONFIG_`.
    pub(crate) option: String,
    wanted: String,
    fragment: String,
    is: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            wanted,
            fragment,
            is,
        } = self;
        write!(f, "{option}={wanted} of {fragment} (it is {is})")
    }
}

/// The options of the fragments (name, text) that `config` did not keep, each with the
/// fragment that asks for it. A later fragment overrides an earlier one.
pub(crate) fn lost(fragments: &[(String, String)], config: &str) -> Vec<Lost> {
    let set: BTreeMap<&str, Value<'_>> = config.lines().filter_map(parse).collect();
    let mut wanted: BTreeMap<&str, (Value<'_>, &str)> = BTreeMap::new();
    for (fragment, text) in fragments {
        for (name, value) in text.lines().filter_map(parse) {
            wanted.insert(name, (value, fragment));
        }
    }
    wanted
        .into_iter()
        .filter_map(|(name, (value, fragment))| {
            // An option that is not mentioned is not set.
            let is = set.get(name).copied().flatten();
            let say = |value: Value<'_>| value.unwrap_or("n").to_owned();
            (is != value).then(|| Lost {
                option: name.to_owned(),
                wanted: say(value),
                fragment: fragment.to_owned(),
                is: say(is),
            })
        })
        .collect()
}

/// Which of these options (with `CONFIG_`) some Kconfig file of a source defines. A source of
/// another age doesn't know every option that we ask for, and can't be blamed for that.
pub(crate) fn known(tree: &Path, options: &[&str]) -> Result<BTreeSet<String>, Error> {
    let mut known = BTreeSet::new();
    for file in files(tree)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("Kconfig") {
            continue;
        }
        let text = std::fs::read(&file).map_err(Error::file("read", &file))?;
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_whitespace();
            if let (Some("config" | "menuconfig"), Some(name)) = (words.next(), words.next()) {
                let option = format!("CONFIG_{name}");
                if options.contains(&option.as_str()) {
                    known.insert(option);
                }
            }
        }
    }
    Ok(known)
}

/// The options that are set in a configuration, with their values.
pub(crate) fn set(config: &str) -> BTreeMap<&str, &str> {
    let set = config.lines().filter_map(parse);
    set.filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_option_is_named_with_its_fragment() {
        let base = "# why\nCONFIG_SMP=y\n# CONFIG_SLUB_TINY is not set\nCONFIG_NR_CPUS=8\n";
        let kasan = "CONFIG_KASAN=y\n";
        let config =
            "CONFIG_SMP=y\nCONFIG_SLUB_TINY=y\nCONFIG_NR_CPUS=8\n# CONFIG_KASAN is not set\n";
        let fragments = [
            ("base.config".into(), base.into()),
            ("kasan.config".into(), kasan.into()),
        ];
        let lost_text = |config| -> Vec<_> {
            let lost = lost(&fragments, config);
            lost.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            lost_text(config),
            [
                "CONFIG_KASAN=y of kasan.config (it is n)",
                "CONFIG_SLUB_TINY=n of base.config (it is y)"
            ]
        );
        let kept = "CONFIG_SMP=y\nCONFIG_NR_CPUS=8\nCONFIG_KASAN=y\n";
        assert!(lost(&fragments, kept).is_empty());
    }

    #[test]
    fn a_later_fragment_overrides() {
        let fragments = [
            ("a".into(), "CONFIG_X=15\n".into()),
            ("b".into(), "CONFIG_X=30\n".into()),
        ];
        assert!(lost(&fragments, "CONFIG_X=30\n").is_empty());
        assert_eq!(lost(&fragments, "CONFIG_X=15\n").len(), 1);
    }

    #[test]
    fn a_source_is_asked_which_options_it_knows() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("lib")).expect("a directory");
        let text = "menuconfig A\n\tbool \"a\"\nconfig AB\n# config C\n";
        std::fs::write(dir.path().join("lib/Kconfig.debug"), text).expect("writes");
        let asked = ["CONFIG_A", "CONFIG_AB", "CONFIG_B", "CONFIG_C"];
        let known = known(dir.path(), &asked).expect("reads");
        assert_eq!(known.iter().collect::<Vec<_>>(), ["CONFIG_A", "CONFIG_AB"]);
    }

    #[test]
    fn comments_are_not_options() {
        assert_eq!(parse("# tinyconfig is not set"), None);
        assert_eq!(parse("# CONFIG_A is not set"), Some(("CONFIG_A", None)));
        assert_eq!(parse("CONFIG_A=n"), Some(("CONFIG_A", None)));
        assert_eq!(
            parse("CONFIG_A=\"x=y\""),
            Some(("CONFIG_A", Some("\"x=y\"")))
        );
    }
}

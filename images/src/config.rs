//! The kernel's configuration: fragments merged in order, each option checked afterwards.
//!
//! Kconfig drops an option silently when a dependency is missing, and then a checker is
//! simply not there. So a lost option is an error.

use std::collections::BTreeMap;

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

/// The options of the fragments (name, text) that `config` did not keep, each with the
/// fragment that asks for it. A later fragment overrides an earlier one.
pub(crate) fn lost(fragments: &[(&str, String)], config: &str) -> Vec<String> {
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
            (is != value)
                .then(|| format!("{name}={} of {fragment} (it is {})", say(value), say(is)))
        })
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
        let fragments = [("base.config", base.into()), ("kasan.config", kasan.into())];
        assert_eq!(
            lost(&fragments, config),
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
        let fragments = [("a", "CONFIG_X=15\n".into()), ("b", "CONFIG_X=30\n".into())];
        assert!(lost(&fragments, "CONFIG_X=30\n").is_empty());
        assert_eq!(lost(&fragments, "CONFIG_X=15\n").len(), 1);
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

//! Where a line of the kernel's source can be read: a frame's `file:line` as a link.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Where frames lead if nobody says otherwise.
const ELIXIR: &str = "https://elixir.bootlin.com/linux/v{version}/source/{file}#L{line}";

/// The directories of the kernel's tree. A path that begins otherwise is not of that tree.
const TREE: &[&str] = &[
    "arch", "block", "certs", "crypto", "drivers", "fs", "include", "init", "io_uring", "ipc",
    "kernel", "lib", "mm", "net", "rust", "samples", "security", "sound", "usr", "virt",
];

/// A URL in which `{version}`, `{file}` and `{line}` stand for the kernel's version, a path in its
/// tree, and a line of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUrl(String);

impl Default for SourceUrl {
    fn default() -> Self {
        Self(ELIXIR.into())
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SourceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Nothing else may be clicked at in a page that a log had a hand in.
        let web = ["https://", "http://"]
            .iter()
            .any(|it| text.starts_with(it));
        match web && text.contains("{file}") {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "an http or https URL with {{file}}, and {{version}} and {{line}} where they are \
                 wanted, is expected, as {ELIXIR}"
            )),
        }
    }
}

/// The links of one kernel's frames.
#[derive(Clone, Debug)]
pub struct Links {
    url: SourceUrl,
    version: String,
}

impl Links {
    /// Of a kernel by its `uname -r`.
    pub fn new(url: &SourceUrl, release: &str) -> Self {
        Self {
            url: url.clone(),
            version: version(release),
        }
    }

    /// The link of `drivers/base/core.c:123`; none where that is not in the kernel's tree.
    pub(super) fn of(&self, file_line: &str) -> Option<String> {
        let (file, line) = file_line.rsplit_once(':')?;
        let line: u32 = line.parse().ok()?;
        let (top, _) = file.split_once('/')?;
        let inside = TREE.contains(&top) && !file.split('/').any(|part| part == "..");
        inside.then(|| {
            (self.url.0.replace("{version}", &self.version))
                .replace("{line}", &line.to_string())
                .replace("{file}", &escaped(file))
        })
    }
}

/// The tag's name in a release: `7.2.12` of `7.2.12-knobrig`, `6.1` of `6.1.0-25-amd64`, `7.3-rc2` of
/// `7.3.0-rc2`.
fn version(release: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let end = release.find(|c| !is_number(c)).unwrap_or(release.len());
    let (numbers, rest) = release.split_at(end);
    // A first release has no third number in its tag.
    let mut version = match numbers.strip_suffix(".0") {
        Some(two) if two.contains('.') => two.to_owned(),
        _ => numbers.to_owned(),
    };
    if let Some(number) = rest.strip_prefix("-rc") {
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        version.push_str("-rc");
        version.push_str(&number[..digits]);
    }
    version
}

/// A path within a URL.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            // Writing to a String can't fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_link_and_another_is_none() {
        let links = Links::new(&SourceUrl::default(), "7.2.12");
        assert_eq!(
            links.of("drivers/base/core.c:123").as_deref(),
            Some("https://elixir.bootlin.com/linux/v7.2.12/source/drivers/base/core.c#L123")
        );
        for other in [
            "/src/mydrv/src/probe.rs:9",
            "src/probe.rs:9",
            "fs/../../etc/x:1",
            "fs/a.c",
            "fs/a.c:x",
        ] {
            assert_eq!(links.of(other), None, "{other}");
        }
        let own: SourceUrl = "https://src.example/{file}?l={line}"
            .parse()
            .expect("a URL");
        assert_eq!(
            Links::new(&own, "").of("fs/a\"b.c:4").as_deref(),
            Some("https://src.example/fs/a%22b.c?l=4")
        );
    }

    #[test]
    fn a_url_that_would_do_something_else_is_refused() {
        for wrong in ["", "javascript:{file}", "https://src.example/", "{file}"] {
            assert!(wrong.parse::<SourceUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_release_leads_to_its_tag() {
        for (release, tag) in [
            ("7.2.12", "7.2.12"),
            ("6.1.170-knobrig+", "6.1.170"),
            ("6.1.0-25-amd64", "6.1"),
            ("7.3.0-rc2", "7.3-rc2"),
            ("7.3.0-rc2-00012-gabc", "7.3-rc2"),
            ("7.0", "7.0"),
        ] {
            assert_eq!(version(release), tag, "{release}");
        }
    }
}

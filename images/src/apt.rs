//! A private apt: further suites of the mirror that the machine's apt is set up with, with
//! signatures checked, in directories of our own. Nothing on the system changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::{Cache, write_whole};
use crate::error::Error;
use crate::run::Run;

/// Debian's own keys, on every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt over one suite.
pub(crate) struct Apt {
    dir: PathBuf,
    suite: String,
}

impl Apt {
    /// Reads a suite's package list.
    pub(crate) fn open(cache: &Cache, suite: &str) -> Result<Self, Error> {
        if !Path::new(KEYRING).is_file() {
            return Err(Error::Source(format!(
                "{KEYRING} is missing: install debian-archive-keyring, or name a kernel by \
                 --kernel-source"
            )));
        }
        let dir = cache.place("apt", suite)?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let dir = dir.join(sub);
            std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        }
        let list = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        write_whole(&dir.join("sources.list"), list.as_bytes())?;
        let apt = Self {
            dir,
            suite: suite.to_owned(),
        };
        let mut update = apt.command("apt-get");
        update.args(["--quiet", "update"]);
        Run::new(
            format!("read the package list of {suite}"),
            update,
            Duration::from_secs(300),
        )
        .output()?;
        Ok(apt)
    }

    /// The suite.
    pub(crate) fn suite(&self) -> &str {
        &self.suite
    }

    /// The versions that the suite has of a package, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>, Error> {
        let mut madison = self.command("apt-cache");
        madison.args(["madison", package]);
        let what = format!("list the versions of {package}");
        let output = Run::new(what, madison, Duration::from_secs(60)).output()?;
        Ok(parse_madison(&output))
    }

    /// Downloads a package into `dir`, and gives its path.
    pub(crate) fn download(
        &self,
        package: &str,
        version: &str,
        dir: &Path,
    ) -> Result<PathBuf, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let mut download = self.command("apt-get");
        download
            .args(["--quiet", "download", &format!("{package}={version}")])
            .current_dir(dir);
        Run::new(
            format!("download {package} {version}"),
            download,
            Duration::from_secs(1800),
        )
        .output()?;
        let entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
            })
            .ok_or_else(|| {
                Error::Source(format!(
                    "apt-get download left no {package} in {}",
                    dir.display()
                ))
            })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State={dir}/state"),
            format!("Dir::Cache={dir}/cache"),
            // Translations are of no use here.
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        if rustix::process::geteuid().is_root() {
            // Root's apt downloads as a user that can't reach a home directory.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// The Debian mirror that apt is set up with.
fn mirror() -> Result<String, Error> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(SITE) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]);
    let output = Run::new("ask apt for its mirror", targets, Duration::from_secs(60)).output()?;
    parse_mirror(&output).ok_or_else(|| {
        Error::Source(
            "apt is set up with no Debian mirror; name a kernel's tree or tarball by \
             --kernel-source"
                .to_owned(),
        )
    })
}

/// The first site that serves a suite of Debian proper.
fn parse_mirror(output: &str) -> Option<String> {
    const SUITES: [&str; 8] = [
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    ];
    output.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (site, release, component) = (words.next()?, words.next()?, words.next()?);
        (SUITES.contains(&release) && component == "main").then(|| site.to_owned())
    })
}

/// ` linux-source-7.2 | 7.2.12-1~bpo13+1 | http://… trixie-backports/main amd64 Packages`
fn parse_madison(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            let (_package, version, origin) = (fields.next()?, fields.next()?, fields.next()?);
            origin.ends_with("Packages").then(|| version.to_owned())
        })
        .collect()
}

/// The upstream part of a Debian version: `1.95.0` of `1.95.0+dfsg1-2~bpo13+1`.
pub(crate) fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.split_once('+').map_or(version, |(rest, _)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_not_the_security_one() {
        let output = "http://m.example/debian-security bookworm-security main\n\
                      https://other.example/node nodistro main\n\
                      http://m.example/debian bookworm main\n";
        assert_eq!(
            parse_mirror(output).as_deref(),
            Some("http://m.example/debian")
        );
        assert_eq!(parse_mirror("https://u.example/ubuntu noble main\n"), None);
    }

    #[test]
    fn versions_come_from_package_lists_only() {
        let output = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://m trixie-backports/main amd64 Packages\n\
                      rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://m trixie-backports/main amd64 Packages\n\
                      rustc | 1.95.0+dfsg1-2~bpo13+1 | http://m trixie-backports/main Sources\n";
        assert_eq!(
            parse_madison(output),
            ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"]
        );
    }

    #[test]
    fn upstream_versions() {
        for (version, is) in [
            ("1.95.0+dfsg1-2~bpo13+1", "1.95.0"),
            ("7.2.12-1~bpo13+1", "7.2.12"),
            ("1:19.1.7-3~deb12u1", "19.1.7"),
        ] {
            assert_eq!(upstream(version), is);
        }
    }
}

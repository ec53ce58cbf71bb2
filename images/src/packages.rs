//! The Debian packages that a build needs: which are missing, and their installation.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::Error;
use crate::progress::Progress;
use crate::run::Run;

/// Releases of LLVM that build the kernel, the preferred one first.
const LLVM: [u32; 5] = [19, 20, 21, 18, 17];

/// Beside LLVM. gcc links host programs (and is cargo's linker), bc and the generators make
/// sources, libelf is objtool's.
const TOOLS: [&str; 9] = [
    "bc",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
    "patch",
    "xz-utils",
];

/// By what names browsers go that know `--headless`.
pub const BROWSERS: [&str; 5] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need(What);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Qemu,
    Kernel,
    Browser,
}

impl Need {
    /// QEMU for x86_64.
    pub fn qemu() -> Self {
        Self(What::Qemu)
    }

    /// Compilers and tools for the kernel and its modules.
    pub fn kernel() -> Self {
        Self(What::Kernel)
    }

    /// A browser without a window, for the tests of pages.
    pub fn browser() -> Self {
        Self(What::Browser)
    }

    /// Programs of which one is enough, whoever installed it.
    fn programs(self) -> &'static [&'static str] {
        match self.0 {
            What::Qemu => &["qemu-system-x86_64"],
            What::Kernel => &[],
            What::Browser => &BROWSERS,
        }
    }

    fn packages(self, llvm: u32) -> Vec<String> {
        match self.0 {
            What::Browser => vec!["chromium-headless-shell".to_owned()],
            What::Qemu => vec!["qemu-system-x86".to_owned()],
            What::Kernel => llvm_packages(llvm)
                .into_iter()
                .chain(TOOLS.map(str::to_owned))
                .collect(),
        }
    }
}

/// libclang is bindgen's.
fn llvm_packages(llvm: u32) -> [String; 4] {
    ["clang", "lld", "llvm", "libclang1"].map(|name| format!("{name}-{llvm}"))
}

/// Packages for a kernel's build that are not installed.
pub fn missing_packages() -> Vec<String> {
    missing(&[Need::kernel(), Need::qemu()]).unwrap_or_default()
}

/// Installs what of these needs is missing, after saying which.
///
/// # Errors
/// The user may not install packages, or apt fails.
pub fn ensure_packages(needs: &[Need], progress: &dyn Progress) -> Result<(), Error> {
    let mut missing = missing(needs)?;
    if missing.is_empty() {
        return Ok(());
    }
    let Some(root) = become_root() else {
        return Err(Error::Packages(missing));
    };
    if !candidates(&missing)? {
        progress.say("apt has no package lists yet: apt-get update");
        apt(&root, &["update"], "read the package lists", progress)?;
        // With lists there may be another LLVM to choose.
        missing = self::missing(needs)?;
    }
    progress.say(&format!(
        "missing Debian packages: {}{}",
        missing.join(" "),
        download_size(&missing).map_or(String::new(), |size| format!(" ({size})"))
    ));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(String::as_str));
    apt(&root, &arguments, "install packages", progress)
}

fn missing(needs: &[Need]) -> Result<Vec<String>, Error> {
    let installed = installed()?;
    let llvm = llvm_release(&installed)?;
    let mut missing = Vec::new();
    for need in needs {
        if need.programs().iter().any(|program| on_path(program)) {
            continue;
        }
        for package in need.packages(llvm) {
            if !installed.contains(&package) {
                missing.push(package);
            }
        }
    }
    Ok(missing)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The LLVM to use: the first that is wholly installed, else the first that apt can install.
fn llvm_release(installed: &BTreeSet<String>) -> Result<u32, Error> {
    let whole = |llvm: &u32| {
        llvm_packages(*llvm)
            .iter()
            .all(|package| installed.contains(package))
    };
    if let Some(llvm) = LLVM.into_iter().find(whole) {
        return Ok(llvm);
    }
    for llvm in LLVM {
        if candidates(&llvm_packages(llvm))? {
            return Ok(llvm);
        }
    }
    Ok(LLVM[0])
}

/// The installed LLVM to build with, if there is one.
pub(crate) fn installed_llvm() -> Result<Option<u32>, Error> {
    Ok(LLVM.into_iter().find(|llvm| {
        ["clang", "ld.lld", "llvm-nm"]
            .iter()
            .all(|tool| on_path(&format!("{tool}-{llvm}")))
    }))
}

fn installed() -> Result<BTreeSet<String>, Error> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Abbrev}\t${Package}\n"]);
    let output = Run::new(
        "list the installed packages",
        query,
        Duration::from_secs(60),
    )
    .output()?;
    Ok(parse_installed(&output))
}

fn parse_installed(output: &str) -> BTreeSet<String> {
    output
        .lines()
        .filter_map(|line| line.split_once('\t'))
        // "ii ": wanted and installed; "hi ": held and installed.
        .filter(|(status, _)| status.as_bytes().get(1) == Some(&b'i'))
        .map(|(_, package)| package.to_owned())
        .collect()
}

/// Whether apt could install all of these.
fn candidates(packages: &[String]) -> Result<bool, Error> {
    let mut policy = Command::new("apt-cache");
    policy.arg("policy").args(packages).env("LC_ALL", "C");
    let output = Run::new("ask apt for its packages", policy, Duration::from_secs(60)).output()?;
    Ok(parse_candidates(&output) == packages.len())
}

fn parse_candidates(output: &str) -> usize {
    output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .count()
}

/// "Need to get 9,410 kB of archives."
fn download_size(packages: &[String]) -> Option<String> {
    let mut simulate = Command::new("apt-get");
    simulate
        .args(["install", "--no-install-recommends", "--assume-no"])
        .args(packages)
        .env("LC_ALL", "C");
    // It ends with an error, as its question is answered by no.
    let output = simulate.stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| {
            line.strip_prefix("Need to get ")?
                .strip_suffix(" of archives.")
        })
        .map(|size| format!("{size} to download"))
}

/// The words before a command that make it root's; none if this user may not.
fn become_root() -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    if !on_path("sudo") {
        return None;
    }
    // A password may be asked for only where someone can type it.
    let mut probe = Command::new("sudo");
    probe.args(["-n", "true"]).stderr(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => Some(vec!["sudo", "-n"]),
        _ if std::io::IsTerminal::is_terminal(&std::io::stdin()) => Some(vec!["sudo"]),
        _ => None,
    }
}

/// Runs apt in the foreground: sudo may ask for a password, and an installation that is
/// killed half-way leaves dpkg in need of repair.
fn apt(
    root: &[&str],
    arguments: &[&str],
    what: &str,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut words = root.to_vec();
    words.extend([
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "--quiet",
    ]);
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    progress.begin(what, Some(Duration::from_secs(60)));
    let failed = |source| Error::Start {
        program: words[0].to_owned(),
        what: what.to_owned(),
        source,
    };
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(failed)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Failed {
            what: what.to_owned(),
            command: words.join(" "),
            status: output.status.to_string(),
            tail: stderr.lines().map(str::to_owned).collect(),
            log: None,
        });
    }
    progress.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_packages_count_as_installed() {
        let output = "ii \tmake\nrc \tclang-19\nhi \tgcc\niU \tbc\n";
        let installed = parse_installed(output);
        assert_eq!(
            installed.into_iter().collect::<Vec<_>>(),
            ["gcc", "make"].map(str::to_owned)
        );
    }

    #[test]
    fn a_package_without_candidate_can_not_be_installed() {
        let output = "clang-19:\n  Installed: (none)\n  Candidate: 1:19.1.7-3\n  Version table:\n\
                      lld-19:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(parse_candidates(output), 1);
    }

    #[test]
    fn this_machine_has_a_libc() {
        assert!(installed().expect("dpkg answers").contains("libc6"));
    }
}

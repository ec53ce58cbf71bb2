//! The compilers that build the kernel, and what they need: LLVM, rustc, the source of rustc's
//! core library, bindgen.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::apt::{self, Apt};
use crate::cache::{Cache, remove};
use crate::error::Error;
use crate::hash::Content;
use crate::lock::Lock;
use crate::packages;
use crate::progress::Progress;
use crate::run::Run;

/// bindgen is pinned: its output is part of the kernel.
const BINDGEN: &str = "0.73.2";
/// Where Debian has the source of newer releases of Rust.
const RUST_SUITES: [&str; 3] = ["trixie-backports", "trixie", "sid"];
const QUICK: Duration = Duration::from_secs(30);

/// Compilers that are installed.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    llvm: u32,
    clang: String,
    sysroot: PathBuf,
    rustc: String,
}

impl Toolchain {
    /// Looks for them.
    pub(crate) fn find() -> Result<Self, Error> {
        let llvm = packages::installed_llvm()?.ok_or_else(|| {
            Error::Toolchain("no LLVM of release 17 or newer is installed".to_owned())
        })?;
        let mut clang = Command::new(format!("clang-{llvm}"));
        clang.arg("--version");
        let clang = Run::new("ask clang for its version", clang, QUICK).output()?;
        // rustup's proxy chooses by directory, and the kernel is built in another one.
        let mut sysroot = Command::new("rustc");
        sysroot
            .args(["--print", "sysroot"])
            .current_dir(crate::workspace_root());
        let sysroot = Run::new("ask rustc where it is", sysroot, QUICK).output()?;
        let sysroot = PathBuf::from(sysroot.trim());
        let mut rustc = Command::new(sysroot.join("bin/rustc"));
        rustc.arg("-vV");
        let rustc = Run::new("ask rustc for its version", rustc, QUICK).output()?;
        Ok(Self {
            llvm,
            clang,
            sysroot,
            rustc,
        })
    }

    /// What they are, for an image's id.
    pub(crate) fn content(&self, content: Content) -> Content {
        content
            .field(self.clang.as_bytes())
            .field(self.rustc.as_bytes())
            .field(BINDGEN.as_bytes())
    }

    /// A program of LLVM's.
    pub(crate) fn llvm_tool(&self, name: &str) -> String {
        format!("{name}-{}", self.llvm)
    }

    /// rustc itself, past rustup's proxy.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// `1.95.0`
    pub(crate) fn rustc_release(&self) -> &str {
        self.rustc
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .unwrap_or("unknown")
    }

    /// make's variables that name them; the same for the kernel and for its modules.
    pub(crate) fn make_variables(&self, cache: &Cache) -> Result<Vec<String>, Error> {
        let bin = self.sysroot.join("bin");
        Ok(vec![
            format!("LLVM=-{}", self.llvm),
            format!("RUSTC={}", bin.join("rustc").display()),
            format!("RUSTDOC={}", bin.join("rustdoc").display()),
            format!("RUSTFMT={}", bin.join("rustfmt").display()),
            format!("BINDGEN={}", bindgen_path(cache)?.display()),
            format!("RUST_LIB_SRC={}", self.rust_lib(cache)?.display()),
        ])
    }

    /// The environment in which bindgen finds its libclang.
    pub(crate) fn libclang(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/llvm-{}/lib", self.llvm))
    }

    /// Where the source of the core library is, or would be.
    fn rust_lib(&self, cache: &Cache) -> Result<PathBuf, Error> {
        let component = self.sysroot.join("lib/rustlib/src/rust/library");
        if component.join("core/src/lib.rs").is_file() {
            return Ok(component);
        }
        Ok(cache
            .place("rust-src", self.rustc_release())?
            .join("library"))
    }

    /// Sees to it that the source of this rustc's core library is there.
    pub(crate) fn ensure_rust_lib(
        &self,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let library = self.rust_lib(cache)?;
        if library.is_dir() {
            return Ok(());
        }
        let release = self.rustc_release();
        let _lock = Lock::take(
            cache,
            "rust-src",
            "unpacks the source of Rust's core library",
            progress,
        )?;
        if library.is_dir() {
            return Ok(());
        }
        progress.begin(
            &format!("the source of Rust {release}'s core library"),
            Some(Duration::from_secs(8)),
        );
        let (apt, version) = rust_source(cache, release)?;
        let temp = cache.place("rust-src", &format!("{release}.part"))?;
        remove(&temp)?;
        let package = apt.download("rust-src", &version, &temp)?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(&package).arg(temp.join("root"));
        Run::new("unpack rust-src", unpack, Duration::from_secs(300)).output()?;
        let unpacked = temp.join(format!("root/usr/src/rustc-{release}"));
        let place = cache.place("rust-src", release)?;
        std::fs::rename(&unpacked, &place).map_err(Error::file("rename", &unpacked))?;
        remove(&temp)?;
        progress.end();
        Ok(())
    }

    /// Sees to it that bindgen is there.
    pub(crate) fn ensure_bindgen(
        &self,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let place = cache.place("tool", &format!("bindgen-{BINDGEN}"))?;
        if place.is_dir() {
            return Ok(());
        }
        let lock = Lock::take(cache, "bindgen", "builds bindgen", progress)?;
        if place.is_dir() {
            return Ok(());
        }
        progress.begin(
            &format!("build bindgen {BINDGEN}"),
            Some(Duration::from_secs(60)),
        );
        let temp = cache.place("tool", "bindgen.part")?;
        let mut install = cargo();
        install
            .args(["install", "bindgen-cli", "--locked", "--version", BINDGEN])
            // It logs and formats nothing here.
            .args(["--no-default-features", "--features", "runtime"])
            .arg("--root")
            .arg(&temp)
            .arg("--target-dir")
            .arg(temp.join("target"))
            // It runs for some seconds per kernel; optimizing it takes a minute.
            .args(["--profile", "dev"])
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env_remove("RUSTFLAGS");
        let mut done = 0;
        Run::new("build bindgen", install, Duration::from_secs(1800))
            .holding(&lock)
            .lines(|_, line| {
                if line.trim_start().starts_with("Compiling") {
                    done += 1;
                    progress.update(f64::from(done) / 45.0, line.trim());
                }
            })?;
        remove(&temp.join("target"))?;
        std::fs::rename(&temp, &place).map_err(Error::file("rename", &temp))?;
        progress.end();
        Ok(())
    }
}

/// cargo, the one that runs us if one does.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::workspace_root());
    command
}

fn bindgen_path(cache: &Cache) -> Result<PathBuf, Error> {
    Ok(cache
        .place("tool", &format!("bindgen-{BINDGEN}"))?
        .join("bin/bindgen"))
}

/// The suite and version that have the source of a release.
fn rust_source(cache: &Cache, release: &str) -> Result<(Apt, String), Error> {
    let mut seen = Vec::new();
    for suite in RUST_SUITES {
        let apt = Apt::open(cache, suite)?;
        for version in apt.versions("rust-src")? {
            if apt::upstream(&version) == release {
                return Ok((apt, version));
            }
            seen.push(format!("{version} ({})", apt.suite()));
        }
    }
    Err(Error::Toolchain(format!(
        "no source of Rust {release}'s core library: run `rustup component add rust-src`, or use \
         a Rust that Debian has the source of: {}",
        seen.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_builds_rust() {
        let toolchain = Toolchain::find().expect("LLVM and rustc are installed");
        assert!(toolchain.rustc_release().starts_with("1."));
        assert!(toolchain.rustc().is_file());
    }
}

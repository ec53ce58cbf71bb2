//! A module's crates on the kernel's own core: the ones that cargo resolves, compiled with the
//! flags of the kernel's own Rust code.
//!
//! cargo decides versions, features, build scripts and procedural macros, by checking the same
//! packages for the host; what it says (JSON) is turned into rustc's command lines here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cargo_metadata::{DependencyKind, Message, Metadata, PackageId, TargetKind};

use crate::error::Error;
use crate::run::{Run, Stream};
use crate::toolchain::{Toolchain, cargo};

/// The host's target, named so that cargo keeps what it builds for procedural macros apart.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// What the kernel is most like: its conditional dependencies are the ones wanted.
const BARE: &str = "x86_64-unknown-none";

/// A crate to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crate {
    /// Its name in Rust.
    pub(crate) name: String,
    /// `libNAME-VERSION.rmeta`, `NAME-VERSION.o`: two versions of one crate may meet.
    pub(crate) stem: String,
    /// Its root file.
    pub(crate) root: PathBuf,
    pub(crate) edition: String,
    pub(crate) features: Vec<String>,
    /// Of its build script.
    pub(crate) cfgs: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Ours, so its warnings are shown; a registry's are not.
    pub(crate) local: bool,
    pub(crate) externs: Vec<Extern>,
}

/// A crate that another names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extern {
    /// What it is called there.
    pub(crate) name: String,
    pub(crate) what: What,
}

/// What a named crate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A crate to compile, by its stem.
    Library(String),
    /// A procedural macro, built.
    Macro(PathBuf),
}

/// The crates below a package, each after those it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closure {
    pub(crate) crates: Vec<Crate>,
    /// What the package itself names.
    pub(crate) externs: Vec<Extern>,
}

/// What kbuild gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) dir: PathBuf,
    pub(crate) objects: Vec<PathBuf>,
    pub(crate) externs: Vec<String>,
}

/// cargo's view of a package.
pub(crate) fn metadata(manifest: &Path) -> Result<Metadata, Error> {
    let mut command = cargo();
    command
        .args(["metadata", "--format-version=1", "--filter-platform", BARE])
        .arg("--manifest-path")
        .arg(manifest);
    let output = Run::new(
        "resolve the module's crates",
        command,
        Duration::from_secs(300),
    )
    .output()?;
    cargo_metadata::MetadataCommand::parse(output.trim()).map_err(|error| Error::Crates {
        manifest: manifest.to_path_buf(),
        why: format!("cargo metadata: {error}"),
    })
}

/// The directories of the path packages below the manifest's own, which are sources too.
pub(crate) fn local_dirs(metadata: &Metadata, manifest: &Path) -> Result<Vec<PathBuf>, Error> {
    let root = root_package(metadata, manifest)?;
    let below: BTreeSet<_> = reach(metadata, &root)
        .into_iter()
        .filter(|id| *id != root)
        .collect();
    let mut dirs: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none() && below.contains(&package.id))
        .filter_map(|package| package.manifest_path.parent())
        .map(|dir| dir.as_std_path().to_path_buf())
        .collect();
    dirs.sort();
    Ok(dirs)
}

/// Has cargo check the packages for the host, and reads what it says of them.
pub(crate) fn check(
    manifest: &Path,
    target_dir: &Path,
    mut say: impl FnMut(&str),
) -> Result<Vec<Message>, Error> {
    let mut command = cargo();
    command
        .args(["check", "--message-format=json-render-diagnostics"])
        .args(["--target", HOST, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target_dir)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let mut messages = Vec::new();
    let run = Run::new(
        "check the module's crates for the host",
        command,
        Duration::from_secs(1800),
    );
    run.lines(|stream, line| match stream {
        Stream::Out => {
            messages.extend(Message::parse_stream(line.as_bytes()).filter_map(Result::ok));
        }
        Stream::Err => say(line.trim()),
    })?;
    Ok(messages)
}

/// Turns cargo's answers into crates to compile.
pub(crate) fn closure(
    metadata: &Metadata,
    messages: &[Message],
    manifest: &Path,
) -> Result<Closure, Error> {
    let root = root_package(metadata, manifest)?;
    let built = Built::read(messages);
    let failed = |why: String| Error::Crates {
        manifest: manifest.to_path_buf(),
        why,
    };
    let mut crates = Vec::new();
    let mut externs = Vec::new();
    for id in reach(metadata, &root) {
        let named = externs_of(metadata, &built, &id);
        if id == root {
            externs = named;
            continue;
        }
        let Some(library) = built.libraries.get(&id) else {
            // A procedural macro, or a dependency that no feature in use asks for.
            continue;
        };
        let package = &metadata[&id];
        let (major, minor, patch) = (
            package.version.major.to_string(),
            package.version.minor.to_string(),
            package.version.patch.to_string(),
        );
        let directory = package
            .manifest_path
            .parent()
            .ok_or_else(|| failed(format!("{} has no directory", package.manifest_path)))?;
        let mut env = vec![
            ("CARGO_CRATE_NAME".to_owned(), library.name.clone()),
            ("CARGO_MANIFEST_DIR".to_owned(), directory.to_string()),
            ("CARGO_PKG_NAME".to_owned(), package.name.to_string()),
            ("CARGO_PKG_VERSION".to_owned(), package.version.to_string()),
            ("CARGO_PKG_VERSION_MAJOR".to_owned(), major),
            ("CARGO_PKG_VERSION_MINOR".to_owned(), minor),
            ("CARGO_PKG_VERSION_PATCH".to_owned(), patch),
            (
                "CARGO_PKG_VERSION_PRE".to_owned(),
                package.version.pre.to_string(),
            ),
        ];
        let mut cfgs = Vec::new();
        if let Some(script) = built.scripts.get(&id) {
            env.push(("OUT_DIR".to_owned(), script.out_dir.to_string()));
            env.extend(script.env.iter().cloned());
            cfgs.clone_from(&script.cfgs);
        }
        crates.push(Crate {
            stem: stem(&library.name, &package.version.to_string()),
            name: library.name.clone(),
            root: library.root.clone(),
            edition: library.edition.clone(),
            features: library.features.clone(),
            cfgs,
            env,
            local: package.source.is_none(),
            externs: named,
        });
    }
    Ok(Closure { crates, externs })
}

fn stem(name: &str, version: &str) -> String {
    format!("{name}-{version}")
}

/// What cargo built.
struct Built<'a> {
    libraries: BTreeMap<PackageId, Library>,
    macros: BTreeMap<PackageId, (String, PathBuf)>,
    scripts: BTreeMap<PackageId, &'a cargo_metadata::BuildScript>,
}

struct Library {
    name: String,
    root: PathBuf,
    edition: String,
    features: Vec<String>,
}

impl<'a> Built<'a> {
    fn read(messages: &'a [Message]) -> Self {
        let mut built = Self {
            libraries: BTreeMap::new(),
            macros: BTreeMap::new(),
            scripts: BTreeMap::new(),
        };
        // Of a package that is built for the host's programs too, the one for the target counts.
        let for_target = |path: &str| path.contains(&format!("/{HOST}/"));
        for message in messages {
            match message {
                Message::CompilerArtifact(artifact) => {
                    let name = artifact.target.name.replace('-', "_");
                    let is = |kind| artifact.target.kind.contains(&kind);
                    if is(TargetKind::ProcMacro) {
                        let library = artifact
                            .filenames
                            .iter()
                            .find(|file| file.extension() == Some(std::env::consts::DLL_EXTENSION));
                        if let Some(library) = library {
                            let library = library.as_std_path().to_path_buf();
                            built
                                .macros
                                .insert(artifact.package_id.clone(), (name, library));
                        }
                    } else if is(TargetKind::Lib) || is(TargetKind::RLib) {
                        let target = artifact
                            .filenames
                            .iter()
                            .any(|file| for_target(file.as_str()));
                        if target {
                            let library = Library {
                                name,
                                root: artifact.target.src_path.as_std_path().to_path_buf(),
                                edition: artifact.target.edition.to_string(),
                                features: artifact.features.clone(),
                            };
                            built.libraries.insert(artifact.package_id.clone(), library);
                        }
                    }
                }
                Message::BuildScriptExecuted(script) => {
                    let id = script.package_id.clone();
                    if for_target(script.out_dir.as_str()) || !built.scripts.contains_key(&id) {
                        built.scripts.insert(id, script);
                    }
                }
                _ => {}
            }
        }
        built
    }
}

fn root_package(metadata: &Metadata, manifest: &Path) -> Result<PackageId, Error> {
    let same =
        |path: &Path| path == manifest || path.canonicalize().ok().as_deref() == Some(manifest);
    metadata
        .packages
        .iter()
        .find(|package| same(package.manifest_path.as_std_path()))
        .map(|package| package.id.clone())
        .ok_or_else(|| Error::Crates {
            manifest: manifest.to_path_buf(),
            why: "cargo metadata does not know it".to_owned(),
        })
}

/// The packages that `root` is made of, each after those it needs.
fn reach(metadata: &Metadata, root: &PackageId) -> Vec<PackageId> {
    let Some(resolve) = &metadata.resolve else {
        return Vec::new();
    };
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // A stack of (package, whether its dependencies are done).
    let mut stack = vec![(root, false)];
    while let Some((id, done)) = stack.pop() {
        if done {
            order.push(id.clone());
            continue;
        }
        if !seen.insert(id) {
            continue;
        }
        stack.push((id, true));
        let is_macro = metadata[id]
            .targets
            .iter()
            .any(|target| target.kind.contains(&TargetKind::ProcMacro));
        if let (false, Some(node)) = (is_macro, nodes.get(id)) {
            for dependency in &node.deps {
                if is_normal(dependency) {
                    stack.push((&dependency.pkg, false));
                }
            }
        }
    }
    order
}

fn is_normal(dependency: &cargo_metadata::NodeDep) -> bool {
    dependency
        .dep_kinds
        .iter()
        .any(|kind| kind.kind == DependencyKind::Normal)
}

fn externs_of(metadata: &Metadata, built: &Built<'_>, id: &PackageId) -> Vec<Extern> {
    let node = metadata
        .resolve
        .iter()
        .flat_map(|resolve| &resolve.nodes)
        .find(|node| node.id == *id);
    let mut externs = Vec::new();
    for dependency in node.iter().flat_map(|node| &node.deps) {
        if !is_normal(dependency) {
            continue;
        }
        let what = if let Some((_, path)) = built.macros.get(&dependency.pkg) {
            What::Macro(path.clone())
        } else if let Some(library) = built.libraries.get(&dependency.pkg) {
            let version = metadata[&dependency.pkg].version.to_string();
            What::Library(stem(&library.name, &version))
        } else {
            continue;
        };
        externs.push(Extern {
            name: dependency.name.clone(),
            what,
        });
    }
    externs
}

/// Compiles the crates into `dir`.
pub(crate) fn compile(
    closure: &Closure,
    toolchain: &Toolchain,
    build: &Path,
    flags: &[String],
    dir: &Path,
    mut say: impl FnMut(&str),
) -> Result<Compiled, Error> {
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let mut compiled = Compiled {
        dir: dir.to_path_buf(),
        ..Compiled::default()
    };
    // rustc looks procedural macros up beside the crates that were built with them.
    for one in closure
        .crates
        .iter()
        .flat_map(|one| &one.externs)
        .chain(&closure.externs)
    {
        if let What::Macro(path) = &one.what {
            let copy = dir.join(path.file_name().unwrap_or_default());
            std::fs::copy(path, &copy).map_err(Error::file("copy", path))?;
        }
    }
    for one in &closure.crates {
        let object = dir.join(format!("{}.o", one.stem));
        let mut rustc = Command::new(toolchain.rustc());
        rustc
            .arg(format!("--edition={}", one.edition))
            .args(flags)
            .arg(format!("--emit=obj={}", object.display()))
            .arg(format!(
                "--emit=metadata={}",
                dir.join(format!("lib{}.rmeta", one.stem)).display()
            ))
            .args(["--crate-type=rlib", "--sysroot=/dev/null"])
            .args(["-Zunstable-options", "--extern=core=rust/libcore.rmeta"])
            .arg("--extern=compiler_builtins=rust/libcompiler_builtins.rmeta")
            .args(["-Ldependency=rust", "-L"])
            .arg(dir)
            .args(["--crate-name", &one.name])
            // Two crates of one name must not have the same symbols.
            .arg(format!("-Cmetadata=knobrig-{}", one.stem))
            .arg(format!(
                "--cap-lints={}",
                if one.local { "warn" } else { "allow" }
            ))
            // What a module doesn't use of a crate can be left out by the linker: half of it.
            .arg("-Zfunction-sections=y")
            // The kernel's core has no parser for floats.
            .args(["--cfg", "no_fp_fmt_parse"]);
        for feature in &one.features {
            rustc.arg("--cfg").arg(format!("feature=\"{feature}\""));
        }
        for cfg in &one.cfgs {
            rustc.args(["--cfg", cfg]);
        }
        for named in &one.externs {
            rustc.arg("--extern").arg(extern_flag(named, dir));
        }
        rustc
            .arg(&one.root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("OBJTREE", build)
            .envs(one.env.iter().map(|(name, value)| (name, value)))
            .current_dir(build);
        let what = format!("compile {} for the kernel", one.stem);
        Run::new(what, rustc, Duration::from_secs(600)).lines(|_, line| say(line))?;
        compiled.objects.push(object);
    }
    compiled.externs = closure
        .externs
        .iter()
        .map(|named| format!("--extern {}", extern_flag(named, dir)))
        .collect();
    Ok(compiled)
}

fn extern_flag(named: &Extern, dir: &Path) -> String {
    let file = match &named.what {
        What::Library(stem) => format!("lib{stem}.rmeta"),
        What::Macro(path) => path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    format!("{}={}", named.name, dir.join(file).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace: `drv` names `leaf` (by another name, with a feature) and the macro `mac`;
    /// `leaf` has a build script. `host` asks for more of `leaf`, which must not count.
    fn workspace(dir: &Path) {
        let package = |name: &str, rest: &str| {
            format!("[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2024\"\n{rest}")
        };
        let files = [
            (
                "Cargo.toml",
                "[workspace]\nresolver = \"3\"\nmembers = [\"drv\", \"leaf\", \"mac\", \"host\"]\n"
                    .to_owned(),
            ),
            (
                "drv/Cargo.toml",
                package(
                    "drv",
                    "[dependencies]\nbee = { package = \"leaf\", path = \"../leaf\", features = \
                     [\"one\"] }\nmac = { path = \"../mac\" }\n",
                ),
            ),
            ("drv/src/lib.rs", String::new()),
            (
                "leaf/Cargo.toml",
                package("leaf", "[features]\none = []\nstd = []\n"),
            ),
            (
                "leaf/build.rs",
                "fn main() { println!(\"cargo::rustc-check-cfg=cfg(probed)\\ncargo::rustc-cfg=probed\"); }"
                    .to_owned(),
            ),
            ("leaf/src/lib.rs", "#![no_std]".to_owned()),
            ("mac/Cargo.toml", package("mac", "[lib]\nproc-macro = true\n")),
            ("mac/src/lib.rs", String::new()),
            (
                "host/Cargo.toml",
                package(
                    "host",
                    "[dependencies]\nleaf = { path = \"../leaf\", features = [\"std\"] }\n",
                ),
            ),
            ("host/src/lib.rs", String::new()),
        ];
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
            std::fs::write(path, text).expect("writes");
        }
    }

    #[test]
    fn a_closure_has_what_cargo_resolves_for_the_module_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path().canonicalize().expect("a path");
        workspace(&dir);
        let manifest = dir.join("drv/Cargo.toml");
        let metadata = metadata(&manifest).expect("resolves");
        assert_eq!(
            local_dirs(&metadata, &manifest).expect("knows drv"),
            [dir.join("leaf"), dir.join("mac")]
        );
        let messages = check(&manifest, &dir.join("target"), |_| {}).expect("checks");
        let closure = closure(&metadata, &messages, &manifest).expect("a closure");
        let [leaf] = closure.crates.as_slice() else {
            panic!("{closure:?}")
        };
        assert_eq!(
            (leaf.name.as_str(), leaf.stem.as_str()),
            ("leaf", "leaf-1.2.3")
        );
        assert_eq!(leaf.features, ["one"]);
        assert_eq!(leaf.cfgs, ["probed"]);
        assert_eq!(leaf.edition, "2024");
        assert!(leaf.env.iter().any(|(name, _)| name == "OUT_DIR"));
        let mut named: Vec<_> = closure
            .externs
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        named.sort_unstable();
        assert_eq!(named, ["bee", "mac"]);
        let library = What::Library("leaf-1.2.3".into());
        assert!(closure.externs.iter().any(|one| one.what == library));
    }
}

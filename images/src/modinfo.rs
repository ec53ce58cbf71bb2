//! What a module says of itself: the NUL-separated `key=value` texts of its `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, write_whole};
use crate::error::Error;
use crate::hash::Content;
use crate::kernel::module_name;
use crate::run::command_text;

/// What a module says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Its name in the kernel.
    pub name: String,
    /// Modules that must be there before it.
    pub depends: Vec<String>,
    /// Its parameters and what they are for.
    pub params: Vec<(String, String)>,
    /// Its licence.
    pub license: String,
    /// The kernel that it was built for.
    pub vermagic: String,
    /// What it claims to be good for.
    pub description: String,
}

/// Reads a module's file.
///
/// # Errors
/// It can't be read, or is no module.
pub fn modinfo(path: &Path) -> Result<ModInfo, Error> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    parse(&bytes).ok_or_else(|| Error::NoModule {
        path: path.to_path_buf(),
        why: "it is no ELF file with a module's .modinfo".to_owned(),
    })
}

/// The texts stand one after the other in a section of their own. They are found by the one that
/// every module has, so that neither the section table nor its class matters.
fn parse(bytes: &[u8]) -> Option<ModInfo> {
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let mut info = ModInfo::default();
    let mut magic = false;
    for text in bytes.split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        let Some((key, value)) = text.split_once('=') else {
            continue;
        };
        match key {
            "name" => info.name = value.to_owned(),
            "license" => info.license = value.to_owned(),
            "description" => info.description = value.to_owned(),
            "depends" => info.depends = depends(value),
            "parm" => {
                let (name, about) = value.split_once(':').unwrap_or((value, ""));
                info.params.push((name.to_owned(), about.to_owned()));
            }
            "vermagic" => {
                magic = true;
                info.vermagic = value.to_owned();
            }
            _ => {}
        }
    }
    (magic && !info.name.is_empty()).then_some(info)
}

fn depends(list: &str) -> Vec<String> {
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

/// The modules that these need, each after those that it needs itself, without these.
///
/// # Errors
/// One of them can't be read, or is not there.
pub fn needed_modules(
    cache: &Cache,
    all: &BTreeMap<String, PathBuf>,
    wanted: &[String],
) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut order = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for name in wanted {
        visit(cache, all, name, &mut seen, &mut order)?;
    }
    order.retain(|(name, _)| !wanted.contains(name));
    Ok(order)
}

fn visit(
    cache: &Cache,
    all: &BTreeMap<String, PathBuf>,
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<(String, PathBuf)>,
) -> Result<(), Error> {
    // What is not a module is built in, or its user fails to load and says so.
    let Some(path) = all.get(name).filter(|_| seen.insert(name.to_owned())) else {
        return Ok(());
    };
    let path = plain_module(cache, path)?;
    for need in modinfo(&path)?.depends {
        visit(cache, all, &need, seen, order)?;
    }
    order.push((name.to_owned(), path));
    Ok(())
}

/// The modules below a directory by name, compressed ones included.
pub(crate) fn modules_below(dir: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut modules = BTreeMap::new();
    for path in crate::hash::files(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((stem, packed)) = name.split_once(".ko") else {
            continue;
        };
        if packed.is_empty() || unpacker(packed).is_some() {
            modules.insert(module_name(Path::new(stem)), path.clone());
        }
    }
    Ok(modules)
}

fn unpacker(packed: &str) -> Option<&'static str> {
    match packed {
        ".xz" => Some("xz"),
        ".zst" => Some("zstd"),
        ".gz" => Some("gzip"),
        _ => None,
    }
}

/// A module's file as the kernel takes it: a compressed one is unpacked into the cache.
///
/// # Errors
/// The program that unpacks it is missing or fails.
pub fn plain_module(cache: &Cache, path: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(program) = name
        .split_once(".ko")
        .and_then(|(_, packed)| unpacker(packed))
    else {
        return Ok(path.to_path_buf());
    };
    let id = Content::of("unpacked").file(path)?.id();
    let place = cache.place("unpacked", &format!("{id}.ko"))?;
    if place.is_file() {
        return Ok(place);
    }
    let mut unpack = Command::new(program);
    unpack.arg("-dc").arg(path);
    let what = format!("unpack {}", path.display());
    let failed = |source| Error::Start {
        program: program.to_owned(),
        what: what.clone(),
        source,
    };
    let output = unpack.output().map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Failed {
            what,
            command: command_text(&unpack),
            status: output.status.to_string(),
            tail: vec![String::from_utf8_lossy(&output.stderr).into_owned()],
            log: None,
        });
    }
    write_whole(&place, &output.stdout)?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF\0\0".to_vec();
        for text in [
            "license=GPL",
            &format!("depends={depends}"),
            "parm=level:how loud:really",
            &format!("name={name}"),
            "vermagic=6.1.0 SMP",
        ] {
            bytes.extend(text.bytes());
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn a_module_tells_its_name_and_what_it_needs() {
        let info = parse(&module("a", "b-c,d")).expect("a module");
        assert_eq!(info.name, "a");
        assert_eq!(info.depends, ["b_c", "d"]);
        assert_eq!(info.params, [("level".into(), "how loud:really".into())]);
        assert_eq!(parse(b"\x7fELF\0name=a\0"), None);
        assert_eq!(parse(b"text"), None);
    }

    #[test]
    fn what_is_needed_comes_before_its_user_and_a_circle_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        let mut all = BTreeMap::new();
        for (name, depends) in [("a", "b,c"), ("b", "c"), ("c", "a"), ("x", "")] {
            let path = dir.path().join(format!("{name}.ko"));
            std::fs::write(&path, module(name, depends)).expect("writes");
            all.insert(name.to_owned(), path);
        }
        let needed = needed_modules(&cache, &all, &["a".to_owned()]).expect("reads");
        let names: Vec<_> = needed.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["c", "b"]);
    }

    #[test]
    fn a_packed_module_is_unpacked_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(&dir.path().join("cache"))).expect("opens");
        std::fs::write(dir.path().join("a-b.ko"), module("a_b", "")).expect("writes");
        let packed = Command::new("gzip").arg(dir.path().join("a-b.ko")).status();
        assert!(packed.expect("gzip runs").success());
        let all = modules_below(dir.path()).expect("reads");
        let plain = plain_module(&cache, &all["a_b"]).expect("unpacks");
        assert_eq!(modinfo(&plain).expect("a module").name, "a_b");
        assert_eq!(plain_module(&cache, &all["a_b"]).expect("is there"), plain);
    }
}

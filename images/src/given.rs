//! A kernel that somebody else built: an image that QEMU can start, perhaps its vmlinux, its
//! modules and its configuration.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::check::{self, Missing, check_config};
use crate::error::Error;
use crate::hash::Content;
use crate::kernel::Kernel;
use crate::modinfo::modules_below;
use crate::variant::Variant;

/// Largest kernel that is unpacked in search of its configuration.
const LARGEST: u64 = 1 << 30;
/// IKCONFIG stands between these words, compressed.
const IKCONFIG: &[u8] = b"IKCFG_ST";
/// The boot protocol's magic, and where its fields are in a bzImage.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const SETUP_SECTORS: usize = 0x1f1;
const VERSION_AT: usize = 0x20e;
const PAYLOAD_AT: usize = 0x248;
const PAYLOAD_LEN: usize = 0x24c;

/// What was given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// A bzImage, or a vmlinux with a PVH entry.
    pub image: PathBuf,
    /// vmlinux with symbols.
    pub vmlinux: Option<PathBuf>,
    /// A directory with its modules, as `make modules_install` leaves it.
    pub modules: Option<PathBuf>,
    /// Its configuration.
    pub config: Option<PathBuf>,
}

/// A kernel that was given.
#[derive(Clone, Debug)]
pub struct GivenKernel {
    /// The kernel.
    pub kernel: Kernel,
    /// What its configuration lacks; none if that is not known.
    pub missing: Option<Vec<Missing>>,
    /// Modules that must be there before the agent can speak.
    pub first: Vec<String>,
}

/// Looks at a kernel that was given.
///
/// # Errors
/// It can't be read, is no kernel for x86-64, or lacks what the rig can't do without.
pub fn given_kernel(given: &Given) -> Result<GivenKernel, Error> {
    let path = given
        .image
        .canonicalize()
        .map_err(Error::file("find the kernel", &given.image))?;
    let image = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let unusable = |why: &str| Error::Unusable {
        kernel: path.clone(),
        lacks: vec![why.to_owned()],
    };
    let release = release(&image)
        .ok_or_else(|| unusable("it is neither a bzImage nor a vmlinux of a Linux for x86-64"))?;
    let modules = match &given.modules {
        Some(dir) => modules_below(dir)?,
        None => BTreeMap::new(),
    };
    let build = given.modules.as_ref().map(|dir| dir.join("build"));
    let build = build.filter(|build| build.join("Makefile").is_file());
    let config = configuration(given, &path, &image, build.as_deref())?;
    let missing = config.as_deref().map(check_config);
    let lacks: Vec<_> = (missing.iter().flatten())
        .filter(|missing| missing.needed)
        .map(|missing| format!("{} is not set: {}", missing.option, missing.costs))
        .collect();
    if !lacks.is_empty() {
        return Err(Error::Unusable {
            kernel: path,
            lacks,
        });
    }
    let first = first(config.as_deref(), &modules);
    let absent: Vec<_> = first
        .iter()
        .filter(|name| !modules.contains_key(*name))
        .collect();
    if let Some(name) = absent.first() {
        return Err(unusable(&format!(
            "its {name} is a module, and --modules names no directory that has it"
        )));
    }
    Ok(GivenKernel {
        kernel: Kernel {
            id: Content::of("given").field(&image).id(),
            variant: Variant::Kasan,
            given: true,
            release,
            source: path.display().to_string(),
            source_hash: String::new(),
            boot: path.clone(),
            vmlinux: given.vmlinux.clone().unwrap_or(path),
            build: build.unwrap_or_default(),
            modules,
            rust: false,
            tree: PathBuf::new(),
            fragments: Vec::new(),
        },
        missing,
        first,
    })
}

/// What the agent's port needs and the kernel has as modules.
fn first(config: Option<&str>, modules: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let port = [
        ("CONFIG_VIRTIO_PCI", "virtio_pci"),
        ("CONFIG_VIRTIO_CONSOLE", "virtio_console"),
    ];
    let wanted = port.into_iter().filter(|(option, name)| match config {
        Some(config) => check::as_modules(config).contains(option),
        None => modules.contains_key(*name),
    });
    wanted.map(|(_, name)| name.to_owned()).collect()
}

fn field(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// `uname -r` of an image.
fn release(image: &[u8]) -> Option<String> {
    let text = if is_bz_image(image) {
        let at = image.get(VERSION_AT..VERSION_AT + 2)?.try_into().ok()?;
        image.get(usize::from(u16::from_le_bytes(at)) + 0x200..)?
    } else if image.starts_with(b"\x7fELF\x02") {
        let banner = b"Linux version ";
        let at = find(image, banner)?;
        image.get(at + banner.len()..)?
    } else {
        return None;
    };
    let end = text.iter().position(|byte| !byte.is_ascii_graphic())?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    release
        .starts_with(|first: char| first.is_ascii_digit())
        .then(|| release.to_owned())
}

fn is_bz_image(image: &[u8]) -> bool {
    let (at, magic) = MAGIC;
    image.get(at..at + magic.len()) == Some(magic)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

/// The configuration: as it was given, beside the image, or inside of it.
fn configuration(
    given: &Given,
    path: &Path,
    image: &[u8],
    build: Option<&Path>,
) -> Result<Option<String>, Error> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(Error::file("read", path));
    if let Some(path) = &given.config {
        return read(path).map(Some);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut beside = Vec::new();
    if let Some(version) = name.strip_prefix("vmlinuz-") {
        beside.push(path.with_file_name(format!("config-{version}")));
    }
    beside.extend(build.map(|build| build.join(".config")));
    if path.ends_with("arch/x86/boot/bzImage") {
        beside.extend(path.ancestors().nth(4).map(|tree| tree.join(".config")));
    } else if name == "vmlinux" {
        beside.push(path.with_file_name(".config"));
    }
    if let Some(path) = beside.iter().find(|path| path.is_file()) {
        return read(path).map(Some);
    }
    if let Some(vmlinux) = &given.vmlinux {
        let vmlinux = std::fs::read(vmlinux).map_err(Error::file("read", vmlinux))?;
        if let Some(config) = ikconfig(&vmlinux) {
            return Ok(Some(config));
        }
    }
    Ok(ikconfig(image).or_else(|| ikconfig(&unpacked(image)?)))
}

/// What CONFIG_IKCONFIG has put into a kernel.
fn ikconfig(kernel: &[u8]) -> Option<String> {
    let at = find(kernel, IKCONFIG)? + IKCONFIG.len();
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(kernel.get(at..)?).take(LARGEST);
    reader.read_to_string(&mut text).ok()?;
    text.contains("CONFIG_").then_some(text)
}

/// The vmlinux in a bzImage, where it is compressed by one of the usual ways.
fn unpacked(image: &[u8]) -> Option<Vec<u8>> {
    if !is_bz_image(image) {
        return None;
    }
    let setup = (usize::from(*image.get(SETUP_SECTORS)?) + 1) * 512;
    let at = setup.checked_add(field(image, PAYLOAD_AT)?)?;
    let payload = image.get(at..at.checked_add(field(image, PAYLOAD_LEN)?)?)?;
    let mut reader: Box<dyn Read + '_> = match payload {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Box::new(lzma_rust2::XzReader::new(payload, false)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(payload).ok()?)
        }
        _ => return None,
    };
    let mut vmlinux = Vec::new();
    // The payload's last bytes are its size, which no decompressor takes: what came before counts.
    let read = reader.as_mut().take(LARGEST).read_to_end(&mut vmlinux);
    (read.is_ok() || find(&vmlinux, IKCONFIG).is_some()).then_some(vmlinux)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).expect("writes");
        writer.finish().expect("ends")
    }

    /// A bzImage as far as it is looked at.
    fn bz_image(config: &str) -> Vec<u8> {
        let mut vmlinux = b"\x7fELF\x02 something IKCFG_ST".to_vec();
        vmlinux.extend(gz(config.as_bytes()));
        vmlinux.extend(b"IKCFG_ED and more");
        let mut payload = gz(&vmlinux);
        payload.extend(1234u32.to_le_bytes());
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x300..0x30c].copy_from_slice(b"5.15.9-me #1");
        image[PAYLOAD_LEN..PAYLOAD_LEN + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn a_bz_image_tells_its_release_and_its_configuration() {
        let image = bz_image("CONFIG_SMP=y\n");
        assert_eq!(release(&image).as_deref(), Some("5.15.9-me"));
        let config = ikconfig(&unpacked(&image).expect("unpacks"));
        assert_eq!(config.as_deref(), Some("CONFIG_SMP=y\n"));
    }

    #[test]
    fn a_kernel_that_lacks_what_is_needed_is_refused_with_the_cost() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("bzImage");
        std::fs::write(&image, bz_image("CONFIG_SMP=y\n")).expect("writes");
        let given = Given {
            image,
            ..Given::default()
        };
        let error = given_kernel(&given)
            .expect_err("it lacks nearly all")
            .to_string();
        assert!(
            error.contains("CONFIG_VIRTIO_CONSOLE is not set: the agent has no port"),
            "{error}"
        );
    }

    #[test]
    fn no_kernel_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("bzImage");
        for junk in [&b""[..], b"junk", &[0; 0x206]] {
            std::fs::write(&image, junk).expect("writes");
            let given = Given {
                image: image.clone(),
                ..Given::default()
            };
            let error = given_kernel(&given).expect_err("no kernel").to_string();
            assert!(error.contains("neither a bzImage nor a vmlinux"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_in_an_image_panics(mut image: Vec<u8>, header: [u8; 96]) {
            image.resize(image.len().max(0x260), 0);
            image[0x1f0..0x250].copy_from_slice(&header);
            image[0x202..0x206].copy_from_slice(b"HdrS");
            let _ = (release(&image), ikconfig(&image), unpacked(&image));
        }
    }
}

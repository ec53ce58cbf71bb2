//! Files by pattern, and all files below a directory: what a target's author can't know before.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Lines of a list at most, so that it fits into a message.
const MOST: usize = 40_000;

/// The paths that match a pattern, in order; `*` and `?` match within a name.
pub fn glob(pattern: &str) -> Vec<String> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.contains(['*', '?']) {
            false => found.into_iter().map(|dir| dir.join(part)).collect(),
            true => found.iter().flat_map(|dir| matching(dir, part)).collect(),
        };
    }
    let mut found: Vec<_> = (found.into_iter())
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

fn matching(dir: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let fits = |entry: fs::DirEntry| {
        let name = entry.file_name();
        matches(part.as_bytes(), name.as_encoded_bytes()).then(|| entry.path())
    };
    entries.filter_map(Result::ok).filter_map(fits).collect()
}

/// `*` for any bytes, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            matches(rest, name) || !name.is_empty() && matches(pattern, &name[1..])
        }
        ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([one, pattern @ ..], [other, name @ ..]) => one == other && matches(pattern, name),
        _ => false,
    }
}

/// Whether a path is a process's: these come and go with everybody.
fn is_process(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    path.parent() == Some(Path::new("/proc")) && name.iter().all(u8::is_ascii_digit)
}

/// All that is below a directory, a line each: kind (`d`irectory, `f`ile, `l`ink, `c`haracter or
/// `b`lock device, `o`ther), mode in octal, path. Links are not followed.
pub fn list(dir: &str) -> String {
    let mut text = String::new();
    let mut lines = 0;
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        // A directory may go while it is looked at.
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(found) = entry.path().symlink_metadata() else {
                continue;
            };
            let kind = found.file_type();
            let letter = match () {
                () if kind.is_dir() => 'd',
                () if kind.is_symlink() => 'l',
                () if kind.is_char_device() => 'c',
                () if kind.is_block_device() => 'b',
                () if kind.is_file() => 'f',
                () => 'o',
            };
            if is_process(&entry.path()) {
                continue;
            }
            if kind.is_dir() {
                dirs.push(entry.path());
            }
            let mode = found.permissions().mode() & 0o7777;
            // Writing to a String can't fail.
            let _ = writeln!(text, "{letter} {mode:03o} {}", entry.path().display());
            lines += 1;
            if lines == MOST {
                return text;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stay_within_a_name() {
        let dir = std::env::temp_dir().join(format!("knobrig-find-{}", std::process::id()));
        for sub in ["virtio0/block", "virtio1", "other"] {
            fs::create_dir_all(dir.join(sub)).expect("a directory");
        }
        let under = |pattern: &str| -> Vec<String> {
            let base = dir.display().to_string();
            let found = glob(&format!("{base}/{pattern}")).into_iter();
            found
                .map(|path| path[base.len() + 1..].to_owned())
                .collect()
        };
        assert_eq!(under("virtio*"), ["virtio0", "virtio1"]);
        assert_eq!(under("virtio?/bl*"), ["virtio0/block"]);
        assert_eq!(under("other"), ["other"]);
        assert_eq!(under("none*"), [""; 0]);
        let listed = list(&dir.display().to_string());
        assert_eq!(listed.lines().count(), 4);
        assert!(
            listed.lines().all(|line| line.starts_with("d 7")),
            "{listed}"
        );
        fs::remove_dir_all(&dir).expect("removes");
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**a", "ba", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }
}

//! What kobjects, sysfs and their users say without a WARN(): names taken twice, objects set up
//! twice, devices that others still hold (lib/kobject.c, fs/sysfs/dir.c, net/core/dev.c,
//! fs/super.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled, untitled};
use crate::report::Class;
use crate::skip::{COMMON, REGISTRATION};

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new(
        "sysfs: cannot create duplicate filename ",
        Body::Plain,
        duplicate,
    )
    .follows(),
    Headline::new("kobject", Body::Plain, initialized)
        .with("tried to init an initialized object")
        .follows(),
    Headline::new("unregister_netdevice: waiting for ", Body::Line, netdevice)
        .with(" to become free")
        .follows(),
    Headline::new("VFS: Busy inodes after unmount", Body::Line, busy_inodes).follows(),
    Headline::new("VFS: Close: file count is ", Body::Line, file_count).follows(),
];

fn duplicate(case: &Case<'_>) -> Verdict {
    let prefix = "sysfs: cannot create duplicate filename";
    let mut verdict = kobject(case, prefix);
    if let Some((_, name)) = case.headline().split_once(prefix) {
        let name = name.trim();
        verdict.notes.push(format!("the name is taken: {name}"));
    }
    verdict
}

fn initialized(case: &Case<'_>) -> Verdict {
    kobject(case, "kobject: tried to init an initialized object")
}

fn kobject(case: &Case<'_>, prefix: &str) -> Verdict {
    match case.guilty(&[&COMMON, &REGISTRATION]) {
        Some(function) => titled(Class::Kobject, "", prefix, None, Some(function)),
        None => untitled(Class::Kobject, "", prefix),
    }
}

/// Said again every ten seconds for as long as somebody holds the device.
fn netdevice(case: &Case<'_>) -> Verdict {
    let title = "unregister_netdevice: waiting for DEV to become free";
    let mut verdict = untitled(Class::HungTask, "", title);
    let text = case.headline();
    if let Some((_, count)) = text.rsplit_once("sage count = ") {
        verdict
            .notes
            .push(format!("references left: {}", count.trim()));
    }
    verdict
}

fn busy_inodes(_: &Case<'_>) -> Verdict {
    let title = "VFS: Busy inodes after unmount (use-after-free)";
    untitled(Class::Other, "", title)
}

fn file_count(_: &Case<'_>) -> Verdict {
    let title = "VFS: Close: file count is zero (use-after-free)";
    untitled(Class::Other, "", title)
}

//! A report's stacks as HTML: each can be folded, each line of the kernel is a link.

use std::fmt::Write as _;

use knobrig_klog::{Frame, Report, Role, Stack};

use super::escaped;
use super::links::Links;

/// Frames of a stack that are shown; the kernel's words beside it have the rest.
const FRAMES: usize = 64;

/// All stacks; the first is open.
pub(super) fn stacks(page: &mut String, report: &Report, links: &Links) {
    for (index, stack) in report.stacks.iter().enumerate() {
        let open = if index == 0 { " open" } else { "" };
        let who = (stack.task.as_ref()).map_or(String::new(), |task| match task.pid {
            Some(pid) if task.name.is_empty() => format!(", task {pid}"),
            Some(pid) => format!(", task {} {pid}", task.name),
            None => format!(", task {}", task.name),
        });
        // Writing to a String can't fail.
        let _ = writeln!(
            page,
            "<details{open}><summary>{}{}</summary><ol class=\"stack\">",
            role(stack),
            escaped(&who)
        );
        // What the unwinder doesn't vouch for stands in the words beside.
        let frames = || stack.frames.iter().filter(|frame| frame.reliable);
        for frame in frames().take(FRAMES) {
            one(page, frame, links);
        }
        page.push_str("</ol>");
        let more = frames().skip(FRAMES).count();
        if more > 0 {
            let _ = writeln!(page, "<p class=\"dim\">{more} more</p>");
        }
        page.push_str("</details>\n");
    }
}

fn role(stack: &Stack) -> &'static str {
    match stack.role {
        Role::Fault => "Where it happened",
        Role::Alloc => "Who had made the object",
        Role::Free => "Who had freed it",
        Role::AuxWork => "Who had queued it",
        Role::Store => "Who stored the value",
        Role::Origin => "Where the value comes from",
        Role::Racing => "The other access",
        Role::LockChain => "How a lock was taken",
        Role::Panic => "The panic",
        _ => "Beside it",
    }
}

fn one(page: &mut String, frame: &Frame, links: &Links) {
    let name = match frame.function.as_str() {
        "" => &frame.symbol,
        name => name,
    };
    let class = match frame.inlined {
        true => " class=\"inlined\"",
        false => "",
    };
    let _ = write!(page, "<li{class}><code>{}</code>", escaped(name));
    if let Some(module) = &frame.module {
        let _ = write!(page, " [{}]", escaped(module));
    }
    if frame.inlined {
        page.push_str(" inlined");
    }
    if let Some(place) = &frame.file_line {
        let place_text = escaped(place);
        let _ = match links.of(place) {
            Some(url) => write!(
                page,
                " <a href=\"{}\" rel=\"noreferrer\">{place_text}</a>",
                escaped(&url)
            ),
            None => write!(page, " <span class=\"dim\">{place_text}</span>"),
        };
    }
    page.push_str("</li>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::links::SourceUrl;

    #[test]
    fn a_kernel_s_frame_is_linked_and_nothing_of_a_log_is_markup() {
        let log = b"BUG: KASAN: slab-use-after-free in dk0_show+0x12/0x40 [mydrv]\n\
            Read of size 8 at addr ffff888100000008 by task <b>/77\n\
            Call Trace:\n\
            \x20dk0_show+0x12/0x40 /src/<i>.c:7 [mydrv]\n\
            \x20? vfs_read+0x1/0x2\n\
            \x20dev_attr_show+0x19/0x60 drivers/base/core.c:2428\n\
            Freed by task 9:\n\
            \x20kfree+0x1/0x2 mm/slub.c:6\n";
        let report = knobrig_klog::parse(log).remove(0);
        let mut page = String::new();
        stacks(
            &mut page,
            &report,
            &Links::new(&SourceUrl::default(), "7.2.12"),
        );
        let link = "<code>dev_attr_show</code> <a href=\"https://elixir.bootlin.com/linux/v7.2.12/\
            source/drivers/base/core.c#L2428\" rel=\"noreferrer\">drivers/base/core.c:2428</a>";
        assert!(page.contains(link), "{page}");
        assert!(
            page.contains("<span class=\"dim\">/src/&lt;i&gt;.c:7</span>"),
            "{page}"
        );
        assert!(
            page.contains("<details><summary>Who had freed it, task 9</summary>"),
            "{page}"
        );
        assert!(!page.contains("vfs_read"), "{page}");
        assert_eq!(page.matches("<details open>").count(), 1);
        assert!(!page.contains("<i>"));
    }
}

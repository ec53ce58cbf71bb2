//! Kernel console text in, structured reports out.
//!
//! Bytes of a Linux console (serial line, dmesg, syslog; any chunking, any junk) go into a
//! [`Stream`], [`Report`]s come out: class, title, access, object, stacks, modules, and a key by
//! which reports of the same bug are told. No I/O, no clock, no panic on anything, bounded memory.
//!
//! ```
//! let log = b"[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008\n\
//!             [    1.000001] Oops: 0000 [#1] SMP\n\
//!             [    1.000002] RIP: 0010:dk0_show+0x12/0x40 [mydrv]\n\
//!             [    1.000003] Call Trace:\n\
//!             [    1.000004]  dev_attr_show+0x19/0x60\n\
//!             [    1.000005] ---[ end trace 0000000000000000 ]---\n";
//! let reports = knobrig_klog::parse(log);
//! assert_eq!(reports[0].title, "BUG: unable to handle kernel NULL pointer dereference in dk0_show");
//! assert_eq!(reports[0].stacks[0].frames[0].module.as_deref(), Some("mydrv"));
//! ```
//!
//! How it works, file by file: `line` cuts lines and strips prefixes, `class` holds the headlines
//! and one file per class of report, `shape` says what a line inside a report looks like, `stream`
//! puts lines together to reports, `reader` reads a log to its end, `frame` and `stacks` read stacks, `skip` and `names` pick and
//! name the guilty function, `parts` tells what its
//! thread was at, `history` which module lay at an address, `facts`, `unloaded` and `key` add the
//! rest.

#![forbid(unsafe_code)]

mod case;
mod class;
mod facts;
mod frame;
mod history;
mod judge;
mod key;
mod line;
mod names;
mod parts;
mod reader;
mod report;
mod shape;
mod skip;
mod stacks;
mod stream;
mod unloaded;

pub use history::{Generation, History, Place, Section, Symbol, Symbols};
pub use key::tells_less;
pub use line::Caller;
pub use reader::Reader;
pub use report::{
    Access, AccessKind, Class, Frame, Object, Part, Report, Role, Stack, Taint, Task,
};
pub use stream::Stream;

/// A text with the Rust symbols in it made readable.
pub fn readable(text: &str) -> String {
    let is_symbol = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_symbol) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_symbol(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        match word.starts_with("_R") || word.starts_with("_ZN") {
            true => out.push_str(&frame::readable(word)),
            false => out.push_str(word),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// What a thread waits in: the first function of its stack in a module, else the first that says more
/// than that it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The function.
    pub function: String,
    /// It is a module's.
    pub in_module: bool,
}

impl Waits {
    fn of(frames: &[Frame]) -> Option<Self> {
        let frame = key::first_in(frames)?;
        Some(Self {
            function: frame.function.clone(),
            in_module: frame.module.is_some(),
        })
    }
}

/// What a thread waits in, by its stack as `/proc/PID/stack` prints it.
pub fn waits_in(stack: &str) -> Option<Waits> {
    let lines = stack.lines().map(|line| line.trim_start_matches("[<0>]"));
    let frames: Vec<Frame> = lines
        .filter_map(|line| match frame::parse(line)? {
            frame::FrameLine::Frame(frame) => Some(frame),
            frame::FrameLine::From(both) => Some(both.0),
        })
        .collect();
    Waits::of(&frames)
}

impl Report {
    /// What a task waits in that the kernel says hangs.
    pub fn waits_in(&self) -> Option<Waits> {
        let hangs = self.class == Class::HungTask;
        let stack = self.stack(Role::Fault).filter(|_| hangs)?;
        // As the kernel prints it, whoever has looked its lines up since.
        let frames: Vec<_> = (stack.frames.iter().filter(|it| !it.inlined).cloned()).collect();
        Waits::of(&frames)
    }
}

/// All reports of a whole console text, in the order they begin.
pub fn parse(log: &[u8]) -> Vec<Report> {
    let mut reader = Reader::new();
    reader.push(log);
    reader.finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_waiting_thread_s_function_is_the_driver_s() {
        let stack = "rmmod did not return within 20000 ms (state D):\n\
            [<0>] kernfs_drain+0x1fb/0x330\n\
            [<0>] __kernfs_remove+0x390/0x620\n\
            [<0>] mydrv_remove+0x42/0x60 [mydrv]\n\
            [<0>] __x64_sys_delete_module+0x254/0x320\n";
        let waits = |stack: &str| super::waits_in(stack).map(|it| (it.function, it.in_module));
        assert_eq!(waits(stack), Some(("mydrv_remove".into(), true)));
        let kernel = stack
            .replace(" [mydrv]", "")
            .replace("mydrv_remove", "driver_detach");
        assert_eq!(waits(&kernel), Some(("kernfs_drain".into(), false)));
        assert_eq!(waits("no stack"), None);
    }

    #[test]
    fn rust_symbols_in_a_text_become_readable() {
        let text =
            " ? _RNvNtCs7hGo5QI5OSw_5mydrv5knobs4show+0x12/0x40 [mydrv]\n __x64_sys_read+1/2";
        assert_eq!(
            super::readable(text),
            " ? mydrv::knobs::show+0x12/0x40 [mydrv]\n __x64_sys_read+1/2"
        );
        assert_eq!(super::readable("_R _ZN äö_Rx"), "_R _ZN äö_Rx");
    }
}

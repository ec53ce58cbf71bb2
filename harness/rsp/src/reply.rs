//! What a stub answers. The payload alone doesn't tell what it is; who asked knows.

use crate::Thread;
use crate::packet::digit;

/// Characters of a payload that are told.
const TOLD: usize = 80;

/// An answer that is not the one awaited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// It can't be done now.
    #[error("the stub refuses it: {0}")]
    Refused(String),
    /// It never can.
    #[error("the stub doesn't know it")]
    Unknown,
    /// There is no machine any more.
    #[error("the machine has ended: {0}")]
    Ended(String),
    /// No answer to this.
    #[error("the stub answers with {0:?}, which is none")]
    Garbled(String),
}

fn told(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().take(TOLD).collect()
}

/// What is wrong with an answer, seen by itself.
fn bad(payload: &[u8]) -> BadReply {
    match payload {
        [] => BadReply::Unknown,
        [b'E', ..] => BadReply::Refused(told(payload)),
        [b'W' | b'X', ..] => BadReply::Ended(told(payload)),
        _ => BadReply::Garbled(told(payload)),
    }
}

/// The answer to a request that has nothing to tell.
///
/// # Errors
/// It was not carried out.
pub fn done(payload: &[u8]) -> Result<(), BadReply> {
    match payload {
        b"OK" => Ok(()),
        _ => Err(bad(payload)),
    }
}

/// The machine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Unix' number of the signal that this would be: 5 for a breakpoint, 2 for an interrupt.
    pub signal: u8,
    /// Whose stop it is, where the stub says so. Others may have come to a breakpoint, too.
    pub thread: Option<Thread>,
}

/// The answer to a resumption, or to an interrupt.
///
/// # Errors
/// It is another, or the machine has ended.
pub fn stopped(payload: &[u8]) -> Result<Stop, BadReply> {
    let (b'S' | b'T', Some(rest)) = (payload.first().copied().unwrap_or(0), payload.get(1..))
    else {
        return Err(bad(payload));
    };
    let (Some(signal), Some(rest)) = (rest.get(..2).and_then(byte), rest.get(2..)) else {
        return Err(bad(payload));
    };
    let pairs = rest.split(|it| *it == b';');
    let thread = pairs
        .filter_map(|pair| pair.strip_prefix(b"thread:"))
        .next();
    Ok(Stop {
        signal,
        thread: thread.and_then(thread_id),
    })
}

/// `TID`, or `pPID.TID` with processes.
fn thread_id(text: &[u8]) -> Option<Thread> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.rsplit('.').next()?;
    u64::from_str_radix(text, 16).ok().map(Thread)
}

/// Two digits.
fn byte(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// What is read of an x86-64 vCPU's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction that it runs next.
    pub rip: u64,
    /// Where the data of the running thread begins that only it has. Linux leaves it a thread's
    /// own while that is in the kernel, and a thread of the kernel has none.
    pub fs_base: u64,
}

/// 16 registers of 8 bytes stand before it.
const RIP: usize = 16 * 8;
/// rip, eflags of 4 bytes and 6 selectors of 4 bytes do, too.
const FS_BASE: usize = RIP + 8 + 4 + 6 * 4;

/// The answer to [`Command::Registers`](crate::Command::Registers) of a stub for x86-64: the
/// registers of GDB's feature `org.gnu.gdb.i386.core` in the order of QEMU's `i386-64bit.xml`.
///
/// # Errors
/// It is another, or a register isn't known.
pub fn registers(payload: &[u8]) -> Result<Registers, BadReply> {
    let word = |at: usize| {
        let digits = payload.get(2 * at..2 * (at + 8))?;
        let mut bytes = [0; 8];
        for (to, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *to = byte(pair)?;
        }
        Some(u64::from_le_bytes(bytes))
    };
    let (Some(rip), Some(fs_base)) = (word(RIP), word(FS_BASE)) else {
        return Err(bad(payload));
    };
    Ok(Registers { rip, fs_base })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stop_tells_signal_and_thread() {
        let stop = |signal, vcpu| {
            Ok(Stop {
                signal,
                thread: Some(Thread::of_vcpu(vcpu)),
            })
        };
        // QEMU's own words, with and without processes.
        assert_eq!(stopped(b"T05thread:01;"), stop(5, 0));
        assert_eq!(stopped(b"T02thread:p01.02;"), stop(2, 1));
        assert_eq!(stopped(b"T05hwbreak:;thread:10;"), stop(5, 15));
        assert_eq!(stopped(b"S05").map(|it| it.thread), Ok(None));
        assert_eq!(stopped(b"W00"), Err(BadReply::Ended("W00".into())));
        assert_eq!(stopped(b"T0"), Err(BadReply::Garbled("T0".into())));
    }

    #[test]
    fn what_is_not_done_is_told() {
        assert_eq!(done(b"OK"), Ok(()));
        assert_eq!(done(b"E22"), Err(BadReply::Refused("E22".into())));
        assert_eq!(done(b""), Err(BadReply::Unknown));
    }

    #[test]
    fn registers_stand_where_qemu_puts_them() {
        let mut bytes = [0u8; 200];
        bytes[128..136].copy_from_slice(&0xffff_ffff_a000_0018u64.to_le_bytes());
        bytes[164..172].copy_from_slice(&0x7f00_1234_5678u64.to_le_bytes());
        let text: String = bytes.iter().map(|it| format!("{it:02x}")).collect();
        let read = registers(text.as_bytes()).expect("registers");
        assert_eq!(
            (read.rip, read.fs_base),
            (0xffff_ffff_a000_0018, 0x7f00_1234_5678)
        );
        assert!(registers(&text.as_bytes()[..300]).is_err());
        assert!(registers(text.replace("18000000", "xxxxxxxx").as_bytes()).is_ok());
        assert!(registers(text.replace("180000a0", "xxxxxxxx").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_read(payload in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = (done(&payload), stopped(&payload), registers(&payload));
        }

        #[test]
        fn any_stop_is_read(payload in "[TSWXE][0-9a-fx]{0,3}(;?(thread|core):p?[0-9a-f.]{0,20};){0,3}") {
            let _ = stopped(payload.as_bytes());
        }
    }
}

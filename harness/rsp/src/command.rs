//! What a stub is asked.

use std::fmt::Write as _;

use crate::Thread;

/// The byte that stops a running machine; no packet.
pub const INTERRUPT: u8 = 0x03;

/// A request, each with one reply but [`Command::Resume`], which has its reply when the machine
/// stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop at this instruction, whichever vCPU comes to it, by a breakpoint of the processor's.
    Insert(u64),
    /// No more.
    Remove(u64),
    /// Whose registers are meant from now on.
    Select(Thread),
    /// All of its registers.
    Registers,
    /// Some go on; whoever is not named stays where it is.
    Resume(Vec<(Thread, Action)>),
}

/// How a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Until something stops the machine.
    Continue,
    /// By one instruction.
    Step,
}

impl Command {
    /// The payload of its packet.
    pub fn payload(&self) -> Vec<u8> {
        let text = match self {
            Self::Insert(address) => format!("Z1,{address:x},1"),
            Self::Remove(address) => format!("z1,{address:x},1"),
            Self::Select(Thread(thread)) => format!("Hg{thread:x}"),
            Self::Registers => "g".to_owned(),
            Self::Resume(threads) => {
                let mut text = "vCont".to_owned();
                for (Thread(thread), action) in threads {
                    let action = match action {
                        Action::Continue => 'c',
                        Action::Step => 's',
                    };
                    // Writing to a String can't fail.
                    let _ = write!(text, ";{action}:{thread:x}");
                }
                text
            }
        };
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_the_manual_has_them() {
        let text = |command: Command| String::from_utf8(command.payload()).expect("text");
        assert_eq!(
            text(Command::Insert(0xffff_ffff_a000_0018)),
            "Z1,ffffffffa0000018,1"
        );
        assert_eq!(text(Command::Remove(0x10)), "z1,10,1");
        assert_eq!(text(Command::Select(Thread::of_vcpu(15))), "Hg10");
        assert_eq!(text(Command::Registers), "g");
        let some = vec![
            (Thread::of_vcpu(1), Action::Continue),
            (Thread::of_vcpu(0), Action::Step),
        ];
        assert_eq!(text(Command::Resume(some)), "vCont;c:2;s:1");
    }
}

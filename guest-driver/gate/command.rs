// SPDX-License-Identifier: GPL-2.0-only
//! The words that /dev/knobgate takes, one command a write.
//!
//! | command | what it does |
//! |---|---|
//! | `modules NAME…` | these modules are under test from their next load on |
//! | `func NUMBER NAME` | gives a function a number; `ENOENT` where there is none of that name, `EOPNOTSUPP` where ftrace can't hook it |
//! | `hook` | hooks the functions that were given numbers |
//! | `arm GATE FUNC entry\|return any\|workers\|TID any\|own N MS stay\|sleep` | arms a gate at the N-th of these calls, `own` with a module under test on the stack; it lets go after MS |
//! | `release GATE` | lets go whoever it holds, or will come to it |
//! | `disarm` | releases all and frees them; `ETIMEDOUT` where one still holds somebody after a second |
//! | `tidy` | unhooks what modules that have gone left: before one of them is loaded again |
//! | `watch TID…` | notes the calls of these threads, and all with a module under test on the stack |
//! | `unwatch` | notes no more |
//! | `events`, `gates`, `passes` | what this descriptor reads from now on |

use crate::device::{Opened, Reads};
use crate::func;
use crate::gate::{self, Point, Who};
use crate::hook::{self, Hooked, Owner};
use crate::symbol;
use crate::sys::Thread;
use crate::target::{self, Name};
use crate::trail;
use kernel::prelude::*;
use kernel::sync::GlobalGuard;

/// What commands change, one at a time.
pub(crate) struct Words {
    modules: [Name; target::MOST],
    pub(crate) hooked: Hooked,
}

impl Words {
    /// The modules under test; empty names for none.
    pub(crate) fn modules(&self) -> &[Name] {
        &self.modules
    }
}

kernel::sync::global_lock! {
    // SAFETY: initialized by the module's init, before anything else.
    pub(crate) unsafe(uninit) static LOCK: Mutex<Words> = Words {
        modules: [[0; target::NAME_LEN]; target::MOST],
        hooked: Hooked::NONE,
    };
}

/// That the lock is held.
pub(crate) type Guard = GlobalGuard<LOCK>;

/// Longest time that a gate can hold a thread, in milliseconds.
const LONGEST_MS: u32 = 10_000;
/// Ticks that `disarm` waits for threads to go on.
const DISARM: u32 = 1_000;

/// Does what a command says.
pub(crate) fn obey(opened: &Opened, text: &str) -> Result {
    let mut words = text.split_ascii_whitespace();
    let command = words.next().ok_or(EINVAL)?;
    let mut guard = LOCK.lock();
    match command {
        "modules" => {
            let mut modules = [[0; target::NAME_LEN]; target::MOST];
            for (at, name) in words.by_ref().enumerate() {
                *modules.get_mut(at).ok_or(E2BIG)? = target::name(name)?;
            }
            if modules != guard.modules {
                guard.modules = modules;
                target::forget();
            }
        }
        "func" => {
            let number = number(words.next())?;
            let name = words.next().ok_or(EINVAL)?;
            let address = symbol::look_up(name)?;
            let owner = match symbol::module_of(&guard, address)? {
                None => Owner::Kernel,
                Some(module) => {
                    let module = target::name(module)?;
                    let known = guard.modules.iter().position(|it| *it == module);
                    Owner::Module(known.ok_or(ENOENT)?)
                }
            };
            hook::tidy(&mut guard);
            hook::add(&mut guard, number, owner, symbol::location(address)?)?;
        }
        "hook" => hook::hook(&mut guard)?,
        "arm" => {
            let gate = number(words.next())?;
            let func = func::numbered(number(words.next())?).ok_or(ENOENT)?;
            let at_return = choice(words.next(), "entry", "return")?;
            let who = match words.next().ok_or(EINVAL)? {
                "any" => Who::Anybody,
                "workers" => Who::Workers,
                tid => {
                    let tid = tid.parse().map_err(|_| EINVAL)?;
                    Who::Thread(Thread::find(tid)?, tid)
                }
            };
            let own = choice(words.next(), "any", "own")?;
            let occurrence = number(words.next())?;
            let ms = number(words.next())?;
            let sleeps = choice(words.next(), "stay", "sleep")?;
            if occurrence == 0 || ms > LONGEST_MS as usize {
                return Err(EINVAL);
            }
            let point = Point {
                func,
                at_return,
                who,
                own,
                occurrence: occurrence as u32,
                hold_ns: ms as u64 * 1_000_000,
                sleeps,
            };
            gate::arm(gate, &point)?;
        }
        "release" => gate::release(number(words.next())?)?,
        "disarm" => {
            gate::disarm(DISARM)?;
            hook::tidy(&mut guard);
        }
        "tidy" => hook::tidy(&mut guard),
        "watch" => trail::begin(words.by_ref().map(|it| it.parse().map_err(|_| EINVAL)))?,
        "unwatch" => trail::end(),
        "events" => opened.read_now(Reads::Events),
        "gates" => opened.read_now(Reads::Gates),
        "passes" => opened.read_now(Reads::Passes),
        _ => return Err(EINVAL),
    }
    match words.next() {
        None => Ok(()),
        Some(_) => Err(EINVAL),
    }
}

fn number(word: Option<&str>) -> Result<usize> {
    let number: u32 = word.ok_or(EINVAL)?.parse().map_err(|_| EINVAL)?;
    Ok(number as usize)
}

/// Whether the word is `yes`; it must be one of the two.
fn choice(word: Option<&str>, no: &str, yes: &str) -> Result<bool> {
    match word.ok_or(EINVAL)? {
        it if it == no => Ok(false),
        it if it == yes => Ok(true),
        _ => Err(EINVAL),
    }
}

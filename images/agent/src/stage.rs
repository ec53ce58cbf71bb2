//! Where each actor is, told without locks, and the notes that teardowns take of it.
//!
//! An actor publishes the op whose system call it is in. A teardown's step begins by looking at
//! all other actors; what it finds inside is noted, and the actor fills in the result as its
//! call returns.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock;
use crate::paths::PathId;
use crate::tally::Op;

/// A loop of teardowns stops adding notes here, so that a report stays a line of sane length.
const MOST_NOTES: usize = 4096;

/// One actor's published place.
#[derive(Debug, Default)]
struct Place {
    /// Odd while inside a call; each call has a number of its own.
    call: AtomicU64,
    /// Op and path of that call.
    what: AtomicU64,
    /// The latest call that a teardown has marked.
    marked: AtomicU64,
}

/// An op that a teardown met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The teardown's number among the actors.
    pub teardown: usize,
    /// Its step.
    pub step: usize,
    /// The actor inside.
    pub actor: usize,
    /// That actor's call.
    call: u64,
    /// What it was doing.
    pub op: Op,
    /// On what.
    pub path: PathId,
    /// What it came to, once it did.
    pub ret: Option<i64>,
}

/// The places of an episode's actors, and the notes.
#[derive(Debug)]
pub struct Stage {
    places: Vec<Place>,
    notes: Mutex<Vec<Note>>,
}

impl Stage {
    /// For so many actors.
    pub fn new(actors: usize) -> Self {
        let places = (0..actors).map(|_| Place::default()).collect();
        Self {
            places,
            notes: Mutex::default(),
        }
    }

    /// Before its call: the actor is inside from here. Returns the call's number.
    pub fn enter(&self, actor: usize, op: Op, path: PathId) -> u64 {
        let place = &self.places[actor];
        // Only the actor itself stores, so that its own load needs no order.
        let call = place.call.load(Ordering::Relaxed) + 1;
        place.what.store(
            u64::from(op as u32) << 32 | u64::from(path),
            Ordering::Release,
        );
        place.call.store(call, Ordering::SeqCst);
        call
    }

    /// After the call: no longer inside; the notes of this very call get its result.
    pub fn leave(&self, actor: usize, call: u64, ret: i64) {
        let place = &self.places[actor];
        place.call.store(call + 1, Ordering::SeqCst);
        // Either this load sees the teardown's mark, or the teardown's second look at `call`
        // sees the store above and takes no note: all four are sequentially consistent.
        if place.marked.load(Ordering::SeqCst) == call {
            for note in lock(&self.notes).iter_mut() {
                if note.actor == actor && note.call == call {
                    note.ret = Some(ret);
                }
            }
        }
    }

    /// Notes whoever is inside as a step of this teardown begins.
    pub fn note_all(&self, teardown: usize, step: usize) {
        for (actor, place) in self.places.iter().enumerate() {
            let call = place.call.load(Ordering::SeqCst);
            if actor == teardown || call % 2 == 0 {
                continue;
            }
            let what = place.what.load(Ordering::Acquire);
            let mut notes = lock(&self.notes);
            // The maximum, not a plain store: a teardown that was preempted here must not take
            // back the mark of another's on a later call.
            place.marked.fetch_max(call, Ordering::SeqCst);
            // Returned meanwhile: it was not inside as the step began, and `what` may be that
            // of its next call.
            if place.call.load(Ordering::SeqCst) != call || notes.len() >= MOST_NOTES {
                continue;
            }
            let op = Op::ALL[(what >> 32) as usize];
            let path = what as u32;
            notes.push(Note {
                teardown,
                step,
                actor,
                call,
                op,
                path,
                ret: None,
            });
        }
    }

    /// The notes so far.
    pub fn notes(&self) -> Vec<Note> {
        lock(&self.notes).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_the_call_that_was_inside_and_gets_its_result() {
        let stage = Stage::new(3);
        let call = stage.enter(0, Op::Read, 7);
        stage.note_all(2, 4);
        stage.leave(0, call, -19);
        let later = stage.enter(0, Op::Close, 7);
        stage.leave(0, later, 0);
        let notes = stage.notes();
        assert_eq!(notes.len(), 1);
        let note = &notes[0];
        assert_eq!((note.teardown, note.step, note.actor), (2, 4, 0));
        assert_eq!((note.op, note.path, note.ret), (Op::Read, 7, Some(-19)));
    }

    #[test]
    fn outside_of_a_call_nothing_is_noted() {
        let stage = Stage::new(2);
        let call = stage.enter(0, Op::Open, 0);
        stage.leave(0, call, 3);
        stage.note_all(1, 0);
        assert_eq!(stage.notes(), []);
    }

    #[test]
    fn every_note_of_a_returned_call_has_its_result() {
        const CALLS: i64 = 20_000;
        let stage = Stage::new(3);
        std::thread::scope(|scope| {
            for teardown in [1, 2] {
                let stage = &stage;
                scope.spawn(move || (0..2_000).for_each(|step| stage.note_all(teardown, step)));
            }
            for ret in 0..CALLS {
                let call = stage.enter(0, Op::Read, ret as u32);
                stage.leave(0, call, ret);
            }
        });
        for note in stage.notes() {
            assert_eq!(note.ret, Some(i64::from(note.path)), "{note:?}");
        }
    }
}

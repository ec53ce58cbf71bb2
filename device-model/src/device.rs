//! The device: requests from the ring through the gates to the disk and the knobs, and back.
//!
//! It does one step at a time and never waits. A request that a gate holds is parked with its
//! head and what has been done of it; the ring goes on. What happens is told in the trace and,
//! at gates or by the witness, in [`Device::take_events`].

use std::sync::Arc;

use dk_control::{Counters, Event, Gate, Let, Point, Record, Suspicion};
use vm_memory::{Bytes, GuestMemoryMmap};

use crate::chain::{self, MALFORMED_STATUS, Request};
use crate::clock;
use crate::execute::{Outcome, Store};
use crate::gate::{Gates, Held, Passing, Refusal, Ticket};
use crate::ring::{Popped, Ring, RingFault};
use crate::trace::Trace;
use crate::witness::{self, Witness};

/// What one round of work leaves to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The driver wants an interrupt.
    pub interrupt: bool,
    /// The ring may hold more.
    pub more: bool,
}

/// The device, whoever connects to it.
#[derive(Debug)]
pub struct Device {
    store: Store,
    memory: Arc<GuestMemoryMmap>,
    ring: Ring,
    gates: Gates<Parked>,
    witness: Witness,
    trace: Trace,
    counters: Counters,
    events: Vec<Event>,
    /// A driver that was told of an error isn't served until its ring is set up anew.
    fault: Option<String>,
    interrupt: bool,
    /// The driver has started the ring and not taken it back, even if it had to be given up.
    started: bool,
}

/// A request under way.
#[derive(Debug)]
struct Parked {
    number: u64,
    request: Request,
    /// What came of it, once it is done.
    outcome: Option<Outcome>,
}

impl Parked {
    fn point(&self) -> Point {
        if self.outcome.is_some() {
            Point::BeforeCompletion
        } else {
            Point::Seen
        }
    }
}

impl Device {
    /// A device that nobody is connected to.
    pub fn new(store: Store, trace: Trace) -> Self {
        Self {
            store,
            memory: Arc::default(),
            ring: Ring::default(),
            gates: Gates::default(),
            witness: Witness::default(),
            trace,
            counters: Counters::default(),
            events: Vec::new(),
            fault: None,
            interrupt: false,
            started: false,
        }
    }

    /// The disk and the knobs.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The ring, to be set up while it doesn't run.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Whether the ring takes requests.
    pub fn is_running(&self) -> bool {
        self.ring.is_running()
    }

    /// Why the ring was given up, once.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// What has happened at gates, and what was witnessed, since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The counts.
    pub fn counters(&self) -> Counters {
        Counters {
            held: self.gates.held().len() as u64,
            running: self.started,
            ..self.counters
        }
    }

    /// The trace.
    pub fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// When a hold ends by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        self.gates.next_deadline()
    }

    /// A VMM has connected, or is gone.
    pub fn link(&mut self, up: bool) {
        if up {
            self.counters.connections += 1;
        }
        self.trace.record(&Record::Link {
            ns: clock::now(),
            up,
        });
    }

    /// Guest memory is now this. A running ring that isn't in it is given up.
    pub fn set_memory(&mut self, memory: GuestMemoryMmap) {
        self.memory = Arc::new(memory);
        if self.is_running()
            && let Err(fault) = self.ring.check(&*self.memory)
        {
            self.give_up(&fault);
        }
    }

    /// Starts the ring, and takes up what an earlier device left unanswered.
    pub fn start(&mut self) {
        if self.is_running() {
            return;
        }
        self.started = true;
        let memory = Arc::clone(&self.memory);
        match self.ring.start(&*memory) {
            Ok(heads) => {
                self.witness.begin(self.ring.size());
                self.trace.record(&Record::Ring {
                    ns: clock::now(),
                    running: true,
                    dropped: 0,
                });
                for head in heads {
                    self.look_at(head);
                }
            }
            Err(fault) => self.give_up(&fault),
        }
    }

    /// Stops the ring. What is held is dropped: it must never be answered into a ring that the
    /// driver believes to be dead.
    pub fn stop(&mut self) {
        self.started = false;
        self.halt();
    }

    fn halt(&mut self) {
        if !self.is_running() {
            return;
        }
        self.ring.stop();
        let held = self.gates.release_all();
        let dropped = held.len() as u64;
        for held in held {
            self.tell_let_go(&held, Let::RingStopped);
        }
        self.counters.dropped += dropped;
        let ns = clock::now();
        self.trace.record(&Record::Ring {
            ns,
            running: false,
            dropped,
        });
    }

    /// Looks whether the driver has left alone what isn't its own. A stop that the guest waits
    /// for is the last moment for that: later the memory may be anything.
    pub fn inspect(&mut self) {
        if !self.is_running() {
            return;
        }
        let (memory, table) = (Arc::clone(&self.memory), self.ring.table());
        let used = self.witness.check_used(&*memory, &self.ring);
        self.suspect(Suspicion::UsedRingOverwritten, used);
        let available = witness::check_available(&*memory, &self.ring);
        self.suspect(Suspicion::AvailableRingOverwritten, available);
        let request = self.gates.held().find_map(|held| {
            let Parked {
                number, request, ..
            } = &held.item;
            witness::check_request(&*memory, table, *number, request)
        });
        self.suspect(Suspicion::RequestOverwritten, request);
    }

    /// Tells a suspicion, if there is one and it is the first of its kind in this run.
    pub fn suspect(&mut self, what: Suspicion, detail: Option<String>) {
        if let Some(detail) = detail
            && self.witness.is_new(what)
        {
            self.tell(Event::Witness {
                ns: clock::now(),
                what,
                detail,
            });
        }
    }

    /// Does what the ring holds, at most one ring full. Call it after a kick.
    pub fn serve(&mut self) -> Served {
        let memory = Arc::clone(&self.memory);
        let mut more = self.is_running();
        for _ in 0..self.ring.size() {
            if !self.is_running() {
                more = false;
                break;
            }
            match self.ring.pop(&*memory) {
                Ok(Some(Popped::Chain(head))) => self.look_at(head),
                Ok(Some(Popped::InUse(_))) => {
                    self.malformed("its head is in use: the driver got it back never".into());
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(fault) => {
                    if matches!(fault, RingFault::AvailableIndex { .. }) {
                        let detail = Some(fault.to_string());
                        self.suspect(Suspicion::AvailableRingOverwritten, detail);
                        // Where one part is overwritten the others may be, and nobody looks
                        // at a ring that was given up.
                        self.inspect();
                    }
                    self.give_up(&fault);
                }
            }
        }
        Served {
            interrupt: self.take_interrupt(),
            more,
        }
    }

    /// Whether the driver is to be interrupted for what was done since this was asked last.
    pub fn take_interrupt(&mut self) -> bool {
        std::mem::take(&mut self.interrupt)
    }

    /// Arms a gate.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn arm(&mut self, gate: Gate) -> Result<(), Refusal> {
        self.gates.arm(gate)
    }

    /// Takes a gate away.
    pub fn disarm(&mut self, tag: &str) {
        self.gates.disarm(tag);
    }

    /// Lets go what a gate holds; tells how many.
    pub fn release(&mut self, tag: &str) -> u64 {
        let held = self.gates.release(tag);
        self.let_go(held, Let::Command)
    }

    /// Takes every gate away and lets everything go; tells how many.
    pub fn reset_gates(&mut self) -> u64 {
        self.gates.disarm_all();
        let held = self.gates.release_all();
        self.let_go(held, Let::Command)
    }

    /// Lets go what has reached its deadline.
    pub fn expire(&mut self) {
        let held = self.gates.expire(clock::now());
        self.let_go(held, Let::Deadline);
    }

    fn let_go(&mut self, held: Vec<Held<Parked>>, why: Let) -> u64 {
        let count = held.len() as u64;
        for held in held {
            self.tell_let_go(&held, why);
            // An earlier one may have found the ring broken.
            if self.is_running() {
                match held.item.outcome {
                    None => self.execute(held.item),
                    Some(_) => self.complete(held.item),
                }
            }
        }
        count
    }

    /// Looks at a chain that was popped.
    fn look_at(&mut self, head: u16) {
        let memory = Arc::clone(&self.memory);
        match chain::parse(&*memory, self.ring.table(), head) {
            Ok(request) => self.see(request),
            Err(bad) => {
                let Some(status) = bad.status else {
                    self.malformed(bad.fault.to_string());
                    return;
                };
                // Written before it is told: the trace may be the slower one.
                let written = memory.write_obj(MALFORMED_STATUS, status).is_ok();
                self.malformed(bad.fault.to_string());
                self.give_back(head, u32::from(written && bad.status_first));
            }
        }
    }

    fn see(&mut self, request: Request) {
        self.counters.seen += 1;
        let number = self.counters.seen;
        self.trace.record(&Record::Seen {
            ns: clock::now(),
            request: number,
            kind: request.kind,
            sector: request.sector,
            len: request.data_len(),
        });
        let parked = Parked {
            number,
            request,
            outcome: None,
        };
        match self.ask(&parked) {
            Some(ticket) => self.hold(ticket, parked),
            None => self.execute(parked),
        }
    }

    fn execute(&mut self, mut parked: Parked) {
        let outcome = self.store.execute(&*self.memory, &parked.request);
        if self
            .memory
            .write_obj(outcome.status, parked.request.status)
            .is_err()
        {
            // Its memory is gone since it was parsed: there is nowhere to answer to.
            self.malformed("its status byte is out of range by now".into());
            return;
        }
        parked.outcome = Some(outcome);
        match self.ask(&parked) {
            Some(ticket) => self.hold(ticket, parked),
            None => self.complete(parked),
        }
    }

    fn complete(&mut self, parked: Parked) {
        let Parked {
            number,
            request,
            outcome: Some(outcome),
        } = parked
        else {
            return;
        };
        let memory = Arc::clone(&self.memory);
        let changed = witness::check_request(&*memory, self.ring.table(), number, &request);
        self.suspect(Suspicion::RequestOverwritten, changed);
        self.give_back(request.head, used_length(&request, outcome));
        if self.is_running() {
            self.counters.completed += 1;
            let ns = clock::now();
            self.trace.record(&Record::Done {
                ns,
                request: number,
                status: outcome.status,
            });
        }
    }

    fn give_back(&mut self, head: u16, written: u32) {
        let memory = Arc::clone(&self.memory);
        let changed = self.witness.check_used_end(&*memory, &self.ring);
        self.suspect(Suspicion::UsedRingOverwritten, changed);
        let index = self.ring.next_used();
        match self.ring.give_back(&*memory, head, written) {
            Ok(interrupt) => {
                self.witness.note_used(index, head, written);
                self.interrupt |= interrupt;
            }
            Err(fault) => self.give_up(&fault),
        }
    }

    fn ask(&mut self, parked: &Parked) -> Option<Ticket> {
        let Request { kind, sector, .. } = parked.request;
        let passing = Passing {
            point: parked.point(),
            kind,
            sector,
        };
        self.gates.ask(clock::now(), passing)
    }

    fn hold(&mut self, ticket: Ticket, parked: Parked) {
        self.tell(Event::Held {
            ns: clock::now(),
            tag: ticket.tag.to_string(),
            request: parked.number,
            point: parked.point(),
            kind: parked.request.kind,
            sector: parked.request.sector,
        });
        self.gates.hold(ticket, parked);
    }

    fn tell_let_go(&mut self, held: &Held<Parked>, why: Let) {
        let Held { ticket, item } = held;
        let tag = ticket.tag.to_string();
        self.tell(Event::LetGo {
            ns: clock::now(),
            tag,
            request: item.number,
            why,
        });
    }

    fn tell(&mut self, event: Event) {
        self.trace.record(&Record::Gate(event.clone()));
        self.events.push(event);
    }

    fn malformed(&mut self, why: String) {
        self.counters.malformed += 1;
        self.trace.record(&Record::Malformed {
            ns: clock::now(),
            why,
        });
    }

    /// Gives the ring up, as a device does that needs a reset (virtio 1.2, 2.1.1).
    fn give_up(&mut self, fault: &RingFault) {
        self.malformed(fault.to_string());
        self.halt();
        self.fault = Some(fault.to_string());
    }
}

/// Bytes of the chain that were written, from its beginning and without a gap (virtio 1.2,
/// 2.7.8.2): the status byte counts if all before it was written.
fn used_length(request: &Request, outcome: Outcome) -> u32 {
    let before_status = if request.data_from_device {
        request.data_len()
    } else {
        0
    };
    let whole = u64::from(outcome.written) == before_status;
    outcome.written.saturating_add(u32::from(whole))
}

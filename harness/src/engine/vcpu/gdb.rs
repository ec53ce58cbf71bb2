//! QEMU's gdbstub as the gate. It stops the whole machine whenever a vCPU comes to a point of the
//! order, and lets all go on but those that are to wait. Under KVM the points are hardware
//! breakpoints, of which there are four.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use knobrig_vcpu_proto::{Edge, Ordered};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::Orders;
use super::board::{Board, Stands};
use super::wire::Wire;
use crate::error::Error;

/// A vCPU waits so long for another before the order counts as one that can't be. Longer than
/// with the plugin: each point that is come to meanwhile costs a stop of the machine.
const WAIT: Duration = Duration::from_secs(1);
/// An order is some stops and a breakpoint for each point; each has a deadline of its own.
const ANSWER: Duration = Duration::from_secs(60);
/// A single step may end where it began (an interrupt was served instead); so often it is made again.
const STEPS: u32 = 100;

/// The link to whoever speaks with the gdbstub: the machine's stops come whenever they do.
pub struct Gdb {
    asks: mpsc::Sender<Ask>,
}

enum Ask {
    Order(Vec<Edge>, oneshot::Sender<Result<(), Error>>),
    Unorder(oneshot::Sender<Result<Vec<Ordered>, Error>>),
}

impl Gdb {
    /// Of a machine with so many vCPUs. Nothing is said until there is an order.
    pub fn new(socket: UnixStream, cpus: u32) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let holder = Holder {
            wire: Wire::new(socket),
            cpus,
            board: None,
            broken: None,
            inserted: BTreeSet::new(),
            standing: BTreeMap::new(),
        };
        tokio::spawn(holder.serve(asked));
        Self { asks }
    }

    async fn ask<T>(
        &mut self,
        what: &str,
        ask: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Ask,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let gone = || {
            Error::Rig(format!(
                "nobody speaks with QEMU's gdbstub any more; {what} was due"
            ))
        };
        self.asks.send(ask(sender)).await.map_err(|_| gone())?;
        match timeout(ANSWER, answer).await {
            Ok(answer) => answer.map_err(|_| gone())?,
            Err(_) => Err(Error::Deadline {
                what: what.to_owned(),
                after: ANSWER,
                last: "QEMU's gdbstub still answers".into(),
            }),
        }
    }
}

impl Orders for Gdb {
    async fn order(&mut self, edges: Vec<Edge>) -> Result<(), Error> {
        self.ask("an order at the gdbstub", |to| Ask::Order(edges, to))
            .await
    }

    async fn unorder(&mut self) -> Result<Vec<Ordered>, Error> {
        self.ask("the end of an order at the gdbstub", Ask::Unorder)
            .await
    }
}

/// Whoever speaks with the gdbstub.
struct Holder {
    wire: Wire,
    cpus: u32,
    /// The order, if there is one.
    board: Option<Board>,
    /// Why nothing can be done any more.
    broken: Option<String>,
    /// Breakpoints.
    inserted: BTreeSet<u64>,
    /// vCPUs that stand before an instruction of the order, which has counted.
    standing: BTreeMap<u32, u64>,
}

impl Holder {
    async fn serve(mut self, mut asked: mpsc::Receiver<Ask>) {
        loop {
            let end = self
                .board
                .as_ref()
                .and_then(Board::end)
                .map(Instant::from_std);
            let watched = self.broken.is_none() && !self.inserted.is_empty();
            let done = tokio::select! {
                biased;
                ready = self.wire.ready(), if watched => match ready {
                    Ok(()) => self.stopped().await,
                    Err(error) => Err(error),
                },
                ask = asked.recv() => match ask {
                    Some(ask) => {
                        self.obey(ask).await;
                        Ok(())
                    }
                    None => return,
                },
                () = sleep_until(end.unwrap_or_else(Instant::now)), if watched && end.is_some() => {
                    self.give_up().await
                }
            };
            if let Err(error) = done {
                self.fail(&error).await;
            }
        }
    }

    async fn obey(&mut self, ask: Ask) {
        // Who asked may have given up.
        match ask {
            Ask::Order(edges, to) => {
                let done = match &self.broken {
                    Some(why) => Err(Error::Rig(why.clone())),
                    None => self.order(&edges).await,
                };
                if let Err(error) = &done {
                    self.fail(error).await;
                }
                let _ = to.send(done);
            }
            Ask::Unorder(to) => {
                let done = match &self.broken {
                    Some(why) => Err(Error::Rig(why.clone())),
                    None => self.unorder().await,
                };
                if let Err(error) = &done {
                    self.fail(error).await;
                }
                let _ = to.send(done);
            }
        }
    }

    /// Nothing is sure any more. The machine must not be left standing.
    async fn fail(&mut self, error: &Error) {
        if self.broken.is_none() {
            self.broken = Some(error.to_string());
            // If this fails, too, the guest is silent, which its harness notices.
            let _ = self.let_go().await;
        }
    }

    async fn order(&mut self, edges: &[Edge]) -> Result<(), Error> {
        if !self.inserted.is_empty() {
            self.unorder().await?;
        }
        let board = Board::new(edges, WAIT);
        self.wire.interrupt().await?;
        for address in board.addresses() {
            self.wire.breakpoint(address, true).await?;
            self.inserted.insert(address);
        }
        self.board = Some(board);
        self.wire.go_on(0..self.cpus).await
    }

    async fn unorder(&mut self) -> Result<Vec<Ordered>, Error> {
        // Where all points were come to the machine runs free already.
        if !self.inserted.is_empty() {
            self.wire.interrupt().await?;
            self.let_go().await?;
        }
        let board = self.board.take();
        Ok(board.map_or(Vec::new(), |board| board.outcome(now())))
    }

    /// No breakpoint any more, and all vCPUs of the standing machine go on.
    async fn let_go(&mut self) -> Result<(), Error> {
        self.standing.clear();
        for address in std::mem::take(&mut self.inserted) {
            self.wire.breakpoint(address, false).await?;
        }
        self.wire.go_on(0..self.cpus).await
    }

    /// Somebody has waited in vain: all go on.
    async fn give_up(&mut self) -> Result<(), Error> {
        self.wire.interrupt().await?;
        if let Some(board) = &mut self.board {
            board.give_up(now());
        }
        self.go_on().await
    }

    /// The machine has stopped: somebody has come somewhere.
    async fn stopped(&mut self) -> Result<(), Error> {
        self.wire.stop("the stop at a breakpoint").await?;
        let Some(board) = &self.board else {
            return self.let_go().await;
        };
        // The stop tells of one vCPU; others may have come to a breakpoint at the same time.
        let mut come = Vec::new();
        for vcpu in (0..self.cpus).filter(|vcpu| !board.waits(*vcpu)) {
            let registers = self.wire.registers(vcpu).await?;
            if self.inserted.contains(&registers.rip) {
                self.standing.insert(vcpu, registers.rip);
                come.push(Stands {
                    vcpu,
                    address: registers.rip,
                    thread: registers.fs_base,
                });
            }
        }
        if let Some(board) = &mut self.board {
            board.come(&come, now());
        }
        self.go_on().await
    }

    /// All go on but those that are to wait.
    async fn go_on(&mut self) -> Result<(), Error> {
        let Some(board) = &mut self.board else {
            return self.let_go().await;
        };
        if (0..self.cpus).all(|vcpu| board.waits(vcpu)) {
            board.contradicts(now());
        }
        let wanted = board.addresses();
        let going: Vec<_> = (0..self.cpus).filter(|vcpu| !board.waits(*vcpu)).collect();
        for address in self.inserted.clone() {
            if !wanted.contains(&address) {
                self.wire.breakpoint(address, false).await?;
                self.inserted.remove(&address);
            }
        }
        for vcpu in &going {
            if let Some(address) = self.standing.remove(vcpu)
                && self.inserted.contains(&address)
            {
                self.step_over(*vcpu, address).await?;
            }
        }
        self.wire.go_on(going.into_iter()).await
    }

    /// A vCPU goes past a breakpoint that stays, alone.
    async fn step_over(&mut self, vcpu: u32, address: u64) -> Result<(), Error> {
        self.wire.breakpoint(address, false).await?;
        for _ in 0..STEPS {
            self.wire.step(vcpu).await?;
            if self.wire.registers(vcpu).await?.rip != address {
                return self.wire.breakpoint(address, true).await;
            }
        }
        Err(Error::Rig(format!(
            "vCPU {vcpu} did not go on from {address:#x} in {STEPS} single steps"
        )))
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use knobrig_rsp::{ACK, Decoder, Item, frame};
    use knobrig_vcpu_proto::Point;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    /// What vCPU and thread did, in turn.
    type Went = Vec<(u32, u64)>;

    /// A machine of vCPUs that go through addresses, and its gdbstub as QEMU's: all stop as one comes
    /// to a breakpoint, any byte stops them, now and then a step ends where it began.
    struct Machine {
        ways: Vec<VecDeque<(u64, u64)>>,
        breakpoints: BTreeSet<u64>,
        selected: usize,
        running: Option<Vec<usize>>,
        dice: ChaCha8Rng,
        went: Went,
        /// Told when all have gone their way.
        through: Arc<Notify>,
    }

    impl Machine {
        fn at(&self, vcpu: usize) -> (u64, u64) {
            self.ways[vcpu].front().copied().unwrap_or((1, 0))
        }

        fn pass(&mut self, vcpu: usize) {
            if let Some((address, _)) = self.ways[vcpu].pop_front() {
                self.went.push((vcpu as u32, address));
            }
            if self.ways.iter().all(VecDeque::is_empty) {
                self.through.notify_one();
            }
        }

        /// Lets a vCPU of those that run go on; true if one has come to a breakpoint.
        fn run(&mut self) -> bool {
            let Some(running) = self.running.clone().filter(|it| !it.is_empty()) else {
                return false;
            };
            let hit = |vcpu: &usize| self.breakpoints.contains(&self.at(*vcpu).0);
            if running.iter().any(hit) {
                self.running = None;
                return true;
            }
            let vcpu = running[self.dice.random_range(0..running.len())];
            self.pass(vcpu);
            false
        }

        fn idle(&self) -> bool {
            let mut running = self.running.iter().flatten();
            running.all(|vcpu| self.ways[*vcpu].is_empty())
        }

        /// The answer, if there is one at once.
        fn answer(&mut self, payload: &str) -> Option<String> {
            let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
            let (kind, rest) = payload.split_at(1);
            let address = || number(rest.split(',').nth(1).expect("an address"));
            match kind {
                "Z" => drop(self.breakpoints.insert(address())),
                "z" => assert!(self.breakpoints.remove(&address()), "{payload}"),
                "H" => self.selected = number(&rest[1..]) as usize - 1,
                "g" => {
                    let (rip, thread) = self.at(self.selected);
                    let mut bytes = [0; 200];
                    bytes[128..136].copy_from_slice(&rip.to_le_bytes());
                    bytes[164..172].copy_from_slice(&thread.to_le_bytes());
                    return Some(bytes.iter().map(|it| format!("{it:02x}")).collect());
                }
                "v" => {
                    let actions: Vec<_> = rest.split(';').skip(1).collect();
                    let vcpus = actions
                        .iter()
                        .map(|it| number(&it[2..]) as usize - 1)
                        .collect();
                    if actions[0].starts_with('s') {
                        let vcpus: Vec<usize> = vcpus;
                        if self.dice.random_bool(0.7) {
                            self.pass(vcpus[0]);
                        }
                        return Some("T05thread:01;".into());
                    }
                    self.running = Some(vcpus);
                    return None;
                }
                _ => return Some(String::new()),
            }
            Some("OK".into())
        }

        /// Serves the gdbstub until it is hung up; gives what was done.
        async fn serve(mut self, mut socket: UnixStream) -> Went {
            let mut decoder = Decoder::default();
            let mut bytes = [0; 512];
            loop {
                if self.run() {
                    let stop = frame(b"T05thread:01;");
                    socket.write_all(&stop).await.expect("written");
                }
                let read = match self.running.is_some() && !self.idle() {
                    true => match socket.try_read(&mut bytes) {
                        Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                            tokio::task::yield_now().await;
                            continue;
                        }
                        read => read,
                    },
                    false => socket.read(&mut bytes).await,
                };
                let count = read.expect("read");
                if count == 0 {
                    return self.went;
                }
                if self.running.take().is_some() {
                    assert_eq!(bytes[..count], [3], "nothing else is sent while it runs");
                    socket
                        .write_all(&frame(b"T02thread:01;"))
                        .await
                        .expect("written");
                    continue;
                }
                for item in decoder.push(&bytes[..count]) {
                    let Item::Packet(payload) = item else {
                        continue;
                    };
                    socket.write_all(&[ACK]).await.expect("written");
                    let payload = String::from_utf8(payload).expect("text");
                    if let Some(answer) = self.answer(&payload) {
                        socket
                            .write_all(&frame(answer.as_bytes()))
                            .await
                            .expect("written");
                    }
                }
            }
        }
    }

    /// Threads, each on the vCPU of its number, unless it says otherwise.
    const OWN: u64 = 7;
    const OTHER: u64 = 8;

    /// A gdbstub's link, and the machine behind it.
    struct Rig {
        gdb: Gdb,
        machine: JoinHandle<Went>,
        through: Arc<Notify>,
    }

    fn rig(seed: u64, ways: &[&[(u64, u64)]]) -> Rig {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let through = Arc::new(Notify::new());
        let machine = Machine {
            ways: ways
                .iter()
                .map(|way| way.iter().copied().collect())
                .collect(),
            breakpoints: BTreeSet::new(),
            selected: 0,
            // Before the order there is nothing to go through for who waits for it.
            running: Some(Vec::new()),
            dice: ChaCha8Rng::seed_from_u64(seed),
            went: Vec::new(),
            through: Arc::clone(&through),
        };
        Rig {
            gdb: Gdb::new(ours, ways.len() as u32),
            machine: tokio::spawn(machine.serve(theirs)),
            through,
        }
    }

    fn point(vcpu: u32, address: u64) -> Point {
        Point {
            vcpu,
            address,
            nth: 1,
            thread: Some(OWN),
        }
    }

    fn edge(before: Point, after: Point) -> Edge {
        Edge { before, after }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(future)
    }

    impl Rig {
        async fn end(mut self) -> (Vec<Ordered>, Went) {
            let ordered = self.gdb.unorder().await.expect("unordered");
            drop(self.gdb);
            (ordered, self.machine.await.expect("it ends"))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// 0 comes to 0x20, then 1 goes from 0x50 to 0x60, then 0 goes on at 0x30; a thread that is not
        /// meant comes by first, and a third vCPU by all of it.
        #[test]
        fn an_order_is_as_asked_however_they_run(seed: u64) {
            let own = |way: &[u64]| way.iter().map(|it| (*it, OWN)).collect::<Vec<_>>();
            let mut first = vec![(0x20, OTHER), (0x30, OTHER)];
            first.extend(own(&[0x10, 0x20, 0x28, 0x30, 0x38]));
            let second = own(&[0x40, 0x50, 0x58, 0x60, 0x68]);
            let third = own(&[0x20, 0x50, 0x60, 0x30]);
            let (ordered, went) = block_on(async {
                let mut rig = rig(seed, &[&first, &second, &third]);
                let edges = vec![
                    edge(point(0, 0x20), point(1, 0x50)),
                    edge(point(1, 0x60), point(0, 0x30)),
                ];
                rig.gdb.order(edges).await.expect("ordered");
                rig.through.notified().await;
                rig.end().await
            });
            prop_assert!(ordered.iter().all(|it| it.before && it.after && !it.in_vain), "{:?}", ordered);
            let place = |who| went.iter().rposition(|it| *it == who).expect("it went there");
            prop_assert!(place((1, 0x50)) > place((0, 0x10)), "{:?}", went);
            prop_assert!(place((0, 0x30)) > place((1, 0x58)), "{:?}", went);
        }
    }

    #[test]
    fn what_cannot_be_is_told_and_all_go_on() {
        let (ordered, went) = block_on(async {
            let mut rig = rig(
                1,
                &[&[(0x10, OWN), (0x20, OWN)], &[(0x50, OWN), (0x60, OWN)]],
            );
            // Each waits for what the other does after its wait.
            let edges = vec![
                edge(point(0, 0x20), point(1, 0x50)),
                edge(point(1, 0x60), point(0, 0x10)),
            ];
            rig.gdb.order(edges).await.expect("ordered");
            rig.through.notified().await;
            rig.end().await
        });
        assert!(ordered.iter().any(|it| it.in_vain), "{ordered:?}");
        assert_eq!(went.len(), 4, "{went:?}");
    }

    #[test]
    fn an_order_ends_before_anybody_has_come() {
        let (ordered, went) = block_on(async {
            let mut rig = rig(1, &[&[(0x10, OWN)], &[]]);
            let edges = vec![edge(point(1, 0x50), point(0, 0x20))];
            rig.gdb.order(edges).await.expect("ordered");
            rig.end().await
        });
        assert!(!ordered[0].before && !ordered[0].after && !ordered[0].in_vain);
        assert!(went.len() <= 1);
    }

    #[test]
    fn a_stub_that_has_gone_is_told() {
        block_on(async {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut gdb = Gdb::new(ours, 1);
            drop(theirs);
            let edges = vec![edge(point(0, 1), point(0, 2))];
            let error = gdb.order(edges).await.expect_err("nobody is there");
            assert!(error.to_string().contains("gdbstub"), "{error}");
        });
    }
}

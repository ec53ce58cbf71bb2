//! Threads kept between episodes: starting one costs milliseconds under emulation.
//!
//! A worker that hangs in the kernel is simply never idle again, and the next job starts a new
//! one in its place.

use std::ffi::CString;
use std::io;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use knobrig_proto::Priority;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_name};

use crate::lock;
use crate::priority;
use crate::task::Task;

/// Stack of a worker: steps are shallow, and every page of it is guest memory.
const STACK: usize = 256 << 10;
/// How long a new thread has to come up. It takes milliseconds.
const START: Duration = Duration::from_secs(10);
/// Linux's TASK_COMM_LEN less its NUL.
const NAME_LEN: usize = 15;

/// Something for a worker to do.
pub trait Job: Send {
    /// Does it, with the worker's read buffer.
    fn run(&mut self, buf: &mut Vec<u8>);
    /// Tells that it is done. By then the worker is free for the next job.
    fn ended(&mut self);
}

/// The idle workers.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Worker>>,
    cpus: Vec<usize>,
}

/// A worker, in the hands of whoever hired it.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::Sender<(Box<dyn Job>, Worker)>,
    /// To look at it with.
    pub task: Arc<Task>,
    /// How it last ran; a worker that fits already needs no system calls to be set up.
    role: Role,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Role {
    name: String,
    /// `None`: any CPU.
    cpu: Option<usize>,
    priority: Priority,
}

impl Pool {
    /// An empty pool over the CPUs that this process may use.
    ///
    /// # Errors
    /// When the kernel doesn't tell these.
    pub fn new() -> io::Result<Arc<Self>> {
        let set = sched_getaffinity(None)?;
        let cpus = (0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect();
        Ok(Arc::new(Self {
            idle: Mutex::default(),
            cpus,
        }))
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// An idle worker, or a new one, for a thread of that name on that CPU (modulo the CPUs), with
    /// that priority.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn hire(
        self: &Arc<Self>,
        name: &str,
        cpu: Option<u32>,
        priority: Priority,
    ) -> io::Result<Worker> {
        let cpu = cpu.map(|cpu| self.cpus[cpu as usize % self.cpus.len()]);
        let role = Role {
            name: name.chars().filter(|&c| c != '\0').collect(),
            cpu,
            priority,
        };
        let mut idle = lock(&self.idle);
        let fitting = idle.iter().position(|worker| worker.role == role);
        let worker = match fitting {
            Some(at) => Some(idle.swap_remove(at)),
            None => idle.pop(),
        };
        drop(idle);
        let mut worker = match worker {
            Some(worker) => worker,
            None => self.start()?,
        };
        worker.role = role;
        Ok(worker)
    }

    fn start(self: &Arc<Self>) -> io::Result<Worker> {
        let (jobs, inbox) = mpsc::channel::<(Box<dyn Job>, Worker)>();
        let born = Arc::new((Mutex::new(None), Condvar::new()));
        let pool = Arc::clone(self);
        let cradle = Arc::clone(&born);
        std::thread::Builder::new()
            .name("worker".into())
            .stack_size(STACK)
            .spawn(move || {
                // Actors compete as ordinary threads, whatever their starter's priority.
                priority::claim(Priority::Usual);
                *lock(&cradle.0) = Some(Arc::new(Task::current()));
                cradle.1.notify_all();
                drop(cradle);
                pool.work(&inbox);
            })?;
        let (slot, bell) = &*born;
        let waited = bell.wait_timeout_while(lock(slot), START, |task| task.is_none());
        let task = match waited {
            Ok((mut task, _)) => task.take(),
            Err(poisoned) => poisoned.into_inner().0.take(),
        };
        let task = task.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "a new thread did not come up in 10 s",
            )
        })?;
        Ok(Worker {
            jobs,
            task,
            role: Role::default(),
        })
    }

    fn work(&self, inbox: &mpsc::Receiver<(Box<dyn Job>, Worker)>) {
        let mut buf = Vec::new();
        let mut role = Role::default();
        while let Ok((mut job, worker)) = inbox.recv() {
            self.dress(&mut role, &worker.role);
            job.run(&mut buf);
            lock(&self.idle).push(worker);
            job.ended();
        }
    }

    /// Gives the calling thread its name, CPU and priority. None can fail for what [`Pool::hire`]
    /// lets in, and a thread without them would still do its job.
    fn dress(&self, now: &mut Role, wanted: &Role) {
        if now.name != wanted.name {
            let seen: Vec<u8> = wanted.name.bytes().take(NAME_LEN).collect();
            if let Ok(name) = CString::new(seen) {
                let _ = set_name(&name);
            }
        }
        if now.cpu != wanted.cpu {
            let mut set = CpuSet::new();
            match wanted.cpu {
                Some(cpu) => set.set(cpu),
                None => self.cpus.iter().for_each(|&cpu| set.set(cpu)),
            }
            let _ = sched_setaffinity(None, &set);
        }
        if now.priority != wanted.priority {
            priority::claim(wanted.priority);
        }
        now.clone_from(wanted);
    }
}

impl Worker {
    /// Starts the job; the worker goes back to the pool by itself.
    pub fn start(self, job: Box<dyn Job>) {
        let jobs = self.jobs.clone();
        // The worker's loop ends only when all senders are gone, and this is one.
        let _ = jobs.send((job, self));
    }
}

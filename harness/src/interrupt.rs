//! Signals outside of a run: set-up ends at once. Builds that it started end with this process
//! and resume the next time. A run listens for itself, since it has guests to stop and a
//! directory to finish.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch::Sender;

use crate::error::Error;
use crate::exit::Exit;

/// How many listen: a run, and what runs it.
static LISTENING: AtomicUsize = AtomicUsize::new(0);

/// Whether a run was asked to end. It stays: what one run was too far gone to hear, the next one
/// of a gallery hears.
static ASKED: LazyLock<Sender<bool>> = LazyLock::new(|| Sender::new(false));

/// Ends the process on a signal from here on, whatever it inherited: a shell starts what it puts
/// in the background with SIGINT ignored.
///
/// # Errors
/// The signals can't be listened for.
pub fn watch() -> Result<(), Error> {
    let failed = |error| Error::Rig(format!("failed to listen for signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let watch = move || {
        for _ in signals.forever() {
            if LISTENING.load(Ordering::SeqCst) > 0 {
                ASKED.send_replace(true);
            } else {
                eprintln!("knobrig: interrupted; what was set up is kept");
                std::process::exit(Exit::Interrupted as i32);
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(watch).map(drop).map_err(failed)
}

/// A run that listens for itself, or what makes several runs, until dropped: no sooner than what it has to write
/// is written, and what is to go has gone.
pub(crate) struct RunListens(());

impl RunListens {
    /// From here on.
    pub(crate) fn new() -> Self {
        LISTENING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// Resolves at SIGINT, SIGTERM or SIGHUP.
    pub(crate) async fn interrupted(&self) {
        let asked = ASKED.subscribe().wait_for(|asked| *asked).await.is_ok();
        assert!(asked, "the sender is never dropped");
    }
}

impl Drop for RunListens {
    fn drop(&mut self) {
        LISTENING.fetch_sub(1, Ordering::SeqCst);
    }
}

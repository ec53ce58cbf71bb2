//! PID 1 of the guest: what is around it, the port, then whatever the host asks for.

use std::sync::Arc;
use std::time::Duration;

use knobrig_agent::outbox::Outbox;
use knobrig_agent::pool::Pool;
use knobrig_agent::port::PortReader;
use knobrig_agent::serve::{Ended, be_prompt, serve};
use knobrig_agent::{console, faults, first, mounts, port, power};

/// The kernel probes virtio devices before it starts PID 1; under emulation on a loaded machine
/// the port's name may come seconds later.
const PORT_DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ! {
    // Run by hand on a host it would mount over /proc and stop that machine.
    if std::process::id() != 1 {
        eprintln!("knobrig-agent is PID 1 of a guest's initramfs; knobrig starts it there");
        std::process::exit(2);
    }
    let outbox = Arc::new(Outbox::default());
    if let Err(why) = live(&outbox) {
        console::fault(&why.to_string());
    }
    power::off()
}

/// From the mounts to the power-off.
fn live(outbox: &Arc<Outbox>) -> Result<(), Box<dyn std::error::Error>> {
    let unmounted = mounts::mount_all();
    for failure in &unmounted {
        console::fault(&failure.to_string());
    }
    for failure in &first::load_all() {
        console::fault(failure);
    }
    let port = port::open(knobrig_proto::PORT, PORT_DEADLINE)?;
    faults::stop_on_panic(outbox, port.try_clone()?);
    let (to, queue) = (port.try_clone()?, Arc::clone(outbox));
    let pool = Pool::new()?;
    std::thread::Builder::new()
        .name(faults::WRITER.into())
        .spawn(move || {
            be_prompt();
            queue.write_to(to);
        })?;
    match serve(PortReader(port), outbox, &pool)? {
        Ended::PowerOff => Ok(()),
        Ended::HangUp => Err("the port ended".into()),
        Ended::Broken(why) => Err(format!("failed to read the port: {why}").into()),
    }
}

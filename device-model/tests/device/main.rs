//! The real `dk-device`, driven over a real vhost-user connection.

mod control;
mod disk;
mod gates;
mod hostile;
mod life;
mod rig;
mod witness;

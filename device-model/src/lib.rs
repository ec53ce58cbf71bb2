//! The virtual PCI device at 0000:00:1f.0.

//! The knob device's request ring over virtio-drivers.
#![no_std]

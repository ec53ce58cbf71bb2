//! knobrig.

fn main() {}

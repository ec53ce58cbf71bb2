//! Kernel console text in, structured reports out.

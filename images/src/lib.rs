//! What boots.

//! Doors for `fuzz/`, which exist in its builds only: bytes from outside go in, and nothing may panic, nor any
//! promise be broken that is asserted here.

/// Headers of a request, a line each: what is read of them is what is written and read again.
pub fn propagation(bytes: &[u8]) {
    crate::propagation::fuzz(bytes);
}

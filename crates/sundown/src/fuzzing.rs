//! Doors for `fuzz/`, which exist in its builds only: bytes from outside go in, and nothing may panic, nor any
//! promise be broken that is asserted here.

/// A header of the PROXY protocol: what is whole stays what it is, whatever follows.
pub fn proxy(bytes: &[u8]) {
    crate::serve::fuzz_proxy(bytes);
}

/// A request of the admin listener: nobody gets in without the token.
pub fn admin(bytes: &[u8]) {
    crate::admin::fuzz(bytes);
}

/// What a parent says: names, the way to it, letters.
pub fn environment(bytes: &[u8]) {
    crate::serve::fuzz_names(bytes);
    crate::restart::fuzz(bytes);
}

//! A header of the PROXY protocol, from whoever connects.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sundown::fuzzing::proxy(bytes));

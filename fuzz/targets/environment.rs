//! What a parent says by its environment (LISTEN_FDNAMES, SUNDOWN_HANDOVER), and the letters it sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sundown::fuzzing::environment(bytes));

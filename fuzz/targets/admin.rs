//! A request of the admin listener: its token, and who asks from where; and the query of a stop.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sundown::fuzzing::admin(bytes));

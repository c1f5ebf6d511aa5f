//! Trace context of whoever calls, in headers of all formats: a line each.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sundown_telemetry::fuzzing::propagation(bytes));

//! What a request's headers can make the reading of its trace context cost: the only test here, for all of a process's
//! memory is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderValue};
use sundown_telemetry::propagation::Propagation;

/// Counts what is held, and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; counting touches none of its memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NAMES: [&str; 14] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "uber-trace-id",
    "uberctx-key",
    "x-amzn-trace-id",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-tags",
    "sw8",
];

#[test]
fn headers_of_any_size_and_number_are_read_in_64_kib() {
    let mebibyte = HeaderValue::from_bytes(&vec![b'a'; 1 << 20]).unwrap();
    let mut too_long = HeaderMap::new();
    for name in NAMES {
        too_long.insert(name, mebibyte.clone());
    }

    let mut no_text = HeaderMap::new();
    for name in NAMES {
        no_text.insert(name, HeaderValue::from_bytes(&[0xFF; 8192]).unwrap());
    }

    // A thousand headers that are as long as is read, of members which all have another key.
    let mut too_many = HeaderMap::new();
    for header in 0..1000 {
        let members: Vec<String> = (0..500)
            .map(|number| format!("k{header}x{number}=v"))
            .collect();
        let members = members.join(",");
        let value = HeaderValue::from_str(&members[..members.len().min(8192)]).unwrap();
        too_many.append("baggage", value.clone());
        too_many.append("tracestate", value);
    }
    too_many.insert(
        "traceparent",
        HeaderValue::from_static("00-12345678901234567890123456789012-1234567890123456-01"),
    );

    // One of each format, two of baggage, none of the trace state: nobody looks at one that has no parent.
    for (headers, refused) in [
        (too_long, 9..10),
        (no_text, 9..10),
        (too_many, 100_000..usize::MAX),
    ] {
        let propagation = Propagation::default();
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);

        let found = propagation.extract(&headers);

        let most = MOST.load(Ordering::Relaxed) - before;
        assert!(most < 64 << 10, "{most} bytes");
        let rejected = found.rejected.garbage + found.rejected.too_long;
        assert!(refused.contains(&rejected), "{:?}", found.rejected);
    }
}

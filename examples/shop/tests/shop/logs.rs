//! What is in the log when a service has ended.

use sundown_verify::process::Ended;

use crate::harness::{Databases, Service};
use crate::stops::begin;

#[tokio::test]
async fn the_line_of_the_end_is_written_however_a_service_ends() {
    // Of three signals the last that is heard ends it at once, whichever that is.
    let ways: [(&[i32], &[i32]); 2] = [
        (&[libc::SIGTERM], &[0]),
        (
            &[libc::SIGTERM, libc::SIGINT, libc::SIGQUIT],
            &[128 + libc::SIGTERM, 128 + libc::SIGINT, 128 + libc::SIGQUIT],
        ),
    ];
    for (signals, codes) in ways {
        let databases = Databases::new(&format!("logs-{}", signals.len()));
        let mut service = Service::that_logs(&databases).await;
        let mut busy = None;
        if signals.len() > 1 {
            let slow = "GET /report?ms=60000 HTTP/1.1\r\nhost: shop\r\n\r\n";
            busy = Some(begin(service.addr, slow).await);
        }
        for signal in signals {
            service.signal(*signal);
        }
        let Ended::Code(code) = service.end().await else {
            panic!("its code is its own: {:?}", service.log());
        };
        assert!(codes.contains(&code), "{code}");
        drop(busy);
        let log = service.log();
        let last = log.last().unwrap();
        assert_eq!(last["message"], "stopped", "{log:?}");
        assert_eq!(last["exit_code"], code, "{log:?}");
        assert_eq!(last["service"], "orders");
    }
}

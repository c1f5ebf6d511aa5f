//! What systemd is told, with a socket of the test's own in the place of the manager's.

mod trial;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixDatagram};
use trial::{LIMIT, Trial, spawn};

/// Waits for a message that has all of these; returns it.
async fn told(manager: &UnixDatagram, parts: &[&str]) -> String {
    let mut bytes = [0; 4096];
    let heard = async {
        loop {
            let length = manager.recv(&mut bytes).await.unwrap();
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            if parts.iter().all(|part| text.contains(part)) {
                return text.to_owned();
            }
        }
    };
    tokio::time::timeout(LIMIT, heard).await.unwrap()
}

fn microseconds(message: &str) -> Duration {
    let value = message.split("EXTEND_TIMEOUT_USEC=").nth(1).unwrap();
    Duration::from_micros(value.lines().next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn systemd_is_told_of_the_start_the_stop_and_that_the_runtime_lives() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut trial = Trial::of(
        spawn("")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "100000")
            .env("SUNDOWN_GRACE", "40s"),
    )
    .await;
    told(&manager, &["READY=1", "STATUS=ready"]).await;
    told(&manager, &["WATCHDOG=1"]).await;

    let mut slow = trial.ask("/slow?ms=1500").await;
    trial.says("slow began").await;
    trial.signal(libc::SIGTERM);
    let stopping = told(&manager, &["STOPPING=1", "STATUS=stopping: SIGTERM"]).await;
    assert!(
        microseconds(&stopping) >= Duration::from_secs(40),
        "{stopping}"
    );
    let draining = told(&manager, &["STOPPING=1", "STATUS=draining", "GET /slow"]).await;
    assert!(
        microseconds(&draining) >= Duration::from_secs(30),
        "{draining}"
    );
    assert_eq!(slow.answer().await.1, "ok");
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn a_reload_begins_and_ends() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut trial = Trial::of(spawn("").env("NOTIFY_SOCKET", &path)).await;
    told(&manager, &["READY=1"]).await;
    trial.signal(libc::SIGHUP);
    told(&manager, &["RELOADING=1", "MONOTONIC_USEC="]).await;
    told(&manager, &["READY=1"]).await;
    assert_eq!(trial.stop().await.0, 0);
}

#[tokio::test]
async fn a_listener_that_systemd_keeps_outlives_the_service() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let spawn = spawn("")
        .env("NOTIFY_SOCKET", &path)
        .env("FDSTORE", "4")
        .env("SUNDOWN_REPORT", "-");
    let mut trial = Trial::of(spawn).await;
    let (message, _kept) = with_descriptor(&manager).await;
    assert_eq!(message, "FDSTORE=1\nFDNAME=http\n");
    trial.signal(libc::SIGTERM);
    assert_eq!(trial.exit().await.0, 0);
    assert!(trial.process.stdout().contains(r#""closed_by":"shared""#));
    // It waits for whoever is started next.
    TcpStream::connect(trial.address).await.unwrap();
}

/// The first message that has a descriptor with it.
async fn with_descriptor(manager: &UnixDatagram) -> (String, OwnedFd) {
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = manager.async_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            Ok(recvmsg(manager, &mut parts, &mut beside, flags)?.bytes)
        });
        let length = tokio::time::timeout(LIMIT, received)
            .await
            .unwrap()
            .unwrap();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                return (text, descriptors.next().unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_manager_that_does_not_read_holds_nothing_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).unwrap();
    let mut trial = Trial::of(
        spawn("")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20"),
    )
    .await;
    // The socket is full by now, and the thread that tells it waits.
    assert_eq!(trial.ask("/").await.answer().await.1, "ok");
    trial.signal(libc::SIGTERM);
    assert_eq!(trial.exit().await.0, 0);
}

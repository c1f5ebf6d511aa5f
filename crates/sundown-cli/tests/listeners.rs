//! `sundown run` over a service of several listeners: two that share an address, and one for each family of
//! addresses. Whether the guard may open the service's sockets or not, each of them is served on.
//!
//! The service is this test binary again.

mod guarded;

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use socket2::{Domain, Socket, Type};
use sundown_verify::process::{Ended, free_port};
use sundown_verify::{Process, Refuse};

use self::guarded::{LIMIT, guard, listens, signal, visit};

/// The ports of the service, in its environment.
const PORTS: &str = "SUNDOWN_TEST_PORTS";

/// Plays the service; as an ordinary test it does nothing.
#[test]
fn the_service_listens() {
    let Ok(ports) = env::var(PORTS) else { return };
    let (shared, both) = ports.split_once(' ').unwrap();
    let [shared, both] = [shared, both].map(|port| port.parse().unwrap());
    let twin = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        open(socket, (Ipv4Addr::LOCALHOST, shared).into())
    };
    let six = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        open(socket, (Ipv6Addr::UNSPECIFIED, both).into())
    };
    let four = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        open(socket, (Ipv4Addr::UNSPECIFIED, both).into())
    };
    let mut listeners = vec![twin(), twin()];
    listeners.extend(has_six().then(six));
    listeners.push(four());
    let serve = |listener| thread::spawn(|| serve(listener));
    let serving: Vec<_> = listeners.into_iter().map(serve).collect();
    for thread in serving {
        thread.join().unwrap();
    }
}

/// Whether this machine has IPv6.
fn has_six() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn open(socket: Socket, address: SocketAddr) -> TcpListener {
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn serve(listener: TcpListener) {
    while let Ok((mut client, _)) = listener.accept() {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }
}

#[tokio::test]
async fn each_of_several_listeners_is_taken_over() {
    for refuse in [Refuse::Nothing, Refuse::Descriptors] {
        let [shared, both] = [(); 2].map(|()| free_port().unwrap());
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, both.port()));
        let addresses = [shared, both].into_iter().chain(has_six().then_some(six));
        let mut service = guard(&["--quiet", "100ms"])
            .refuse(refuse)
            .env(PORTS, format!("{} {}", shared.port(), both.port()))
            .arg(env::current_exe().unwrap())
            .args(["--exact", "the_service_listens", "--nocapture"])
            .start()
            .unwrap();
        for generation in 1..=2 {
            if generation == 2 {
                service.signal(libc::SIGHUP).unwrap();
                let over = service
                    .wait_line("generation 1 has ended after", LIMIT)
                    .await;
                assert!(over.unwrap().ends_with("nothing was cut off"));
            }
            let last = format!("generation {generation} listens on 0.0.0.0:{}", both.port());
            let listens = service.wait_output(&last, LIMIT).await;
            listens.unwrap_or_else(|error| panic!("{error}: {}", service.stderr()));
            for address in addresses.clone() {
                // Whichever of the two it is that a connection comes to.
                for _ in 0..16 {
                    visit(address).unwrap();
                }
            }
        }
        let said = stop(service).await;
        let shared = format!("listens on {shared}");
        assert_eq!(said.matches(&shared).count(), 4, "{said}");
    }
}

/// Whether the master starts a worker again that has ended, in its environment.
const AGAIN: &str = "SUNDOWN_TEST_AGAIN";

/// Plays a master of two workers; as an ordinary test it does nothing.
#[test]
fn the_master_has_workers() {
    let Ok(port) = env::var(PORTS) else { return };
    let start = move || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_worker_listens", "--nocapture"])
            .env(PORTS, &port)
            .spawn()
            .unwrap()
    };
    let look_after = || {
        let start = start.clone();
        thread::spawn(
            move || {
                while start().wait().is_ok() && env::var_os(AGAIN).is_some() {}
            },
        )
    };
    for thread in [look_after(), look_after()] {
        thread.join().unwrap();
    }
}

/// Plays a worker, which has a listener of its own at the address of the others; as an ordinary test it does nothing.
#[test]
fn the_worker_listens() {
    let Ok(port) = env::var(PORTS) else { return };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let listener = open(socket, (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into());
    println!("worker {} listens", std::process::id());
    serve(listener);
}

/// The guard over the master, and the worker that has listened last.
async fn with_workers(address: SocketAddr, again: bool) -> (Process, i32) {
    let mut service = guard(&["--quiet", "100ms"]).env(PORTS, address.port().to_string());
    if again {
        service = service.env(AGAIN, "");
    }
    let mut service = service
        .arg(env::current_exe().unwrap())
        .args(["--exact", "the_master_has_workers", "--nocapture"])
        .start()
        .unwrap();
    let worker = loop {
        service.wait_output(" listens\n", LIMIT).await.unwrap();
        let said = service.stdout();
        let workers: Vec<_> = said
            .lines()
            .filter(|line| line.ends_with(" listens"))
            .collect();
        if let [_, last] = workers[..] {
            let pid = last.split(' ').rev().nth(1).unwrap();
            break pid.parse().unwrap();
        }
        tokio::task::yield_now().await;
    };
    (service, worker)
}

async fn stop(mut service: Process) -> String {
    service.signal(libc::SIGTERM).unwrap();
    let exit = service.wait_exit(LIMIT).await.unwrap();
    let said = service.stderr();
    assert_eq!(exit.ended, Ended::Code(0), "{said}");
    said
}

#[tokio::test]
async fn who_waits_for_a_worker_that_is_gone_is_served_by_the_one_in_its_place() {
    let address = free_port().unwrap();
    let (service, worker) = with_workers(address, true).await;
    signal(worker, libc::SIGKILL);
    for _ in 0..32 {
        visit(address).unwrap();
    }
    let said = stop(service).await;
    assert!(
        said.contains("is opened again: its queue was kept"),
        "{said}"
    );
}

#[tokio::test]
async fn a_listener_that_nobody_has_any_more_is_closed() {
    let address = free_port().unwrap();
    let (mut service, worker) = with_workers(address, false).await;
    signal(worker, libc::SIGKILL);
    // Some of these come to the listener of the one that is gone.
    let waiting: Vec<_> = (0..32)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let closed = "the application has closed it";
    service.wait_output(closed, LIMIT).await.unwrap();
    drop(waiting);
    for _ in 0..32 {
        visit(address).unwrap();
    }
    stop(service).await;
}

/// Plays a service that listens somewhere else once it is told to stop; as an ordinary test it does nothing.
#[test]
fn the_service_listens_late() {
    let Ok(port) = env::var(PORTS) else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    let (mut asks, _) = listener.accept().unwrap();
    // The client says when: it waits for an answer, and that holds the stop up.
    asks.read_exact(&mut [0; 2]).unwrap();
    let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connected = TcpStream::connect(own.local_addr().unwrap());
    write!(asks, "{:?}", connected.map(drop)).unwrap();
}

#[tokio::test]
async fn a_service_that_stops_reaches_a_listener_of_its_own() {
    let address = free_port().unwrap();
    let guard = guard(&["--name", "late", "--quiet", "100ms"]);
    let mut service = guard
        .env(PORTS, address.port().to_string())
        .arg(env::current_exe().unwrap())
        .args(["--exact", "the_service_listens_late", "--nocapture"])
        .start()
        .unwrap();
    listens(&mut service, 1).await;
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"a").unwrap();
    service.signal(libc::SIGTERM).unwrap();
    let waits = "generation 1 waits for connection";
    service.wait_output(waits, LIMIT).await.unwrap();
    client.write_all(b"b").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "Ok(())");
    service.wait_exit(LIMIT).await.unwrap();
}

//! `sundown run` over a service of several listeners: two that share an address, and one for each family of
//! addresses. Whether the guard may open the service's sockets or not, each of them is served on.
//!
//! The service is this test binary again.

mod guarded;

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Socket, Type};
use sundown_verify::Refuse;
use sundown_verify::process::{Ended, free_port};

use self::guarded::{LIMIT, guard, visit};

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
            service.wait_output(&last, LIMIT).await.unwrap();
            for address in addresses.clone() {
                // Whichever of the two it is that a connection comes to.
                for _ in 0..16 {
                    visit(address).unwrap();
                }
            }
        }
        service.signal(libc::SIGTERM).unwrap();
        let exit = service.wait_exit(LIMIT).await.unwrap();
        let said = service.stderr();
        assert_eq!(exit.ended, Ended::Code(0), "{said}");
        let shared = format!("listens on {shared}");
        assert_eq!(said.matches(&shared).count(), 4, "{said}");
    }
}

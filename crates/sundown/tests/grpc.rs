//! gRPC over a stop, with tonic on both sides: calls finish, or end with a status.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::Request;
use sundown::{App, ExitStatus, Handle, Listener, Report, Traffic};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A service that is its own health, and whose call to `/never` is never answered.
struct Served {
    handle: Handle,
    address: String,
    running: JoinHandle<Report>,
}

impl Served {
    async fn start() -> Self {
        Self::of(Duration::from_secs(2), |listener| listener).await
    }

    async fn of(grace: Duration, limit: impl FnOnce(Listener) -> Listener) -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        let never = Router::new().route("/never", post(std::future::pending::<()>));
        let app = App::new("grpc")
            .grace(grace)
            .release_share(Duration::ZERO)
            .grpc_health(reporter, [""])
            .listener(limit(Listener::http(
                "127.0.0.1:0",
                never.merge(Routes::new(health).into_axum_router()),
            )));
        let handle = app.handle();
        let running = tokio::spawn(async move { app.serve().await.unwrap() });
        handle.ready().await;
        let address = handle.address("http").unwrap().to_string();
        Self {
            handle,
            address,
            running,
        }
    }

    async fn client(&self) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(endpoint.connect().await.unwrap())
    }

    async fn report(self) -> Report {
        self.running.await.unwrap()
    }
}

fn whole() -> HealthCheckRequest {
    HealthCheckRequest {
        service: String::new(),
    }
}

#[tokio::test]
async fn a_streaming_call_hears_that_nobody_serves_and_ends_with_a_status() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let answer = client.check(whole()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let mut watch = client.watch(whole()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    served.handle.shutdown("the test");
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    let end = watch.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert_eq!(end.message(), "the service is stopping");
    let report = served.report().await;
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
    assert_eq!(report.requests.ended_early, 1);
}

#[tokio::test]
async fn calls_that_may_not_stay_do_not_wait_for_the_end_of_the_drain() {
    let hour = Duration::from_secs(3_600);
    let limit = |listener: Listener| listener.stay(Traffic::Grpc, Duration::ZERO);
    let served = Served::of(hour, limit).await;
    let mut client = served.client().await;
    let mut watch = client.watch(whole()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    served.handle.shutdown("the test");
    let end = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a status"),
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    drop(client);
    let report = served.report().await;
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
}

#[tokio::test]
async fn a_call_that_has_no_answer_in_time_gets_a_status_instead() {
    let served = Served::start().await;
    let stream = TcpStream::connect(&served.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = Request::post("http://grpc/never")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (answer, _) = send.send_request(request, true).unwrap();
    // The answer on a second stream shows that the first has arrived.
    let other = Request::get("http://grpc/other").body(()).unwrap();
    send.send_request(other, true).unwrap().0.await.unwrap();

    served.handle.shutdown("the test");
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    let report = served.report().await;
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
    drop(send);
    connection.await.unwrap().unwrap();
}
